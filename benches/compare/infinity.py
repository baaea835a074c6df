"""PyTorch's side of the comparison for Infinity, by the protocol of ours.rs: written for speed as one would for one's own use.

    python benches/compare/infinity.py sample FOLDER --dtype bf16 --pixels 512 [--once]     guided drawing
    python benches/compare/infinity.py arbooth_step FOLDER --dtype f32 --pixels 512         a step of training by ARBooth
    python benches/compare/infinity.py check FOLDER --dtype bf16 --against FILE             how far it is from what `ours check` printed

Both branches of guidance go through the blocks as one batch; keys and values have their room from the beginning, and those of the
text are computed once; attention is PyTorch's own; in bf16 everything between the text and the logits is bf16, as published code
has it under autocast but for the residual stream and the norms, which are f32 there. Drawing is timed from the end of its first
scale to that of its last. A step of ARBooth is a picture that the untouched model draws, and two updates of cross-attention, MLP and
four vectors: by the bits of a subject's picture, and by what was predicted of the drawn one.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "golden"))
from infinity import (  # noqa: E402
    Infinity, T5, bit_nats, codes_of, enlarge, label_loss, rope, scale_weights, scales_of, teacher_loss, turn,
)

PROMPT = "a photo of a red fox on the beach"
SUBJECT_PROMPT, CLASS_PROMPT = "a photo of [V] fox", "a photo of fox"
EPS = 1e-6
SIZES = {256: "0.06M", 512: "0.25M", 768: "0.60M", 1024: "1M"}
GUIDANCE, TEMPERATURE, TOP_P = 3.0, 0.5, 0.97


class Block:
    """Weights of one block as they are used: vectors that are added up are added up once."""

    def __init__(self, w, name, dtype):
        get = lambda n: w[f"{name}.{n}"]
        zeros = torch.zeros_like(get("sa.q_bias"))
        self.adaptive = get("ada_gss")[0, 0].float()
        self.strength = get("sa.scale_mul_1H11").float().view(-1, 1).clamp(max=math.log(100)).exp()
        of = lambda n: (get(n + ".weight").to(dtype), get(n + ".bias").to(dtype))
        self.qkv = get("sa.mat_qkv.weight").to(dtype), torch.cat([get("sa.q_bias"), zeros, get("sa.v_bias")]).to(dtype)
        self.key_value = get("ca.mat_kv.weight").to(dtype), torch.cat([zeros, get("ca.v_bias")]).to(dtype)
        self.out, self.cross_norm, self.cross_q, self.cross_out = of("sa.proj"), of("ca_norm"), of("ca.mat_q"), of("ca.proj")
        self.up, self.down = of("ffn.fc1"), of("ffn.fc2")


class Fast:
    def __init__(self, folder, dtype):
        weights = load_file(folder / "infinity.safetensors")
        self.dtype, self.plain = dtype, Infinity(weights, torch.float32)
        self.width, self.heads = self.plain.width, self.plain.heads
        self.blocks = [Block(weights, name, dtype) for name in self.plain.blocks]
        self.head = [self.plain.w[f"head.{n}"].to(dtype) for n in ("weight", "bias")]
        config = json.loads((folder / "text_encoder" / "config.json").read_text())
        self.words = Tokenizer.from_file(str(folder / "text_encoder" / "tokenizer.json"))
        self.t5 = T5(config, load_file(folder / "text_encoder" / "model.safetensors"))

    def features(self, prompt):
        return self.t5.forward(torch.tensor(self.words.encode(prompt).ids))

    def split(self, x):
        """[B, T, C] to [B, heads, T, d]."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def turned(self, x, angles):
        cos, sin = angles
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2).to(self.dtype)

    def block(self, x, block, steering, text, angles, cache, at):
        b, t, _ = x.shape
        gamma1, gamma2, scale1, scale2, shift1, shift2 = steering
        norm = lambda x, scale, shift: torch.addcmul(shift, F.layer_norm(x, (self.width,), eps=EPS), scale)
        q, k, v = F.linear(norm(x, scale1, shift1), *block.qkv).chunk(3, -1)
        q, k, v = self.split(q), self.split(k), self.split(v)
        q = self.turned(F.normalize(q.float(), dim=-1, eps=1e-12) * block.strength[:, None], angles)
        k = self.turned(F.normalize(k.float(), dim=-1, eps=1e-12), angles)
        keys, values = cache
        keys[:, :, at : at + t], values[:, :, at : at + t] = k, v
        mixed = F.scaled_dot_product_attention(q, keys[:, :, : at + t], values[:, :, : at + t], scale=1.0)
        x = torch.addcmul(x, F.linear(mixed.transpose(1, 2).flatten(2), *block.out), gamma1)
        q = self.split(F.linear(F.layer_norm(x, (self.width,), *block.cross_norm, EPS), *block.cross_q))
        mixed = F.scaled_dot_product_attention(q, *text)
        x = x + F.linear(mixed.transpose(1, 2).flatten(2), *block.cross_out)
        h = F.gelu(F.linear(norm(x, scale2, shift2), *block.up), approximate="tanh")
        return torch.addcmul(x, F.linear(h, *block.down), gamma2)

    @torch.inference_mode()
    def draw(self, prompt, scales, guidance, choose):
        """As `Infinity.draw` of tools/golden; the times at which each scale was done, and what the decoder gets."""
        features, w = self.features(prompt), self.plain.w
        rows = [features] + ([w["cfg_uncond"][: len(features)]] if guidance != 1 else [])
        # Texts are of one length, so that they need no mask.
        sources, pooled = (torch.stack(z) for z in zip(*map(self.plain.text, rows)))
        adaptive = torch.stack([self.plain.adaptive(p) for p in pooled])
        one = torch.tensor([0.0, 0, 1, 1, 0, 0]).view(1, 6, 1)
        steerings = [(b.adaptive + adaptive + one).to(self.dtype).unsqueeze(2).unbind(1) for b in self.blocks]
        source = sources.to(self.dtype)
        texts = [[self.split(z) for z in F.linear(source, *b.key_value).chunk(2, -1)] for b in self.blocks]
        head = F.linear(F.silu(pooled), w["head_nm.ada_lin.1.weight"], w["head_nm.ada_lin.1.bias"]).view(-1, 2, 1, self.width)
        scale, shift = (head + torch.tensor([1.0, 0]).view(1, 2, 1, 1)).to(self.dtype).unbind(1)
        total = sum(h * w for h, w in scales)
        room = lambda: torch.empty(len(rows), self.heads, total, self.width // self.heads, dtype=self.dtype)
        caches = [(room(), room()) for _ in self.blocks]
        cos, sin = rope(scales, (64, 64), self.width // self.heads)
        at, latent, x, times = 0, torch.zeros(1, 32, *scales[-1]), (pooled + w["pos_start"][0, 0]).unsqueeze(1), []
        for s, (height, width) in enumerate(scales):
            x = (x + w["lvl_embed.weight"][s]).to(self.dtype)
            n = height * width
            angles = cos[at : at + n], sin[at : at + n]
            for block, steering, text, cache in zip(self.blocks, steerings, texts, caches):
                x = self.block(x, block, steering, text, angles, cache, at)
            at += n
            logits = F.linear(torch.addcmul(shift, F.layer_norm(x, (self.width,), eps=EPS), scale), *self.head).float()
            if guidance != 1:
                logits = guidance * logits[:1] + (1 - guidance) * logits[1:]
            bits = choose(s, logits[0]).T.reshape(1, -1, height, width).float()
            latent = latent + enlarge(codes_of(bits), scales[-1])
            if s + 1 < len(scales):
                z = enlarge(latent, scales[s + 1]).flatten(2).transpose(1, 2)
                x = self.plain.linear(z, "word_embed").expand(len(rows), -1, -1)
            times.append(time.perf_counter())
        return times, latent


def sampled(generator):
    def choose(_, logits):
        first, second = (logits / TEMPERATURE).unflatten(-1, (-1, 2)).unbind(-1)
        one = (second - first).sigmoid()
        sure = torch.minimum(one, 1 - one) <= 1 - TOP_P
        one = torch.where(sure, one.round(), one)
        return torch.rand(one.shape, generator=generator) < one

    return choose


def inputs_of(bits, scales):
    """What a model is given of all scales but the first, whose bits [cells, 32] these are: [1, cells, 32] each."""
    latent, inputs = torch.zeros(1, 32, *scales[-1]), []
    for s, (h, w) in enumerate(scales[:-1]):
        latent = latent + enlarge(codes_of(bits[s].T.reshape(1, -1, h, w).float()), scales[-1])
        inputs.append(enlarge(latent, scales[s + 1]).flatten(2).transpose(1, 2))
    return inputs


class Student(Infinity):
    """Learns by ARBooth: all scales in one sequence, attention by PyTorch's own, everything kept for the way back."""

    def __init__(self, model):
        super().__init__(model.plain.w)
        self.model, self.vectors = model, torch.zeros(4, len(self.w["text_norm.weight"])).requires_grad_()
        learned = {k: v.clone().requires_grad_() for k, v in self.w.items() if ".ca." in k and "text_" not in k or ".ffn." in k}
        self.learned, self.w = [v for k, v in learned.items() if "zero" not in k], {**self.w, **learned}
        groups = [{"params": [self.vectors], "weight_decay": 0.0}, {"params": self.learned, "weight_decay": 0.005}]
        self.optimizer = torch.optim.AdamW(groups, lr=6e-3 / 256, betas=(0.9, 0.999), fused=True)

    def split(self, x):
        return x.view(1, -1, self.heads, self.width // self.heads)

    def attend(self, q, k, v, scale, mask=None):
        mixed = F.scaled_dot_product_attention(*(z.transpose(1, 2) for z in (q, k, v)), attn_mask=mask, scale=scale)
        return mixed.transpose(1, 2).flatten(2)

    def block(self, x, name, text, g, angles, mask=None, cache=None, drop=None):
        w = lambda n: self.w[f"{name}.{n}"]
        norm = lambda x: F.layer_norm(x, (self.width,), eps=EPS)
        gamma1, gamma2, scale1, scale2, shift1, shift2 = (w("ada_gss")[0, 0] + g).unbind(0)
        zeros = torch.zeros(self.width)
        bias = torch.cat([w("sa.q_bias"), zeros, w("sa.v_bias")])
        q, k, v = map(self.split, F.linear(torch.addcmul(shift1, norm(x), 1 + scale1), w("sa.mat_qkv.weight"), bias).chunk(3, -1))
        strength = w("sa.scale_mul_1H11").view(self.heads, 1).clamp(max=math.log(100)).exp()
        q, k = turn(F.normalize(q, dim=-1, eps=1e-12) * strength, *angles), turn(F.normalize(k, dim=-1, eps=1e-12), *angles)
        x = torch.addcmul(x, gamma1, F.linear(self.attend(q, k, v, 1.0, mask), w("sa.proj.weight"), w("sa.proj.bias")))
        q = F.linear(F.layer_norm(x, (self.width,), w("ca_norm.weight"), w("ca_norm.bias"), EPS), w("ca.mat_q.weight"), w("ca.mat_q.bias"))
        k, v = F.linear(text, w("ca.mat_kv.weight"), torch.cat([zeros, w("ca.v_bias")])).chunk(2, -1)
        mixed = self.attend(*map(self.split, (q, k, v)), (self.width // self.heads) ** -0.5)
        x = x + F.linear(mixed, w("ca.proj.weight"), w("ca.proj.bias"))
        h = F.gelu(F.linear(torch.addcmul(shift2, norm(x), 1 + scale2), w("ffn.fc1.weight"), w("ffn.fc1.bias")), approximate="tanh")
        return torch.addcmul(x, gamma2, F.linear(h, w("ffn.fc2.weight"), w("ffn.fc2.bias")))

    def features(self, prompt):
        """With the vectors where `[V]` stands, for which the encoder reads a row of its table that no word has."""
        before, *after = prompt.split(" [V] ")
        if not after:
            return self.model.features(prompt)
        ids = lambda text: self.model.words.encode(text).ids
        first = ids(before)[:-1]
        read = self.model.t5.forward(torch.tensor([*first, self.model.words.get_vocab_size(), *ids(after[0])]))
        return torch.cat([read[: len(first)], self.vectors, read[len(first) + 1 :]])

    def update(self, prompt, inputs, scales, loss):
        loss = loss(self.forward(self.features(prompt), inputs, scales, (64, 64))[0])
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.stack([v.grad.norm() for v in (self.vectors, *self.learned) if v.grad is not None]).norm()
        self.optimizer.step()
        return loss.item(), norm.item()

    def learn_bits(self, bits, scales):
        weights = scale_weights(scales, [1.0] * 8 + [0.5])
        return self.update(SUBJECT_PROMPT, inputs_of(bits, scales), scales, lambda logits: label_loss(logits, torch.cat(bits), weights))

    def step(self, bits, scales, generator):
        """The subject's picture, and one that the untouched model draws."""
        choose, drawn, predicted = sampled(generator), [], []

        def watched(s, logits):
            drawn.append(choose(s, logits))
            predicted.append(logits)
            return drawn[-1]

        self.model.draw(CLASS_PROMPT, scales, 1.0, watched)
        self.learn_bits(bits, scales)
        self.update(CLASS_PROMPT, inputs_of(drawn, scales), scales, lambda logits: 0.5 * teacher_loss(logits, torch.cat(predicted), False))


def integers(bits):
    """Rows of bits as numbers, the first bit the largest."""
    return (bits.long() << torch.arange(bits.shape[-1] - 1, -1, -1)).sum(-1).tolist()


def check(model, against):
    """The likeliest bits under guidance, nats of bits that come from a latent, and what three updates for them begin with."""
    scales, found = scales_of(1.0, "0.06M"), []

    def likeliest(_, logits):
        bits = logits.unflatten(-1, (-1, 2)).argmax(-1)
        found.extend(integers(bits))
        return bits

    model.draw(PROMPT, scales, GUIDANCE, likeliest)
    same = sum(a == b for a, b in zip(found, against["greedy"])) / len(found)
    codes, at, labels = torch.tensor(against["labels"]), 0, []
    for h, w in scales:
        labels.append((codes[at : at + h * w, None] >> torch.arange(31, -1, -1)) & 1)
        at += h * w
    nats = []

    def forced(s, logits):
        nats.append(bit_nats(logits, labels[s]).flatten())
        return labels[s]

    model.draw(PROMPT, scales, 1.0, forced)
    found = {"greedy": same, "nats losses": abs(torch.cat(nats).mean().item() - against["nats"])}
    if model.dtype == torch.float32:
        student = Student(model)
        gaps = [[abs(a / b - 1) for a, b in zip(student.learn_bits(labels, scales), ours)] for ours in against["arbooth"]]
        found["arbooth losses"], found["arbooth gradients"] = map(max, zip(*gaps))
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("row", choices=["sample", "arbooth_step", "check"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = Fast(arguments.model, {"bf16": torch.bfloat16, "f32": torch.float32}[arguments.dtype])
    if arguments.row == "check":
        check(model, json.loads(arguments.against.read_text()))
        return
    scales, generator = scales_of(1.0, SIZES[arguments.pixels]), torch.Generator().manual_seed(0)

    def draw():
        times, _ = model.draw(PROMPT, scales, GUIDANCE, sampled(generator))
        return dict(seconds=times[-1] - times[0], work=sum(h * w for h, w in scales[1:]))

    def step():
        began = time.perf_counter()
        student.step(bits, scales, generator)
        return dict(seconds=time.perf_counter() - began, work=1)

    if arguments.row == "arbooth_step":
        student, bits = Student(model), [torch.rand(h * w, 32, generator=generator) < 0.5 for h, w in scales]
    once = step if arguments.row == "arbooth_step" else draw
    if arguments.once:
        print(json.dumps(once()))
        return
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(once()), flush=True)


if __name__ == "__main__":
    main()
