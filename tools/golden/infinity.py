"""Infinity in plain PyTorch: text encoder, transformer, image tokenizer, quantiser, sampling, losses.

Written from a description of the architecture (arXiv 2412.04431, 2504.02612), as the reference that the library is measured
against; slow and short on purpose. `infinity_goldens.py` makes the tests' files with it, `infinity_check.py` compares it with
the published code. Names of weights are those of the published files.
"""

import math

import torch
import torch.nn.functional as F

EPS = 1e-6

# Height / width of the scales by ratio; the reciprocal ratios have them turned around.
TABLE = {
    1.0: "1x1 2x2 4x4 6x6 8x8 12x12 16x16 20x20 24x24 32x32 40x40 48x48 64x64",
    1.25: "1x1 2x2 3x3 5x4 10x8 15x12 20x16 25x20 30x24 35x28 45x36 55x44 70x56",
    1.333: "1x1 2x2 4x3 8x6 12x9 16x12 20x15 24x18 28x21 36x27 48x36 60x45 72x54",
    1.5: "1x1 2x2 3x2 6x4 9x6 15x10 21x14 27x18 33x22 39x26 48x32 63x42 78x52",
    1.75: "1x1 2x2 3x3 7x4 11x6 14x8 21x12 28x16 35x20 42x24 56x32 70x40 84x48",
    2.0: "1x1 2x2 4x2 6x3 10x5 16x8 22x11 30x15 38x19 46x23 60x30 74x37 90x45",
    2.5: "1x1 2x2 5x2 10x4 15x6 20x8 25x10 30x12 40x16 50x20 65x26 80x32 100x40",
    3.0: "1x1 2x2 6x2 9x3 15x5 21x7 27x9 36x12 45x15 54x18 72x24 90x30 111x37",
}
PREFIX = {"0.06M": 7, "0.25M": 10, "0.60M": 12, "1M": 13}


def scales_of(ratio, size="1M"):
    """The scales (h, w) of a ratio of the table, or of the reciprocal of one."""
    turned = ratio < 1
    key = min(TABLE, key=lambda r: abs((1 / r if turned else r) - ratio))
    scales = [tuple(map(int, s.split("x"))) for s in TABLE[key].split()]
    return [(w, h) if turned else (h, w) for h, w in scales][:PREFIX[size]]


# The quantiser

def bits_of(z):
    """[.., d, h, w] to 0 / 1."""
    return (z > 0).to(z.dtype)


def codes_of(bits):
    """[B, d, h, w] of 0 / 1 to codes of length 1."""
    return (2 * bits - 1) / math.sqrt(bits.shape[1])


def enlarge(z, size):
    """Bilinear, half-pixel centres, no antialias; also where it makes things smaller."""
    return F.interpolate(z, size=size, mode="bilinear", align_corners=False)


def shrink(z, size):
    return F.adaptive_avg_pool2d(z, size)


def quantise(latent, scales, flips=None, patchify=False, area=False):
    """Labels and inputs of every scale of a latent [B, d, H, W]. `flips` has for each scale which bits are flipped in what the
    next scales see (self-correction). With `patchify` latents have twice the scales' resolution. With `area`
    inputs are averaged (the published teacher) instead of sampled.
    Returns (labels, inputs of the scales from the second on), lists of [B, cells, d]; and what the decoder gets."""
    grids = [(2 * h, 2 * w) for h, w in scales] if patchify else scales
    fold = (lambda z: F.pixel_unshuffle(z, 2)) if patchify else (lambda z: z)
    rows = lambda z: fold(z).flatten(2).transpose(1, 2)
    total, labels, inputs = torch.zeros_like(latent), [], []
    for s, size in enumerate(grids):
        rest = latent - total
        if s + 1 < len(grids):
            rest = shrink(rest, size)
        bits = bits_of(rest)
        labels.append(rows(bits))
        if flips is not None:
            bits = (bits - flips[s]).abs()
        total = total + enlarge(codes_of(bits), grids[-1])
        if s + 1 < len(grids):
            inputs.append(rows((shrink if area else enlarge)(total, grids[s + 1])))
    return labels, inputs, total


# The image tokenizer

