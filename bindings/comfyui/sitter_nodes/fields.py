"""Inputs that several nodes have, and our wire types."""
from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from .options import Option

CATEGORY = "Sitter"

Model = io.Custom("SITTER_MODEL")
Subject = io.Custom("SITTER_SUBJECT")
Tokens = io.Custom("SITTER_TOKENS")
TrainOptions = io.Custom("SITTER_TRAIN_OPTIONS")

# Optional inputs of every node that takes several subjects.
SUBJECTS = ("subject", "subject_2", "subject_3", "subject_4")
LARGEST_SEED = 2**64 - 1


def model() -> Any:
    return Model.Input("model", tooltip="From Sitter: Load Model.")


def subjects(what: str) -> list[Any]:
    return [Subject.Input(name, optional=True, tooltip=what) for name in SUBJECTS]


def prompt(tooltip: str, default: str) -> Any:
    return io.String.Input("prompt", multiline=True, dynamic_prompts=True, default=default, tooltip=tooltip)


def seed(tooltip: str, control: bool) -> Any:
    return io.Int.Input("seed", default=0, min=0, max=LARGEST_SEED, control_after_generate=control, tooltip=tooltip)


def widget(option: Option) -> Any:
    """The input of an option, which stands at "as recommended"."""
    common = {"default": option.unset, "tooltip": option.help}
    if option.kind == "int":
        return io.Int.Input(option.name, min=-1, max=int(option.high), **common)
    if option.kind == "float":
        return io.Float.Input(option.name, min=-1.0, max=option.high, step=option.step, round=False, **common)
    if option.kind == "text":
        return io.String.Input(option.name, multiline=option.name == "templates", **common)
    return io.Combo.Input(option.name, options=list(option.choices), **common)
