"""Lumina-mGPT in PyTorch as one would write it for speed: fused attention, keys and values in buffers made once, no
gradients where none are wanted. Opens the same folders as the library."""

import json
import sys
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "embedded_model"))
from folder import tensors, unpack  # noqa: E402
from vqgan import VQGAN  # noqa: E402  (the network that the embedded model's image tokenizer was trained with)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        h, i, self.heads, self.kv_heads = (c[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads",
                                                          "num_key_value_heads"))
        self.d, self.eps = h // self.heads, c["rms_norm_eps"]
        kv = self.d * self.kv_heads
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        norm = lambda heads: nn.ParameterDict(dict(weight=torch.empty(1, self.d), bias=torch.empty(1, self.d)))
        self.input_layernorm, self.post_attention_layernorm = (nn.RMSNorm(h, self.eps) for _ in range(2))
        self.self_attn = nn.ModuleDict(dict(q_proj=linear(h, h), k_proj=linear(h, kv), v_proj=linear(h, kv),
                                            o_proj=linear(h, h), q_norm=norm(self.heads), k_norm=norm(self.kv_heads)))
        self.mlp = nn.ModuleDict(dict(gate_proj=linear(h, i), up_proj=linear(h, i), down_proj=linear(i, h)))

    def qk_norm(self, x, p):
        return F.layer_norm(x, (self.d,), None, None, 1e-5) * p["weight"] + p["bias"]

    def forward(self, x, cos, sin, mask=None, cache=None, at=0):
        b, t, _ = x.shape
        a, y = self.self_attn, self.input_layernorm(x)
        q = self.qk_norm(a["q_proj"](y).view(b, t, self.heads, self.d), a["q_norm"])
        k = self.qk_norm(a["k_proj"](y).view(b, t, self.kv_heads, self.d), a["k_norm"])
        v = a["v_proj"](y).view(b, t, self.kv_heads, self.d).transpose(1, 2)
        q, k = rotate(q, cos, sin).transpose(1, 2).to(v.dtype), rotate(k, cos, sin).transpose(1, 2).to(v.dtype)
        if cache is not None:
            cache[0][:, :, at : at + t], cache[1][:, :, at : at + t] = k, v
            k, v = cache[0][:, :, : at + t], cache[1][:, :, : at + t]
        y = attend(q, k, v, mask, causal=t > 1)
        x = x + a["o_proj"](y.transpose(1, 2).reshape(b, t, -1))
        y, m = self.post_attention_layernorm(x), self.mlp
        return x + m["down_proj"](F.silu(m["gate_proj"](y)) * m["up_proj"](y))


def attend(q, k, v, mask, causal):
    if q.shape[1] != k.shape[1]:
        k, v = (z.repeat_interleave(q.shape[1] // k.shape[1], 1) for z in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Lumina(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.positions = config, None
        self.model = nn.ModuleDict(dict(embed_tokens=nn.Embedding(config["vocab_size"], config["hidden_size"]),
                                        layers=nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"])),
                                        norm=nn.RMSNorm(config["hidden_size"], config["rms_norm_eps"])))
        self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)

    @classmethod
    def open(cls, folder, dtype):
        folder = Path(folder)
        config = json.loads((folder / "config.json").read_text())
        files = sorted(folder.glob("model*.safetensors"))
        state = {k: v.to(dtype) for f in files for k, v in unpack(load_file(f)).items() if "vqmodel" not in k}
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict(state, assign=True)
        d = config["hidden_size"] // config["num_attention_heads"]
        inverse = 1.0 / config["rope_theta"] ** (torch.arange(0, d, 2).double() / d)
        angle = torch.outer(torch.arange(8192).float(), inverse.float())
        model.cos, model.sin = angle.cos().to(dtype), angle.sin().to(dtype)
        return model.eval().requires_grad_(False)

    def embed(self, pieces, vectors=None):
        """Input embeddings [1, T, hidden] of token ids; None stands for the next row of `vectors`."""
        x = self.model["embed_tokens"](torch.tensor([[0 if p is None else p for p in pieces]], dtype=torch.long))
        if vectors is not None:
            at = torch.tensor([i for i, p in enumerate(pieces) if p is None], dtype=torch.long)
            x = x.index_copy(1, at, vectors[: len(at)].to(x.dtype)[None])
        return x

    def forward(self, x, positions=None, mask=None, cache=None, at=0):
        """Hidden states behind the final norm. `positions` [B or 1, T], `mask` as fused attention takes it."""
        if positions is None:
            positions = torch.arange(x.shape[1])[None]
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]
        for i, layer in enumerate(self.model["layers"]):
            x = layer(x, cos, sin, mask, None if cache is None else cache[i], at)
        return self.model["norm"](x)

    def new_cache(self, rows, capacity):
        layer = self.model["layers"][0]
        dtype = self.lm_head.weight.dtype
        return [torch.zeros(2, rows, layer.kv_heads, capacity, layer.d, dtype=dtype) for _ in self.model["layers"]]