class Vae:
    """Weights `encoder.*` and `decoder.*` with or without the inner `.conv` and `.norm`."""

    def __init__(self, weights, groups=None, dtype=torch.float32):
        self.w = {}
        for k, v in weights.items():
            parts = k.split(".")
            if parts[-2] in ("conv", "norm") and parts[-3] not in ("downsample", "upsample"):
                parts.pop(-2)
            self.w[".".join(parts)] = v.to(dtype)
        self.groups = groups

    def conv(self, x, name, stride=1, padding=1):
        return F.conv2d(x, self.w[name + ".weight"], self.w[name + ".bias"], stride, padding)

    def swish(self, x, name):
        channels = x.shape[1]
        groups = self.groups or (32 if channels % 32 == 0 else 24)
        return F.silu(F.group_norm(x, groups, self.w[name + ".weight"], self.w[name + ".bias"], EPS))

    def block(self, x, name):
        h = self.conv(self.swish(x, name + ".norm1"), name + ".conv1")
        h = self.conv(self.swish(h, name + ".norm2"), name + ".conv2")
        if name + ".nin_shortcut.weight" in self.w:
            x = self.conv(x, name + ".nin_shortcut", padding=0)
        return x + h

    def level(self, x, name):
        i = 0
        while f"{name}.block.{i}.norm1.weight" in self.w:
            x = self.block(x, f"{name}.block.{i}")
            i += 1
        return x

    def levels(self):
        return sum(f"encoder.down.{i}.block.0.norm1.weight" in self.w for i in range(20))

    def encode(self, x):
        x = self.conv(x, "encoder.conv_in")
        for i in range(self.levels()):
            x = self.level(x, f"encoder.down.{i}")
            if i + 1 < self.levels():
                x = self.conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{i}.downsample.conv", 2, 0)
        x = self.block(self.block(x, "encoder.mid.block_1"), "encoder.mid.block_2")
        return self.conv(self.swish(x, "encoder.norm_out"), "encoder.conv_out")

    def decode(self, z):
        x = self.conv(z, "decoder.conv_in")
        x = self.block(self.block(x, "decoder.mid.block_1"), "decoder.mid.block_2")
        for i in reversed(range(self.levels())):
            x = self.level(x, f"decoder.up.{i}")
            if i > 0:
                x = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"), f"decoder.up.{i}.upsample.conv")
        return self.conv(self.swish(x, "decoder.norm_out"), "decoder.conv_out")


# The text encoder

