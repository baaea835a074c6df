#!/usr/bin/env python3
"""Makes tests/golden/subjects: subjects taught to the tiny model `plain`, and what is drawn with them and without.

    SITTER_LIBRARY=libsitter.so PYTHONPATH=bindings/python/src python tools/golden/subjects.py

The committed files were made by version 0.1.0, before models had families: later versions open these subjects and draw the same
codes with them, and teach the same subjects bit for bit. first_embedded.safetensors, a fox taught by textual inversion to the model
that `embedded:` was then, is not made here: that model is gone.
"""

import json
import pathlib
import struct
import zlib

import sitter

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/subjects"
COMMON = dict(image_size=16, batch_size=3, embedding_learning_rate=0.05, layer_learning_rate=3e-3, lora_rank=4, seed=5,
              dropout=0.1)
WAYS = {
    "two_stage": dict(method="two_stage", embedding_steps=6, layer_steps=8),
    "lora": dict(method="lora", embedding_steps=6, layer_steps=8),
    "all": dict(method="dreambooth", layer_steps=6, trainable="all", prior_weight=0.5, prior_count=2),
}


def png(n):
    """A picture of 20 x 16 pixels as a PNG file."""
    value = lambda x, y, c: (x * (7 + 4 * n) + y * (5 + 3 * c) + 40 * n * c) % 256
    rows = b"".join(b"\0" + bytes(value(x, y, c) for x in range(20) for c in range(3)) for y in range(16))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", 20, 16, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main():
    OUT.mkdir(exist_ok=True)
    model = sitter.Model.open(str(ROOT / "tests/golden/plain"), dtype="f32", device="cpu", keep_quantised=False)
    images = [OUT / f"{n}.png" for n in range(3)]
    for n, path in enumerate(images):
        path.write_bytes(png(n))
    drawn = {}
    for name, options in {"untouched": None, **WAYS}.items():
        subjects = []
        if options is not None:
            subject = model.train(images, "dog", **{**COMMON, **options})
            subject.save(str(OUT / f"{name}.safetensors"))
            subjects = [subject]
        prompt = "a photo of a [V] dog" if subjects else "a photo of a dog"
        for decoding in ("sequential", "speculative", "speculative_distribution"):
            samples = model.sample(prompt, subjects=subjects, width=16, height=8, count=3, guidance=4.0, top_k=8, seed=11,
                                   decoding=decoding, window=5)
            drawn[f"{name} {decoding}"] = [[int(c) for row in s.tokens.grid for c in row] for s in samples]
    (OUT / "drawn.json").write_text(json.dumps(drawn, indent=1) + "\n")


if __name__ == "__main__":
    main()
