#!/usr/bin/env python3
"""A Lumina-mGPT transformer in plain PyTorch, and the tiny random models that the tests open.

    python tools/golden/lumina.py            makes tests/golden/plain and tests/golden/grouped
    python tools/golden/lumina.py --check    compares this transformer with Hugging Face's Chameleon

Written from a description of the architecture, as the reference that the library is measured against; slow and short
on purpose. The other golden scripts import it. The committed models were made with torch 2.15.0 and seeds 1 and 2.

The check was last run with transformers 5.23.0 in f64: hidden states behind the final norm (of size about 3) differ
by at most 4.6e-7 in both models, which is the rounding of the rotary frequencies, f32 in both but computed in f64 here.
Chameleon stores a qk-norm row for each head, so the rows were repeated for it; `grouped` has the post-norm layers
(swin_norm), two key/value heads and two qk-norm rows.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"


class Lumina:
    """Weights by their names in the checkpoint, and the passes that use them. All numbers in `dtype`."""

    def __init__(self, config, weights, vocabulary, dtype=torch.float32):
        self.config = config
        self.dtype = dtype
        self.weights = {k: v.to(dtype) for k, v in weights.items() if "vqmodel" not in k}
        self.vocabulary = vocabulary
        self.heads = config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"]
        self.head_dim = config["hidden_size"] // self.heads

    @classmethod
    def open(cls, folder, dtype=torch.float32):
        folder = Path(folder)
        config = json.loads((folder / "config.json").read_text())
        vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        return cls(config, load_file(folder / "model.safetensors"), vocabulary, dtype)

    # Sequences. A piece is a token id, or (row,) for row `row` of a table of learned vectors.

    def words(self, text):
        return [self.vocabulary.get(w, self.vocabulary["<unk>"]) for w in text.split()]

    def prompt(self, text, width, height, learned={}):
        """bos, question, separator; `learned` maps a word to the rows of the vectors that take its place."""
        pieces = [self.vocabulary["<s>"]]
        for word in f"Generate an image of {width}x{height} according to the following prompt:\n{text}".split():
            pieces += [(row,) for row in learned[word]] if word in learned else self.words(word)
        return pieces + [self.vocabulary["<reserved08706>"]]

    def image_block(self, codes):
        """`codes` is a list of rows."""
        v = self.vocabulary
        height, width = len(codes), len(codes[0])
        size = lambda n: v[f"<reserved{8800 + n // 2:05}>"]
        rows = [[v[code_name(c)] for c in row] + [v["<reserved08799>"]] for row in codes]
        return [v["<racm3:break>"], size(height), size(width)] + sum(rows, []) + [v["<eoss>"]]

    def sequence(self, prompt, codes):
        """(pieces, index of the first labelled piece); without a prompt the picture alone."""
        block = self.image_block(codes)
        if prompt is None:
            return block, 1
        return prompt + block + [self.vocabulary["<reserved08706>"]], len(prompt)

    # Passes.

    def embed(self, pieces, vectors=None):
        """[T, hidden]"""
        table = self.weights["model.embed_tokens.weight"]
        return torch.stack([vectors[p[0]] if isinstance(p, tuple) else table[p] for p in pieces])

    def forward(self, x, positions=None, mask=None, weights=None):
        """Hidden states behind the final norm of input embeddings [B, T, hidden].

        positions [B or 1, T] count from 0; mask [B or 1, 1, T, T] is added to the attention scores and is causal if not
        given; weights replaces the model's own.
        """
        w = self.weights if weights is None else weights
        eps, swin = self.config["rms_norm_eps"], self.config.get("swin_norm", False)
        t = x.shape[1]
        if positions is None:
            positions = torch.arange(t)[None]
        if mask is None:
            mask = torch.full((t, t), float("-inf"), dtype=self.dtype).triu(1)[None, None]
        half = self.head_dim // 2
        inverse = (1.0 / self.config["rope_theta"] ** (torch.arange(half, dtype=torch.float64) / half)).float()
        angle = (positions[..., None].float() * inverse)[:, :, None]  # [B, T, 1, half]
        cos, sin = angle.cos().to(self.dtype), angle.sin().to(self.dtype)
        for i in range(self.config["num_hidden_layers"]):
            p = f"model.layers.{i}."
            norm1, norm2 = w[p + "input_layernorm.weight"], w[p + "post_attention_layernorm.weight"]
            if swin:
                x = x + rms_norm(self.attention(x, w, p + "self_attn.", cos, sin, mask), norm1, eps)
                x = x + rms_norm(mlp(x, w, p + "mlp."), norm2, eps)
            else:
                x = x + self.attention(rms_norm(x, norm1, eps), w, p + "self_attn.", cos, sin, mask)
                x = x + mlp(rms_norm(x, norm2, eps), w, p + "mlp.")
        return rms_norm(x, w["model.norm.weight"], eps)

    def attention(self, h, w, p, cos, sin, mask):
        b, t, _ = h.shape
        q = (h @ w[p + "q_proj.weight"].T).view(b, t, self.heads, self.head_dim)
        k = (h @ w[p + "k_proj.weight"].T).view(b, t, self.kv_heads, self.head_dim)
        v = (h @ w[p + "v_proj.weight"].T).view(b, t, self.kv_heads, self.head_dim)
        q = rope(qk_norm(q, w[p + "q_norm.weight"], w[p + "q_norm.bias"]), cos, sin).transpose(1, 2)
        k = rope(qk_norm(k, w[p + "k_norm.weight"], w[p + "k_norm.bias"]), cos, sin).transpose(1, 2)
        v = v.transpose(1, 2)
        k, v = (z.repeat_interleave(self.heads // self.kv_heads, dim=1) for z in (k, v))
        scores = q @ k.transpose(2, 3) * self.head_dim**-0.5 + mask
        mixed = scores.softmax(-1) @ v  # [B, heads, T, d]
        return mixed.transpose(1, 2).reshape(b, t, -1) @ w[p + "o_proj.weight"].T

    def logits(self, hidden):
        return hidden @ self.weights["lm_head.weight"].T


def rms_norm(x, weight, eps):
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


def qk_norm(x, weight, bias):
    """Layer norm over each head's channels; row r of weight and bias serves consecutive heads."""
    n = x.shape[2] // weight.shape[0]
    x = F.layer_norm(x, x.shape[-1:], eps=1e-5)
    return x * weight.repeat_interleave(n, 0) + bias.repeat_interleave(n, 0)


