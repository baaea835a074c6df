#!/usr/bin/env python3
"""Makes tests/golden/training.json and tests/golden/training.safetensors: a few training steps of every kind on the
tiny models, by PyTorch's autograd, `torch.optim.AdamW` and `torch.nn.utils.clip_grad_norm_`, all in f64.

    python tools/golden/lumina.py      (once, makes the models)
    python tools/golden/training.py

Each case says which options it has, with which sequences each step is fed (so that nothing random has to agree), and
what came out: the losses and gradient norms before each update, and after the last step how far every value has moved
and the optimizer's mean of its gradient. With --f32 it writes nothing and prints how far PyTorch's own f32 is from that. The committed files were made with torch 2.15.0, seed 7. Dropout is off.
"""

import json
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from lumina import CODES, GOLDEN, Lumina, code_name

QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]


def includes(trainable, name):
    return {"qkv": any(q in name for q in QKV), "attention": any(q in name for q in QKV) or "o_proj" in name,
            "mlp": "mlp." in name, "all": True}[trainable]


def philox(counter, key):
    """Philox4x32-10, for the first factors of low-rank changes."""
    for r in range(10):
        if r:
            key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [b >> 32 ^ counter[1] ^ key[0], b & 0xFFFFFFFF, a >> 32 ^ counter[3] ^ key[1], a & 0xFFFFFFFF]
    return counter


def uniform(n, seed, step):
    bits = [philox([i, step, 2, 1], [seed & 0xFFFFFFFF, seed >> 32])[0] for i in range(n)]
    return (np.array([b >> 8 for b in bits]) + 0.5) / 2**24