class Layout:
    """Token ids by role."""

    def __init__(self, folder, unit):
        self.tokenizer, self.unit = Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), unit
        vocabulary = self.tokenizer.get_vocab()
        self.bos, self.separator = vocabulary["<s>"], vocabulary["<reserved08706>"]
        self.start, self.end, self.newline = (vocabulary[n] for n in ("<racm3:break>", "<eoss>", "<reserved08799>"))
        self.size = lambda codes: vocabulary[f"<reserved{8800 + codes // 2:05}>"]
        names = {int("".join(str("ABCDEFGHIJ".index(c)) for c in n[6:-1])): i for n, i in vocabulary.items()
                 if n.startswith("IMGIMG")}
        self.codes = [names[i] for i in range(len(names))]

    def words(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids if text else []

    def prompt(self, text, height, width, vectors=1):
        """`[V]` in the text becomes `vectors` times None."""
        text = f"Generate an image of {width * self.unit // 2}x{height * self.unit // 2} according to the following prompt:\n{text}"
        before, *after = text.split("[V]")
        pieces = [self.bos] + self.words(before.removesuffix(" ") if after else before)
        return pieces + ([None] * vectors + self.words(after[0]) if after else []) + [self.separator]

    def head(self, height, width):
        return [self.start, self.size(height), self.size(width)]

    def block(self, codes, height, width):
        rows = [[self.codes[c] for c in codes[y * width : (y + 1) * width]] + [self.newline] for y in range(height)]
        return self.head(height, width) + sum(rows, []) + [self.end]


@torch.inference_mode()
def draw(model, layout, prompts, height, width, count=1, guidance=4.0, top_k=2000, temperature=1.0, vectors=None,
         drawn=lambda step: None):
    """Codes [prompts x count, height x width], guided; conditional and unconditional rows run in one batch."""
    head = layout.head(height, width)
    heads = [p + head for p in prompts] + [head]
    longest = max(map(len, heads))
    first = [longest - len(p) for p in heads]
    x = torch.cat([torch.cat((model.embed([0] * f), model.embed(p, vectors)), 1) for f, p in zip(first, heads)])
    slots = torch.arange(longest)
    positions = torch.stack([(slots - f).clamp_min(0) for f in first])
    sees = torch.stack([(slots[None] <= slots[:, None]) & ((slots[None] >= f) | (slots[None] == slots[:, None]))
                        for f in first])[:, None]
    prefix = model.new_cache(len(heads), longest)
    hidden = model(x, positions, sees, prefix)[:, -1]

    pictures = len(prompts) * count
    rows = torch.tensor([i // count for i in range(pictures)] + [len(prompts)] * pictures)
    capacity = longest + height * (width + 1)
    cache = model.new_cache(2 * pictures, capacity)
    for full, part in zip(cache, prefix):
        full[:, :, :, :longest] = part[:, rows]
    first = torch.tensor(first)[rows]
    sees = (torch.arange(capacity)[None] >= first[:, None])[:, None, None]
    codes = torch.tensor(layout.codes)
    contiguous = layout.codes == list(range(layout.codes[0], layout.codes[0] + len(layout.codes)))
    weight = model.lm_head.weight
    weight = weight[layout.codes[0] : layout.codes[-1] + 1] if contiguous else weight[codes]
    newline = torch.full((pictures, 1), layout.newline)
    hidden, at, found = hidden[rows], longest, []
    for step in range(height * width):
        logits = F.linear(hidden, weight).float()
        conditional, unconditional = logits.chunk(2)
        logits = guidance * (conditional - unconditional) + unconditional
        if top_k and top_k < logits.shape[-1]:
            logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
        code = torch.multinomial((logits / temperature).softmax(-1), 1)
        found.append(code)
        drawn(step)
        if step + 1 == height * width:
            break
        new = codes[code]
        if (step + 1) % width == 0:
            new = torch.cat((new, newline), 1)
        t = new.shape[1]
        x = model.model["embed_tokens"](new).repeat(2, 1, 1)
        mask = sees[..., : at + t].expand(-1, 1, t, -1)
        if t > 1:
            mask = mask & (torch.arange(at + t)[None] <= torch.arange(at, at + t)[:, None])
        positions = torch.arange(at, at + t)[None] - first[:, None]
        hidden = model(x, positions, mask, cache, at)[:, -1]
        at += t
    return torch.cat(found, 1)


def open_vqgan(folder):
    """Written for reading: only the published files' layout with a configuration of plain numbers and lists."""
    import yaml

    folder = Path(folder)
    params = yaml.safe_load((folder / "vqgan.yaml").read_text())["model"]["params"]
    dd = params["ddconfig"]
    keys = ("ch", "ch_mult", "num_res_blocks", "z_channels")
    config = {k: dd[k] for k in keys} | {k: params[k] for k in ("embed_dim", "n_embed")}
    vqgan = VQGAN(**config, num_groups=dd.get("num_groups", 32))
    state = tensors(folder / "vqgan.safetensors")
    vqgan.set_codebook(state.pop("quantize.embedding.weight"))
    vqgan.load_state_dict(state)
    return vqgan.eval().requires_grad_(False)