def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def mlp(x, w, p):
    return (F.silu(x @ w[p + "gate_proj.weight"].T) * (x @ w[p + "up_proj.weight"].T)) @ w[p + "down_proj.weight"].T


def code_name(index):
    return "IMGIMG" + "".join("ABCDEFGHIJ"[int(d)] for d in str(index)) + "Z"


# Tiny random models, as full model folders.

WORDS = """Generate an image of according to the following prompt: a photo rendering cropped clean dirty dark my cool
close-up bright good one rendition nice small weird large dog cat fox in snow on beach picture blue red sks""".split()

DEFAULTS = dict(model_type="chameleon", vocab_size=128, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=4, rms_norm_eps=1e-5, rope_theta=10000.0,
                model_parallel_size=1, swin_norm=False, bos_token_id=1, eos_token_id=2)
CODES = 16
VQ = dict(ch=32, ch_mult=[1, 1], num_res_blocks=1, z_channels=8, embed_dim=8)  # a code is 2 x 2 pixels


def make_vocabulary():
    names = ["<s>", "<pad>", "</s>", "<unk>"] + [code_name(i) for i in range(CODES)]
    names += ["<eoss>", "<racm3:break>", "<reserved08706>", "<reserved08799>"]
    names += [f"<reserved{8800 + n:05}>" for n in range(1, 9)]
    names += WORDS + [f"{w}x{h}" for w in (8, 16, 24, 32) for h in (8, 16, 24, 32)]
    return {name: i for i, name in enumerate(names)}


def make_weights(config, seed):
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape, std: torch.randn(*shape, generator=g) * std
    h, i, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    d = h // config["num_attention_heads"]
    kv = config["num_key_value_heads"] * d
    w = {"model.embed_tokens.weight": normal(v, h, std=1.0)}
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        w[p + "input_layernorm.weight"] = 1 + normal(h, std=0.1)
        for name, shape in [("q", (h, h)), ("k", (kv, h)), ("v", (kv, h)), ("o", (h, h))]:
            w[p + f"self_attn.{name}_proj.weight"] = normal(*shape, std=h**-0.5)
        for name in ("q_norm", "k_norm"):
            w[p + f"self_attn.{name}.weight"] = 1 + normal(config["model_parallel_size"], d, std=0.2)
            w[p + f"self_attn.{name}.bias"] = normal(config["model_parallel_size"], d, std=0.2)
        w[p + "post_attention_layernorm.weight"] = 1 + normal(h, std=0.1)
        w[p + "mlp.gate_proj.weight"] = normal(i, h, std=h**-0.5)
        w[p + "mlp.up_proj.weight"] = normal(i, h, std=h**-0.5)
        w[p + "mlp.down_proj.weight"] = normal(h, i, std=i**-0.5)
    w["model.norm.weight"] = 1 + normal(h, std=0.1)
    w["lm_head.weight"] = normal(v, h, std=1.5 * h**-0.5)
    return w


