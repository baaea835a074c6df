#!/usr/bin/env python3
"""Makes tests/golden/vqgan.safetensors: what the VQ-GAN of Chameleon computes, in plain PyTorch, in f32 on the CPU.

Run by hand:  python tools/golden/vqgan.py [--check-transformers]
The committed file was made with PyTorch 2.15.0, safetensors 0.8.0 and numpy 2.4.6.

The network below is our own code, written from a description of the architecture. Weights and pictures come from a
formula (`numbers`) that tests/vqgan.rs evaluates too, so no checkpoint is stored.

--check-transformers compares the encoder and the quantiser with `ChameleonVQVAE` of transformers, weights copied by
name (transformers has no decoder). Seen with transformers 5.23.0: all names match, the latents of "lumina", "small" and
of "attention" with 32 groups are equal to the last bit, and so are all codes. (Its number of groups is fixed at 32, so
"attention" itself cannot be compared.)
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "vqgan.safetensors"

# Names as in Config; n pictures of h x w pixels.
CASES = {
    # The published shape, 16 pixels per code, at a quarter of the channels.
    "lumina": dict(ch=32, ch_mult=[1, 1, 2, 2, 4], num_res_blocks=2, attn_resolutions=[], resolution=512, num_groups=32,
                   z_channels=64, embed_dim=64, n_embed=512, n=1, h=64, w=96),
    # Batched, and embed_dim unlike z_channels.
    "small": dict(ch=32, ch_mult=[1, 2, 2], num_res_blocks=2, attn_resolutions=[], resolution=64, num_groups=32,
                  z_channels=16, embed_dim=8, n_embed=256, n=2, h=48, w=32),
    # Attention at two of three levels, fewer groups, a side that is not a power of two.
    "attention": dict(ch=16, ch_mult=[1, 2, 3], num_res_blocks=1, attn_resolutions=[16, 8], resolution=32, num_groups=8,
                      z_channels=12, embed_dim=16, n_embed=128, n=1, h=24, w=40),
}


def numbers(name, count):
    """`count` numbers in [-1, 1), multiples of 2^-23 that depend on the name only."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    i = np.arange(count, dtype=np.uint32)
    h = (i * np.uint32(0x9E3779B1)) ^ np.uint32(seed)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)
    h ^= h >> np.uint32(16)
    return (h >> np.uint32(8)).astype(np.float64) / 2**23 - 1


def weight(name, shape):
    u = numbers(name, math.prod(shape))
    if len(shape) == 4:
        u = u * math.sqrt(3.0 / (shape[1] * shape[2] * shape[3]))
    elif name.endswith("weight") and len(shape) == 1:
        u = 1.0 + 0.25 * u
    elif name.endswith("bias"):
        u = 0.125 * u
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


def pictures(case, n, h, w):
    return torch.from_numpy(numbers("pictures of " + case, n * 3 * h * w).astype(np.float32).reshape(n, 3, h, w))


class ResBlock(nn.Module):
    def __init__(self, cin, cout, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, cin, eps=1e-6)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, cout, eps=1e-6)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.nin_shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        y = self.norm1(x)
        y = self.conv1(y * torch.sigmoid(y))
        y = self.norm2(y)
        y = self.conv2(y * torch.sigmoid(y))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + y


class Attention(nn.Module):
    def __init__(self, c, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, c, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (f(y).flatten(2) for f in (self.q, self.k, self.v))
        p = torch.softmax(q.transpose(1, 2) @ k * c**-0.5, dim=-1)
        return x + self.proj_out((v @ p.transpose(1, 2)).view(b, c, h, w))


class Level(nn.Module):
    def __init__(self, blocks, cin, cout, groups, attention, sample):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(cin if i == 0 else cout, cout, groups) for i in range(blocks))
        self.attn = nn.ModuleList(Attention(cout, groups) for _ in range(blocks if attention else 0))
        if sample:
            conv = nn.Conv2d(cout, cout, 3, stride=2) if sample == "downsample" else nn.Conv2d(cout, cout, 3, padding=1)
            setattr(self, sample, nn.ModuleDict({"conv": conv}))

    def forward(self, x):
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return x


class Half(nn.Module):
    """What encoder and decoder share: the middle and the end."""

    def ends(self, channels, out, groups):
        last = self.middle_channels
        self.mid = nn.ModuleDict({"block_1": ResBlock(last, last, groups), "attn_1": Attention(last, groups),
                                  "block_2": ResBlock(last, last, groups)})
        self.norm_out = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, out, 3, padding=1)

    def middle(self, x):
        return self.mid["block_2"](self.mid["attn_1"](self.mid["block_1"](x)))

    def end(self, x):
        x = self.norm_out(x)
        return self.conv_out(x * torch.sigmoid(x))


