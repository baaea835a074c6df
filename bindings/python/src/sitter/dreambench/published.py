"""What others report, each with the protocol that it was measured under: numbers of different protocols cannot be compared."""
from __future__ import annotations

from typing import NamedTuple, Optional


class Row(NamedTuple):
    method: str
    base: str
    protocol: str
    """A to D as in `Evaluator.score`; "?" if it is not stated."""
    dino: float
    clip_i: float
    clip_t: Optional[float]
    source: str


ROWS = (
    Row("real pictures", "", "A", 0.774, 0.885, None, "DreamBooth"),
    Row("Textual Inversion", "Stable Diffusion", "A", 0.569, 0.780, 0.255, "DreamBooth"),
    Row("Re-Imagen", "Imagen", "A", 0.600, 0.740, 0.270, "Re-Imagen"),
    Row("DreamBooth", "Stable Diffusion", "A", 0.668, 0.803, 0.305, "DreamBooth"),
    Row("DreamBooth", "Imagen", "A", 0.696, 0.812, 0.306, "DreamBooth"),
    Row("BLIP-Diffusion, zero-shot", "Stable Diffusion", "A", 0.594, 0.779, 0.300, "BLIP-Diffusion"),
    Row("BLIP-Diffusion, fine-tuned", "Stable Diffusion", "A", 0.670, 0.805, 0.302, "BLIP-Diffusion"),
    Row("two stages", "Lumina-mGPT 7B", "B", 0.671, 0.785, 0.314, "arXiv 2504.13162"),
    Row("two stages, no class in the prompt", "Lumina-mGPT 7B", "B", 0.668, 0.785, 0.312, "arXiv 2504.13162"),
    Row("embedding only", "Lumina-mGPT 7B", "B", 0.601, 0.754, 0.320, "arXiv 2504.13162"),
    Row("two stages, LoRA of rank 16", "Lumina-mGPT 7B", "B", 0.657, 0.781, 0.316, "arXiv 2504.13162"),
    Row("two stages, LoRA of rank 256", "Lumina-mGPT 7B", "B", 0.668, 0.785, 0.312, "arXiv 2504.13162"),
    Row("DCoAR", "Lumina-mGPT 7B", "?", 0.7226, 0.8151, 0.3184, "arXiv 2508.07341"),
    Row("Proxy-Tuning, 9 subjects", "Lumina-mGPT 7B", "?", 0.783, 0.807, 0.312, "arXiv 2503.10125"),
    Row("EchoGen", "Infinity-2B", "?", 0.755, 0.835, 0.325, "arXiv 2509.26127"),
    Row("ARBooth, run again by EchoGen", "Infinity-2B", "?", 0.750, 0.808, 0.269, "arXiv 2509.26127"),
)


def comparable(ours: str, theirs: str) -> str:
    """Why a row of protocol `theirs` does not stand beside one of `ours`; empty if it does."""
    if theirs == "?":
        return "the protocol is not stated"
    if {ours, theirs} <= {"A", "B"}:
        return ""
    return "" if ours == theirs else f"protocol {theirs}, not {ours}"