def make_vqgan(seed, decoder):
    g = torch.Generator().manual_seed(seed)
    ch, mult, blocks, z, embed = VQ["ch"], VQ["ch_mult"], VQ["num_res_blocks"], VQ["z_channels"], VQ["embed_dim"]
    w = {}

    def conv(name, o, i, k):
        w[name + ".weight"] = torch.randn(o, i, k, k, generator=g) * (i * k * k) ** -0.5
        w[name + ".bias"] = torch.randn(o, generator=g) * 0.1

    def norm(name, c):
        w[name + ".weight"] = 1 + torch.randn(c, generator=g) * 0.1
        w[name + ".bias"] = torch.randn(c, generator=g) * 0.1

    def resnet(name, i, o):
        norm(name + ".norm1", i)
        conv(name + ".conv1", o, i, 3)
        norm(name + ".norm2", o)
        conv(name + ".conv2", o, o, 3)
        if i != o:
            conv(name + ".nin_shortcut", o, i, 1)

    def middle(name, c):
        resnet(name + ".mid.block_1", c, c)
        norm(name + ".mid.attn_1.norm", c)
        for part in ("q", "k", "v", "proj_out"):
            conv(name + ".mid.attn_1." + part, c, c, 1)
        resnet(name + ".mid.block_2", c, c)

    conv("encoder.conv_in", ch, 3, 3)
    c = ch
    for level, m in enumerate(mult):
        for block in range(blocks):
            resnet(f"encoder.down.{level}.block.{block}", c, ch * m)
            c = ch * m
        if level + 1 < len(mult):
            conv(f"encoder.down.{level}.downsample.conv", c, c, 3)
    middle("encoder", c)
    norm("encoder.norm_out", c)
    conv("encoder.conv_out", z, c, 3)
    conv("quant_conv", embed, z, 1)
    conv("post_quant_conv", z, embed, 1)
    if decoder:
        conv("decoder.conv_in", c, z, 3)
        middle("decoder", c)
        for level in reversed(range(len(mult))):
            for block in range(blocks + 1):
                resnet(f"decoder.up.{level}.block.{block}", c, ch * mult[level])
                c = ch * mult[level]
            if level > 0:
                conv(f"decoder.up.{level}.upsample.conv", c, c, 3)
        norm("decoder.norm_out", c)
        conv("decoder.conv_out", 3, c, 3)
    # Codes where pictures are, so that different pictures get different codes.
    pictures = F.interpolate(torch.rand(8, 3, 4, 4, generator=g), size=16, mode="bilinear") * 2 - 1
    latents = encode(w, pictures).permute(0, 2, 3, 1).reshape(-1, embed)
    w["quantize.embedding.weight"] = latents[torch.randperm(len(latents), generator=g)[:CODES]]
    return {k: v.half().contiguous() for k, v in w.items()}


def encode(w, x):
    """The encoder up to the quantizer: pictures [B, 3, H, W] in [-1, 1] to latents [B, embed, H / 2, W / 2]."""
    conv = lambda x, n, pad=1: F.conv2d(x, w[n + ".weight"], w[n + ".bias"], padding=pad)
    norm = lambda x, n: F.group_norm(x, 32, w[n + ".weight"], w[n + ".bias"], eps=1e-6)

    def resnet(x, n):
        h = conv(F.silu(norm(x, n + ".norm1")), n + ".conv1")
        h = conv(F.silu(norm(h, n + ".norm2")), n + ".conv2")
        return h + (conv(x, n + ".nin_shortcut", 0) if n + ".nin_shortcut.weight" in w else x)

    def attention(x, n):
        b, c, hh, ww = x.shape
        q, k, v = (conv(norm(x, n + ".norm"), f"{n}.{p}", 0).flatten(2) for p in "qkv")  # [B, C, HW]
        y = v @ (q.transpose(1, 2) @ k * c**-0.5).softmax(-1).transpose(1, 2)
        return x + conv(y.view(b, c, hh, ww), n + ".proj_out", 0)

    x = conv(x, "encoder.conv_in")
    for level in range(len(VQ["ch_mult"])):
        for block in range(VQ["num_res_blocks"]):
            x = resnet(x, f"encoder.down.{level}.block.{block}")
        if level + 1 < len(VQ["ch_mult"]):
            n = f"encoder.down.{level}.downsample.conv"
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), w[n + ".weight"], w[n + ".bias"], stride=2)
    x = resnet(attention(resnet(x, "encoder.mid.block_1"), "encoder.mid.attn_1"), "encoder.mid.block_2")
    return conv(conv(F.silu(norm(x, "encoder.norm_out")), "encoder.conv_out"), "quant_conv", 0)