class Encoder(Half):
    def __init__(self, c):
        super().__init__()
        ch, groups = [c["ch"] * m for m in c["ch_mult"]], c["num_groups"]
        self.middle_channels = ch[-1]
        self.conv_in = nn.Conv2d(3, c["ch"], 3, padding=1)
        self.down = nn.ModuleList(
            Level(c["num_res_blocks"], ch[i - 1] if i else c["ch"], ch[i], groups,
                  c["resolution"] // 2**i in c["attn_resolutions"], "downsample" if i < len(ch) - 1 else None)
            for i in range(len(ch)))
        self.ends(ch[-1], c["z_channels"], groups)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
            if hasattr(level, "downsample"):
                x = level.downsample["conv"](F.pad(x, (0, 1, 0, 1)))
        return self.end(self.middle(x))


class Decoder(Half):
    def __init__(self, c):
        super().__init__()
        ch, groups = [c["ch"] * m for m in c["ch_mult"]], c["num_groups"]
        self.middle_channels = ch[-1]
        self.conv_in = nn.Conv2d(c["z_channels"], ch[-1], 3, padding=1)
        self.up = nn.ModuleList(
            Level(c["num_res_blocks"] + 1, ch[min(i + 1, len(ch) - 1)], ch[i], groups,
                  c["resolution"] // 2**i in c["attn_resolutions"], "upsample" if i else None)
            for i in range(len(ch)))
        self.ends(ch[0], 3, groups)

    def forward(self, z):
        x = self.middle(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
            if hasattr(level, "upsample"):
                x = level.upsample["conv"](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.end(x)


class VQGAN(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(c["n_embed"], c["embed_dim"])})
        self.quant_conv = nn.Conv2d(c["z_channels"], c["embed_dim"], 1)
        self.post_quant_conv = nn.Conv2d(c["embed_dim"], c["z_channels"], 1)
        self.load_state_dict({k: weight(k, tuple(v.shape)) for k, v in self.state_dict().items()})

    def distances(self, z):
        z, e = z.permute(0, 2, 3, 1).flatten(0, 2), self.quantize["embedding"].weight
        return (z**2).sum(1, keepdim=True) + (e**2).sum(1) - 2 * z @ e.t()

    def decode(self, codes):
        return self.decoder(self.post_quant_conv(self.quantize["embedding"](codes).permute(0, 3, 1, 2)))


def golden():
    out = {}
    for name, c in CASES.items():
        model = VQGAN(c)
        x = pictures(name, c["n"], c["h"], c["w"])
        z = model.quant_conv(model.encoder(x))
        d = model.distances(z)
        codes = d.argmin(1).view(c["n"], z.shape[2], z.shape[3])
        two = d.topk(2, largest=False).values
        decoded = model.decode(codes)
        print(f"{name}: {codes.numel()} codes, {codes.unique().numel()} different, nearest tie "
              f"{(two[:, 1] - two[:, 0]).min():.2e} of {two.mean():.2f}, latents {z.std():.3f}, "
              f"decoded {decoded.min():.3f} to {decoded.max():.3f}")
        out[name + ".latents"] = z
        out[name + ".codes"] = codes.to(torch.int64)
        out[name + ".gaps"] = (two[:, 1] - two[:, 0]).view_as(codes)
        out[name + ".decoded"] = decoded
    save_file({k: v.contiguous() for k, v in out.items()}, OUT)
    print(OUT.stat().st_size, "bytes")


def check_transformers():
    from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
    from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE

    cases = {k: v for k, v in CASES.items() if v["num_groups"] == 32}
    cases["attention, 32 groups"] = dict(CASES["attention"], ch=32, num_groups=32)
    for name, c in cases.items():
        ours = VQGAN(c)
        theirs = ChameleonVQVAE(ChameleonVQVAEConfig(
            embed_dim=c["embed_dim"], num_embeddings=c["n_embed"], latent_channels=c["z_channels"],
            resolution=c["resolution"], base_channels=c["ch"], channel_multiplier=c["ch_mult"],
            num_res_blocks=c["num_res_blocks"], attn_resolutions=c["attn_resolutions"] or None)).eval()
        state = {k: v for k, v in ours.state_dict().items() if not k.startswith("decoder.")}
        print(name, theirs.load_state_dict(state))
        x = pictures(name, c["n"], c["h"], c["w"])
        z = ours.quant_conv(ours.encoder(x))
        encoded = theirs.quant_conv(theirs.encoder(x))
        codes = theirs.quantize(encoded)[2].flatten()
        same = (ours.distances(z).argmin(1) == codes).all().item()
        print(f"{name}: latents differ by {(z - encoded).abs().max():.1e}, {codes.numel()} codes equal: {same}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check-transformers", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        if arguments.check_transformers:
            check_transformers()
        else:
            print("PyTorch", torch.__version__)
            golden()
