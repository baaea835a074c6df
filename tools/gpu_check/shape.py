"""A model folder with random weights, for timing a model's size without its weights. What it draws is noise."""
import json
import struct
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np


class Shape(NamedTuple):
    """Transformer: width, MLP width, layers, heads, rows of the vocabulary. Image tokenizer: channels, multiples, codes."""

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    channels: int
    multiples: "tuple[int, ...]"
    codes: int
    code_width: int
    pixels: int


SHAPES = {
    "7b": Shape(4096, 11008, 32, 32, 65536, 128, (1, 1, 2, 2, 4), 8192, 256, 768),
    # So wide that a pass has what a pass of the 7B has, and so shallow that the CPU is done in a minute.
    "wide": Shape(4096, 11008, 2, 32, 16384, 32, (1, 1, 2, 2, 4), 8192, 256, 768),
    "tiny": Shape(64, 128, 2, 2, 1024, 32, (1, 1, 2), 512, 16, 64),
}
BLOCKS = 2

Tensors = Iterator["tuple[str, tuple[int, ...]]"]


def transformer(shape: Shape) -> Tensors:
    h, inner, head = shape.hidden, shape.inner, shape.hidden // shape.heads
    yield "model.embed_tokens.weight", (shape.vocabulary, h)
    for i in range(shape.layers):
        layer = f"model.layers.{i}."
        for name in "qkvo":
            yield f"{layer}self_attn.{name}_proj.weight", (h, h)
        for name in "qk":
            yield f"{layer}self_attn.{name}_norm.weight", (1, head)
            yield f"{layer}self_attn.{name}_norm.bias", (1, head)
        yield f"{layer}mlp.gate_proj.weight", (inner, h)
        yield f"{layer}mlp.up_proj.weight", (inner, h)
        yield f"{layer}mlp.down_proj.weight", (h, inner)
        yield f"{layer}input_layernorm.weight", (h,)
        yield f"{layer}post_attention_layernorm.weight", (h,)
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (shape.vocabulary, h)


def both(name: str, weight: "tuple[int, ...]") -> Tensors:
    """Weight and bias."""
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]


def residual(name: str, from_: int, to: int) -> Tensors:
    yield from both(f"{name}.norm1", (from_,))
    yield from both(f"{name}.conv1", (to, from_, 3, 3))
    yield from both(f"{name}.norm2", (to,))
    yield from both(f"{name}.conv2", (to, to, 3, 3))
    if from_ != to:
        yield from both(f"{name}.nin_shortcut", (to, from_, 1, 1))


def middle(name: str, width: int) -> Tensors:
    yield from residual(f"{name}.block_1", width, width)
    yield from both(f"{name}.attn_1.norm", (width,))
    for part in ("q", "k", "v", "proj_out"):
        yield from both(f"{name}.attn_1.{part}", (width, width, 1, 1))
    yield from residual(f"{name}.block_2", width, width)


def image_tokenizer(shape: Shape) -> Tensors:
    widths = [shape.channels * m for m in shape.multiples]
    z = shape.code_width
    yield from both("encoder.conv_in", (shape.channels, 3, 3, 3))
    width = shape.channels
    for level, next_ in enumerate(widths):
        for block in range(BLOCKS):
            yield from residual(f"encoder.down.{level}.block.{block}", width, next_)
            width = next_
        if level + 1 < len(widths):
            yield from both(f"encoder.down.{level}.downsample.conv", (width, width, 3, 3))
    yield from middle("encoder.mid", width)
    yield from both("encoder.norm_out", (width,))
    yield from both("encoder.conv_out", (z, width, 3, 3))
    yield from both("quant_conv", (z, z, 1, 1))
    yield "quantize.embedding.weight", (shape.codes, z)
    yield from both("post_quant_conv", (z, z, 1, 1))
    yield from both("decoder.conv_in", (width, z, 3, 3))
    yield from middle("decoder.mid", width)
    for level in reversed(range(len(widths))):
        for block in range(BLOCKS + 1):
            yield from residual(f"decoder.up.{level}.block.{block}", width, widths[level])
            width = widths[level]
        if level:
            yield from both(f"decoder.up.{level}.upsample.conv", (width, width, 3, 3))
    yield from both("decoder.norm_out", (width,))
    yield from both("decoder.conv_out", (3, width, 3, 3))


def write(path: Path, tensors: Tensors, kind: str) -> None:
    """Weights near those of a fresh network, so that activations stay in range: norms 1, biases 0, matrices 1/sqrt(inputs)."""
    listed = list(tensors)
    bytes_each, header, offset = {"BF16": 2, "F32": 4}[kind], {}, 0
    for name, dims in listed:
        size = int(np.prod(dims)) * bytes_each
        header[name] = {"dtype": kind, "shape": dims, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # Repeated, from another place for each tensor: to draw billions of numbers would take minutes.
    noise = np.random.default_rng(1).standard_normal(1 << 22, np.float32)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for index, (name, dims) in enumerate(listed):
            count = int(np.prod(dims))
            if len(dims) == 1 or "_norm." in name:
                values = np.full(count, 0.0 if name.endswith("bias") else 1.0, np.float32)
            else:
                values = np.roll(noise, 7919 * index) / np.float32(np.sqrt(np.prod(dims[1:])))
            raw = values if kind == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16)
            whole, rest = divmod(count, len(raw))
            for _ in range(whole):
                file.write(raw)
            file.write(raw[:rest])


def letters(number: int) -> str:
    """How the vocabulary spells a code: A to J for the digits, Z at the end."""
    return "".join("ABCDEFGHIJ"[int(d)] for d in str(number)) + "Z"


def vocabulary(shape: Shape) -> "dict[str, int]":
    names = ["<s>", "<pad>", "</s>", "<unk>"] + [f"IMGIMG{letters(i)}" for i in range(shape.codes)]
    names += ["<eoss>", "<racm3:break>", "<reserved08706>", "<reserved08799>"]
    names += [f"<reserved{8800 + n:05}>" for n in range(1, 129)]
    names += "a photo of fox the in snow".split()
    return {name: i for i, name in enumerate(names)}


def make(shape: Shape, folder: Path) -> None:
    """Writes the folder: 14 GB for 7b."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "chameleon", "vocab_size": shape.vocabulary, "hidden_size": shape.hidden,
        "intermediate_size": shape.inner, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096,
        "swin_norm": False, "model_parallel_size": 1,
    }
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary(shape), "unk_token": "<unk>"},
    }
    vqgan = {"model": {"params": {"embed_dim": shape.code_width, "n_embed": shape.codes, "ddconfig": {
        "double_z": False, "z_channels": shape.code_width, "resolution": shape.pixels, "in_channels": 3, "out_ch": 3,
        "ch": shape.channels, "ch_mult": shape.multiples, "num_res_blocks": BLOCKS, "attn_resolutions": [], "dropout": 0.0}}}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    # JSON is YAML.
    (folder / "vqgan.yaml").write_text(json.dumps(vqgan))
    write(folder / "vqgan.safetensors", image_tokenizer(shape), "F32")
    write(folder / "model.safetensors", transformer(shape), "BF16")