def make_model(folder, seed, vq_inside=False, **changes):
    """Writes a whole model folder. With `vq_inside` the image tokenizer lies in the model's safetensors, without its
    decoder, as Hugging Face's conversion leaves it; otherwise in files of its own."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {**DEFAULTS, **changes}
    vocabulary = make_vocabulary()
    assert len(vocabulary) <= config["vocab_size"], len(vocabulary)
    weights = make_weights(config, seed)
    vq = make_vqgan(seed, decoder=not vq_inside)
    if vq_inside:
        weights.update({"model.vqmodel." + k: v for k, v in vq.items()})
        config["vq_config"] = dict(
            embed_dim=VQ["embed_dim"], num_embeddings=CODES, double_latent=False, latent_channels=VQ["z_channels"],
            resolution=16, in_channels=3, base_channels=VQ["ch"], channel_multiplier=VQ["ch_mult"],
            num_res_blocks=VQ["num_res_blocks"], attn_resolutions=None, dropout=0.0, attn_type="vanilla")
    else:
        save_file(vq, folder / "vqgan.safetensors")
        mult = "".join(f"\n      - {m}" for m in VQ["ch_mult"])
        (folder / "vqgan.yaml").write_text(f"""model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: {VQ["embed_dim"]}
    n_embed: {CODES}
    ddconfig:
      double_z: false
      z_channels: {VQ["z_channels"]}
      resolution: 16
      in_channels: 3
      out_ch: 3
      ch: {VQ["ch"]}
      ch_mult:{mult}
      num_res_blocks: {VQ["num_res_blocks"]}
      attn_resolutions: []
      dropout: 0.0
""")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}}, indent=1) + "\n")


def check(folder):
    """The largest difference of hidden states between this transformer and Hugging Face's Chameleon."""
    from transformers import ChameleonConfig
    from transformers.models.chameleon.modeling_chameleon import ChameleonModel

    ours = Lumina.open(folder, torch.float64)
    c = ours.config
    names = ("vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
             "rms_norm_eps swin_norm model_parallel_size").split()
    config = ChameleonConfig(**{k: c[k] for k in names}, vocabulary_map={"<image>": 3, code_name(0): 4},
                             rope_parameters={"rope_type": "default", "rope_theta": c["rope_theta"]},
                             vq_config=dict(base_channels=32, channel_multiplier=[1], num_res_blocks=1))
    theirs = ChameleonModel(config).double().eval()
    state = {}
    for name, value in ours.weights.items():
        if "q_norm" in name or "k_norm" in name:
            heads = c["num_attention_heads"] if "q_norm" in name else c["num_key_value_heads"]
            value = value.repeat_interleave(heads // value.shape[0], 0)
        state[name.removeprefix("model.")] = value
    missing = theirs.load_state_dict(state, strict=False)
    assert missing.unexpected_keys == ["lm_head.weight"], missing
    assert all(k.startswith("vqmodel") for k in missing.missing_keys), missing
    x = ours.embed(torch.randint(4, 100, (40,), generator=torch.Generator().manual_seed(0)).tolist())[None]
    with torch.no_grad():
        a, b = ours.forward(x), theirs(inputs_embeds=x).last_hidden_state
    return (a - b).abs().max().item()


if __name__ == "__main__":
    if "--check" in sys.argv:
        for name in ("plain", "grouped"):
            print(name, check(GOLDEN / name))
    else:
        make_model(GOLDEN / "plain", seed=1)
        make_model(GOLDEN / "grouped", seed=2, vq_inside=True, num_key_value_heads=2, model_parallel_size=2,
                   swin_norm=True)
