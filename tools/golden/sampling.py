#!/usr/bin/env python3
"""Scores, logits and greedy pictures of the tiny models in plain PyTorch: writes tests/golden/sampling.json.

    python tools/golden/sampling.py

The loop is the plainest there is: no cache, the two branches of guidance in passes of their own, all 1-token steps, the
grammar mask on the whole vocabulary. Made with torch 2.15.0, f32.
"""

import json
import random

import torch

from lumina import GOLDEN, Lumina, code_name

PROMPTS = ["a photo of a fox", "a red dog in the snow"]
PIXELS_PER_CODE = 2


def greedy(model, prompt, height, width, guidance):
    """Token for token with image top-k 1: rows of codes."""
    v = model.vocabulary
    codes = torch.tensor([v[code_name(i)] for i in range(sum(n.startswith("IMGIMG") for n in v))])
    head = model.image_block([[0] * width] * height)[:3]
    cond, uncond = prompt + head, list(head)
    for t in range(height * (width + 1)):
        if (t + 1) % (width + 1) == 0:
            token = v["<reserved08799>"]
        else:
            step = lambda ids: model.logits(model.forward(model.embed(ids)[None])[0, -1])
            logits = step(cond)
            if guidance != 1.0:
                u = step(uncond)
                logits = guidance * (logits - u) + u
            allowed = torch.full_like(logits, float("-inf"))
            allowed[codes] = logits[codes]
            token = int(allowed.argmax())
        cond.append(token)
        uncond.append(token)
    rows = torch.tensor(cond[len(prompt) + 3 :]).view(height, width + 1)[:, :-1]
    return (rows - v[code_name(0)]).tolist()


def cases(name):
    model = Lumina.open(GOLDEN / name)
    rng = random.Random(7)
    count = sum(n.startswith("IMGIMG") for n in model.vocabulary)
    out = []
    for prompt in PROMPTS:
        for height, width in [(4, 4), (2, 6)]:
            pieces = model.prompt(prompt, width * PIXELS_PER_CODE, height * PIXELS_PER_CODE)
            grid = [[rng.randrange(count) for _ in range(width)] for _ in range(height)]
            tokens, first = model.sequence(pieces, grid)
            logits = model.logits(model.forward(model.embed(tokens)[None])[0])
            target = torch.tensor(tokens[first:])
            nats = torch.nn.functional.cross_entropy(logits[first - 1 : -1], target)
            out.append(dict(
                prompt=prompt, height=height, width=width, grid=sum(grid, []), score=nats.item(),
                separator_logits=logits[first - 1].tolist(),
                greedy={str(g): sum(greedy(model, pieces, height, width, g), []) for g in (1.0, 4.0)}))
    return out


if __name__ == "__main__":
    with torch.no_grad():
        found = {name: cases(name) for name in ("plain", "grouped")}
    (GOLDEN / "sampling.json").write_text(json.dumps(found) + "\n")