class T5:
    """The encoder of a T5 with gated GELU. Config keys as in config.json."""

    def __init__(self, config, weights, dtype=torch.float32):
        self.c, self.w = config, {k: v.to(dtype) for k, v in weights.items()}

    def norm(self, x, name):
        return x * (x.pow(2).mean(-1, keepdim=True) + self.c["layer_norm_epsilon"]).rsqrt() * self.w[name + ".weight"]

    def bias(self, n):
        """[heads, n, n] by the distance of key and query."""
        buckets, most = self.c["relative_attention_num_buckets"], self.c["relative_attention_max_distance"]
        half, exact = buckets // 2, buckets // 4
        distance = torch.arange(n)[None] - torch.arange(n)[:, None]  # key - query
        far = distance.abs()
        log = exact + (torch.log(far.float().clamp(min=1) / exact) / math.log(most / exact) * (half - exact)).long()
        bucket = torch.where(far < exact, far, log.clamp(max=half - 1)) + half * (distance > 0)
        table = self.w["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        return table[bucket].permute(2, 0, 1)

    def forward(self, ids):
        """[n, d_model] of n token ids, which end with </s>."""
        x = self.w["shared.weight"][ids]
        heads, n = self.c["num_heads"], len(ids)
        bias = self.bias(n)
        for i in range(self.c["num_layers"]):
            p = f"encoder.block.{i}.layer.0."
            h = self.norm(x, p + "layer_norm")
            q, k, v = ((h @ self.w[f"{p}SelfAttention.{s}.weight"].T).view(n, heads, -1).transpose(0, 1) for s in "qkv")
            mixed = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v
            x = x + mixed.transpose(0, 1).reshape(n, -1) @ self.w[p + "SelfAttention.o.weight"].T
            p = f"encoder.block.{i}.layer.1."
            h = self.norm(x, p + "layer_norm")
            gate, up = (h @ self.w[f"{p}DenseReluDense.{s}.weight"].T for s in ("wi_0", "wi_1"))
            x = x + (F.gelu(gate, approximate="tanh") * up) @ self.w[p + "DenseReluDense.wo.weight"].T
        return self.norm(x, "encoder.final_layer_norm")


# The transformer

def rope(scales, full, head_dim, dtype=torch.float32):
    """Cosine and sine, [cells, head_dim / 2]; `full` is the last scale of the largest size of the same ratio."""
    quarter = head_dim // 4
    frequency = 1.0 / (10000.0 ** (torch.arange(0, 2 * quarter, 2).float() / (2 * quarter)))
    angles = []
    for h, w in scales:
        row = (torch.arange(h).float() * (full[0] / h)).round()
        column = (torch.arange(w).float() * (full[1] / w)).round()
        row = torch.outer(row, frequency)[:, None].expand(h, w, quarter)
        column = torch.outer(column, frequency)[None].expand(h, w, quarter)
        angles.append(torch.cat([row, column], -1).reshape(h * w, -1))
    angles = torch.cat(angles)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def turn(x, cos, sin):
    """x [B, T, heads, d], pairs of neighbouring channels."""
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


class Infinity:
    def __init__(self, weights, dtype=torch.float32, each_chunk=False):
        """`each_chunk`: the level embedding is added before each chunk of blocks, as ARBooth's code does."""
        self.w = {k: v.to(dtype) for k, v in weights.items()}
        self.dtype, self.each_chunk = dtype, each_chunk
        self.width = self.w["pos_start"].shape[-1]
        names = [k.rsplit(".", 1)[0] for k in weights if k.endswith(".ada_gss")]
        self.blocks = sorted(names, key=lambda n: [int(p) for p in n.split(".") if p.isdigit()])
        self.heads = self.w[self.blocks[0] + ".sa.scale_mul_1H11"].numel()

    def linear(self, x, name, bias=True):
        return F.linear(x, self.w[name + ".weight"], self.w[name + ".bias"] if bias else None)

    def text(self, features):
        """Of one text's features [n, text width]: what cross-attention reads [n, C], and the pooled vector [C]."""
        t = features * (features.pow(2).mean(-1, keepdim=True) + EPS).rsqrt() * self.w["text_norm.weight"]
        query = self.w["text_proj_for_sos.ca.mat_q"][0]  # [heads, d]
        k, v = self.key_value(t, "text_proj_for_sos.ca", query.shape[0])
        mixed = attend(query[None, None], k[None], v[None], query.shape[1] ** -0.5)[0, 0]
        pooled = self.linear(mixed.flatten(), "text_proj_for_sos.ca.proj")
        h = F.gelu(self.linear(t, "text_proj_for_ca.0"), approximate="tanh")
        return self.linear(h, "text_proj_for_ca.2"), pooled

    def key_value(self, t, name, heads):
        k, v = F.linear(t, self.w[name + ".mat_kv.weight"]).chunk(2, -1)
        v = v + self.w[name + ".v_bias"]
        return (z.view(*z.shape[:-1], heads, -1) for z in (k, v))

    def block(self, x, name, text, g, angles, mask=None, cache=None, drop=(1.0, 1.0)):
        """x [1, T, C]; text [n, C]; g [6, C]. `drop` has the factors of the two residuals that drop-path changes."""
        w = lambda n: self.w[f"{name}.{n}"]
        norm = lambda x: F.layer_norm(x, (self.width,), eps=EPS)
        gamma1, gamma2, scale1, scale2, shift1, shift2 = (w("ada_gss")[0, 0] + g).unbind(0)
        h = norm(x) * (1 + scale1) + shift1
        q, k, v = F.linear(h, w("sa.mat_qkv.weight")).chunk(3, -1)
        q, v = q + w("sa.q_bias"), v + w("sa.v_bias")
        q, k, v = (z.view(1, x.shape[1], self.heads, -1) for z in (q, k, v))
        strength = w("sa.scale_mul_1H11").view(self.heads, 1).clamp(max=math.log(100)).exp()
        q = turn(F.normalize(q, dim=-1, eps=1e-12) * strength, *angles)
        k = turn(F.normalize(k, dim=-1, eps=1e-12), *angles)
        if cache is not None:
            if name in cache:
                k, v = torch.cat([cache[name][0], k], 1), torch.cat([cache[name][1], v], 1)
            cache[name] = k, v
        mixed = attend(q, k, v, 1.0, mask).flatten(-2)
        x = x + drop[0] * gamma1 * F.linear(mixed, w("sa.proj.weight"), w("sa.proj.bias"))
        h = F.layer_norm(x, (self.width,), w("ca_norm.weight"), w("ca_norm.bias"), EPS)
        q = F.linear(h, w("ca.mat_q.weight"), w("ca.mat_q.bias")).view(1, x.shape[1], self.heads, -1)
        k, v = self.key_value(text, name + ".ca", self.heads)
        mixed = attend(q, k[None], v[None], q.shape[-1] ** -0.5).flatten(-2)
        x = x + F.linear(mixed, w("ca.proj.weight"), w("ca.proj.bias"))
        h = norm(x) * (1 + scale2) + shift2
        h = F.gelu(F.linear(h, w("ffn.fc1.weight"), w("ffn.fc1.bias")), approximate="tanh")
        return x + drop[1] * gamma2 * F.linear(h, w("ffn.fc2.weight"), w("ffn.fc2.bias"))

    def adaptive(self, pooled):
        return self.linear(F.silu(pooled), "shared_ada_lin.1").view(6, self.width)

    def logits(self, x, pooled):
        scale, shift = self.linear(F.silu(pooled), "head_nm.ada_lin.1").view(2, self.width)
        return self.linear(F.layer_norm(x, (self.width,), eps=EPS) * (1 + scale) + shift, "head")

    def chunk_starts(self, name):
        first = name.endswith("module.0") if self.each_chunk else name == self.blocks[0]
        return first

    def embed(self, pooled, inputs):
        """The sequence before its level embeddings, [1, T, C]."""
        start = (pooled + self.w["pos_start"][0, 0]).view(1, 1, -1)
        return torch.cat([start] + [self.linear(z, "word_embed") for z in inputs], 1)

    def forward(self, features, inputs, scales, full, drops=None):
        """Logits [1, T, 2 bits] of all scales at once, each seeing those before it."""
        text, pooled = self.text(features)
        return self.run(self.embed(pooled, inputs), text, pooled, scales, full, drops)

    def run(self, x, text, pooled, scales, full, drops=None):
        g = self.adaptive(pooled)
        cells = [h * w for h, w in scales]
        level = torch.cat([torch.full((n,), s) for s, n in enumerate(cells)])
        mask = torch.where(level[:, None] >= level[None], 0.0, float("-inf")).to(self.dtype)
        angles = rope(scales, full, self.width // self.heads, self.dtype)
        for i, name in enumerate(self.blocks):
            if self.chunk_starts(name):
                x = x + self.w["lvl_embed.weight"][level]
            x = self.block(x, name, text, g, angles, mask, drop=drops[i] if drops else (1.0, 1.0))
        return self.logits(x, pooled)

    def draw(self, features, scales, full, guidance, choose, unguided=None, patchify=False, area=False, apart=False):
        """Scale after scale with kept keys and values. `choose(s, logits [T, 2 bits]) -> bits [T, bits]` where logits are guided.
        `area`: inputs are shrunk by averaging, as ARBooth's code does at inference. `apart`: each scale sees itself alone, at the
        first rows of the rotary table, as ARBooth's teacher does.
        Returns the logits of each scale and what the decoder gets."""
        texts = [self.text(features)]
        if guidance != 1:
            texts.append(self.text(unguided if unguided is not None else self.w["cfg_uncond"][:len(features)]))
        caches = [{} for _ in texts]
        cos, sin = rope(scales, full, self.width // self.heads, self.dtype)
        grids = [(2 * h, 2 * w) for h, w in scales] if patchify else scales
        at, total, inputs, found = 0, 0, None, []
        for s, (h, w) in enumerate(scales):
            first = 0 if apart else at
            angles = cos[first:first + h * w], sin[first:first + h * w]
            at += h * w
            results = []
            for (text, pooled), cache in zip(texts, caches):
                g = self.adaptive(pooled)
                x = (pooled + self.w["pos_start"][0, 0]).view(1, 1, -1) if s == 0 else self.linear(inputs, "word_embed")
                for name in self.blocks:
                    if self.chunk_starts(name):
                        x = x + self.w["lvl_embed.weight"][s]
                    x = self.block(x, name, text, g, angles, cache=None if apart else cache)
                results.append(self.logits(x, pooled)[0])
            logits = results[0]
            if guidance != 1:
                logits = guidance * results[0] + (1 - guidance) * results[1]
            found.append(logits)
            bits = choose(s, logits).to(self.dtype).T.reshape(1, -1, h, w)
            if patchify:
                bits = F.pixel_shuffle(bits, 2)
            total = total + enlarge(codes_of(bits), grids[-1])
            if s + 1 < len(scales):
                z = (shrink if area else enlarge)(total, grids[s + 1])
                inputs = (F.pixel_unshuffle(z, 2) if patchify else z).flatten(2).transpose(1, 2)
        return found, total


def attend(q, k, v, scale, mask=None):
    """[B, T, heads, d] to [B, T, heads, d]."""
    scores = torch.einsum("bthd,bshd->bhts", q, k) * scale
    if mask is not None:
        scores = scores + mask
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v)


# Losses

def bit_nats(logits, labels):
    """Cross entropy of each bit, [.., bits], for logits [.., 2 bits]."""
    pairs = logits.unflatten(-1, (-1, 2)).log_softmax(-1)
    return -pairs.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)


def scale_weights(scales, weights):
    """One weight a token; the last one given stands for the rest."""
    return torch.cat([torch.full((h * w,), weights[min(s, len(weights) - 1)]) for s, (h, w) in enumerate(scales)])


def label_loss(logits, labels, token_weights):
    """Mean over bits, weighted sum over tokens divided by their number."""
    return (bit_nats(logits, labels).mean(-1) * token_weights).sum() / logits.shape[-2]


def teacher_loss(student, teacher, joint):
    """KL(teacher || student): of each bit, their mean (ours); or of a softmax over all outputs (the published code)."""
    view = (lambda z: z) if joint else (lambda z: z.unflatten(-1, (-1, 2)))
    t, s = view(teacher).log_softmax(-1), view(student).log_softmax(-1)
    kl = (t.exp() * (t - s)).sum(-1)
    return (kl if joint else kl.mean(-1)).sum() / student.shape[-2]