class Case:
    dtype = torch.float64

    def __init__(self, name, model, stage, options, vectors, prior=False, masked=False):
        self.masked = masked
        self.name, self.stage, self.vectors = name, stage, vectors
        self.options = dict(dropout=0.0, weight_decay=0.0, clip_norm=0.0, z_loss=0.0, accumulation=1, warmup_steps=0,
                            embedding_learning_rate=0.01, layer_learning_rate=1e-3, trainable="qkv", lora_rank=4,
                            layer_stride=1, layers=[], train_embedding_in_layer_stage=False, prior_weight=0.0,
                            batch_size=4, seed=1234567890123, embedding_vectors=1)
        self.options.update(options)
        self.model_name, self.prior = model, prior
        self.model = Lumina.open(GOLDEN / model, self.dtype)

    def batch(self, g):
        """Three sequences of different lengths and one without a prompt, and perhaps two of the plain class."""
        number = lambda n: torch.randint(n, (), generator=g).item()
        codes = lambda h, w: torch.randint(CODES, (h, w), generator=g).tolist()
        n = self.options["embedding_vectors"]
        learned = {"[V]": range(n)} | {f"S{i}": [n + i] for i in range(len(self.vectors) - n)}
        m = self.model
        subject = []
        for text in ("a photo of a [V] dog", "a rendition of the [V] dog in the snow", "a dark photo of my [V] dog"):
            if len(learned) > 1 and len(subject) < 2:
                text += f" S{number(len(learned) - 1)}"
            h, w = (4, 4) if len(subject) < 2 else (4, 6)
            subject.append(m.sequence(m.prompt(text, 4 * w // 2, 4 * h // 2, learned), codes(h, w)))
        subject.append(m.sequence(None, codes(4, 4)))
        prior = [m.sequence(m.prompt("a photo of a dog", 8, 8), codes(4, 4)) for _ in range(2)] if self.prior else []
        if self.masked:
            # Of a subject that was cut out only some codes are learned, and nothing else.
            subject = [(*s, self.shown(g, *s)) for s in subject]
        return subject, prior

    def shown(self, g, pieces, start):
        """Of each label 1 if it is a code that shows the subject, else 0."""
        codes = {self.model.vocabulary[code_name(c)] for c in range(CODES)}
        return [int(p in codes and torch.rand((), generator=g).item() < 0.6) for p in pieces[start:]]

    def parameters(self):
        """Name -> tensor that learns, in the order that does not matter."""
        o, p = self.options, {}
        if self.stage == "embedding" or o["train_embedding_in_layer_stage"]:
            p["vectors"] = torch.tensor(self.vectors, dtype=self.dtype)
        if self.stage == "layers":
            count = self.model.config["num_hidden_layers"]
            chosen = [i for i in range(count) if not o["layers"] or i in o["layers"]][:: o["layer_stride"]]
            for i in chosen:
                for name, w in self.model.weights.items():
                    if not name.startswith(f"model.layers.{i}."):
                        continue
                    if o["trainable"] != "lora":
                        if includes(o["trainable"], name):
                            p[name] = w.clone()
                    elif includes("qkv", name):
                        number = 3 * i + [q in name for q in QKV].index(True)
                        rank, (out, inner) = o["lora_rank"], w.shape
                        down = (2 * uniform(rank * inner, o["seed"], 1 + number) - 1) * inner**-0.5
                        p[name + ".down"] = torch.tensor(down, dtype=self.dtype).view(rank, inner)
                        p[name + ".up"] = torch.zeros(out, rank, dtype=self.dtype)
        return {k: v.requires_grad_() for k, v in p.items()}

    def loss(self, p, sequences, weight):
        """Mean over the labelled pieces of all sequences, z-loss included, times the weight."""
        if not sequences:
            return 0.0
        vectors = p["vectors"] if "vectors" in p else torch.tensor(self.vectors, dtype=self.dtype)
        w = {}
        for name, value in self.model.weights.items():
            if name + ".up" in p:
                value = value + p[name + ".up"] @ p[name + ".down"]
            w[name] = p.get(name, value)
        total, count = 0.0, 0
        for pieces, start, *shown in sequences:
            counted = torch.tensor(shown[0] if shown else [1] * (len(pieces) - start), dtype=self.dtype)
            hidden = self.model.forward(self.model.embed(pieces, vectors)[None], weights=w)[0]
            logits = self.model.logits(hidden[start - 1 : -1])
            nats = F.cross_entropy(logits, torch.tensor(pieces[start:]), reduction="none")
            total = total + (counted * (nats + self.options["z_loss"] * logits.logsumexp(-1).square())).sum()
            count += counted.sum()
        return weight * total / count

    def run(self, steps, g):
        o = self.options
        p = self.parameters()
        start = {k: v.detach().clone() for k, v in p.items()}
        groups = [dict(params=[v], base=o["embedding_learning_rate"] if k == "vectors" else o["layer_learning_rate"],
                       weight_decay=0.0 if k == "vectors" else o["weight_decay"]) for k, v in p.items()]
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
        batches, losses, norms = [], [], []
        for step in range(steps):
            subject, prior = self.batch(g)
            batches.append({"subject": subject, "prior": prior})
            for group in optimizer.param_groups:
                rise = min(1, (step + 1) / o["warmup_steps"]) if o["warmup_steps"] else 1
                fall = min(1, (o["layer_steps"] - step) / o["cooldown_steps"]) if "cooldown_steps" in o else 1
                group["lr"] = group["base"] * rise * fall
            optimizer.zero_grad()
            loss = self.loss(p, subject, 1.0) + self.loss(p, prior, o["prior_weight"])
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(p.values(), o["clip_norm"] or float("inf"))
            optimizer.step()
            losses.append(loss.item())
            norms.append(norm.item())
        tensors = {}
        for k, v in p.items():
            tensors[f"{self.name}/change.{k}"] = (v.detach() - start[k]).float()
            tensors[f"{self.name}/mean.{k}"] = optimizer.state[v]["exp_avg"].float()
        return dict(name=self.name, model=self.model_name, stage=self.stage, options=o, vectors=self.vectors,
                    batches=batches, losses=losses, norms=norms), tensors


def make():
    g = torch.Generator().manual_seed(7)
    rows = lambda n: torch.randn(n, 32, generator=g).tolist()
    layers = lambda name, model, prior=False, n=1, **o: Case(name, model, "layers", o, rows(n), prior)
    cases = [
        Case("embedding", "plain", "embedding", dict(clip_norm=4.0, z_loss=1e-5), rows(1)),
        Case("embedding clipped", "plain", "embedding", dict(clip_norm=0.01, z_loss=1e-3), rows(1)),
        Case("embedding of several vectors and pictures", "grouped", "embedding",
             dict(warmup_steps=3, embedding_vectors=2, accumulation=2), rows(4)),
        layers("qkv", "plain", z_loss=1e-5, weight_decay=0.1, clip_norm=4.0),
        layers("qkv clipped", "grouped", z_loss=1e-3, clip_norm=0.1, warmup_steps=2),
        layers("attention", "plain", z_loss=1e-3, accumulation=3),
        layers("mlp", "grouped", weight_decay=0.1),
        layers("all", "plain", weight_decay=0.1, clip_norm=0.5),
        layers("all, shared norm rows", "grouped", z_loss=1e-3, layers=[1]),
        layers("lora", "plain", trainable="lora", weight_decay=0.1, clip_norm=0.5),
        layers("lora of one layer", "grouped", trainable="lora", layers=[1], z_loss=1e-3),
        layers("every second layer", "plain", layer_stride=2),
        layers("vectors and layers with class pictures", "plain", prior=True, train_embedding_in_layer_stage=True,
               prior_weight=0.5, clip_norm=0.5, warmup_steps=2, weight_decay=0.1, accumulation=2),
        layers("vectors and all layers", "grouped", n=2, train_embedding_in_layer_stage=True, embedding_vectors=2),
    ]
    for case in cases:
        if case.name.split()[0].strip(",") in ("attention", "mlp", "all"):
            case.options["trainable"] = case.name.split()[0].strip(",")
    cases[-1].options["trainable"] = "all"
    # Made later, with numbers of their own, so that those above stay what they were.
    own = torch.Generator().manual_seed(8)
    row = lambda: torch.randn(1, 32, generator=own).tolist()
    cut_outs = [
        Case("embedding of a cut-out", "plain", "embedding", dict(z_loss=1e-3), row(), masked=True),
        Case("a cut-out beside class pictures", "grouped", "layers", dict(trainable="mlp", prior_weight=0.5, z_loss=1e-3, clip_norm=0.5,
             accumulation=2), row(), prior=True, masked=True),
    ]
    cooling = Case("mlp, the rate rising and falling", "plain", "layers", dict(trainable="mlp", layer_steps=3, warmup_steps=2, cooldown_steps=2), row())
    described, tensors = [], {}
    for case, g in [(case, g) for case in cases] + [(case, own) for case in [*cut_outs, cooling]]:
        d, t = case.run(4 if case.stage == "embedding" else 3, g)
        described.append(d)
        tensors.update(t)
        print(f"{case.name:45} losses {d['losses'][0]:.4f} .. {d['losses'][-1]:.4f}  norms {d['norms'][0]:.3f}")
    return described, tensors


def main():
    described, tensors = make()
    if "--f32" in sys.argv:
        # Printed only: how far PyTorch's own f32 is from the f64 that is written.
        Case.dtype = torch.float32
        other, others = make()
        for d, o in zip(described, other):
            keys = [k for k in tensors if k.startswith(d["name"] + "/change.")]
            gap = lambda part: max(part(others[k] - tensors[k]) / part(tensors[k]) for k in keys)
            loss = max(abs(a / b - 1) for a, b in zip(d["losses"], o["losses"]))
            print(f"{d['name']:45} f32: loss {loss:.0e} change {gap(torch.norm):.0e} largest {gap(lambda t: t.abs().max()):.0e}")
        return
    (GOLDEN / "training.json").write_text(json.dumps(described) + "\n")
    save_file(tensors, GOLDEN / "training.safetensors")


if __name__ == "__main__":
    main()
