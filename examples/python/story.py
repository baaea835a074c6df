"""Teaches the embedded model the fox of assets/subjects from four pictures and draws it at night: fox-0.png, fox-1.png.

    pip install ./bindings/python
    python examples/python/story.py        # one to two minutes on two cores
"""
from pathlib import Path

import sitter

PICTURES = Path(__file__).resolve().parents[2] / "assets" / "subjects" / "fox"

# The small model inside the library; a folder in Hugging Face layout would be a larger one.
model = sitter.Model.open("embedded:")
# The identifier [V] learns what is particular about this fox. Ctrl-C stops it at any step.
subject = model.train(sorted(PICTURES.glob("*.png")), "fox", seed=1, progress=True)
# 13 MB, for later: sitter.Subject.load("fox.safetensors").
subject.save("fox.safetensors")
# Prompts name the subject by its identifier, the class word after it.
samples = model.sample("a photo of a [V] fox at night", subjects=[subject], count=2, seed=1, progress=True)
for i, sample in enumerate(samples):
    # sample.image is a numpy array; the file also says what made it.
    sample.save(f"fox-{i}.png")
print(f"{subject}: last loss {subject.losses[-1][2]:.2f}, wrote fox-0.png and fox-1.png")
