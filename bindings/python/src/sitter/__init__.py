"""Sitter teaches a pretrained autoregressive text-to-image model one subject from a few pictures, and draws it.

    import sitter

    model = sitter.Model.open("embedded:")
    subject = model.train(["1.png", "2.png", "3.png", "4.png"], "fox", progress=True)
    sample, = model.sample("a photo of a [V] fox at night", subjects=[subject], seed=1)
    sample.save("fox.png")

The work is done by a shared library, loaded at first use; importing this package loads nothing but numpy.
"""
from __future__ import annotations

import json
import os
from typing import Any, Optional

from ._library import path_utf8, read_json, static_text, utf8
from ._options import Adaptation, AllTrainOptions, Decoding, Dtype, Method, OptimizerState, Recompute, SampleOptions, TextEncoder
from ._options import TrainOptions
from .errors import (
    BadFormat,
    Cancelled,
    DeviceError,
    Error,
    FileError,
    Forked,
    InternalError,
    InvalidArgument,
    InvalidState,
    LibraryError,
    NotFound,
    NotSupported,
    OutOfMemory,
    UnsupportedModel,
    WrongModel,
)
from .evaluator import Evaluator, Scores
from .images import ImageLike
from .model import Model
from .options import Options
from .run import Event, Progress, Run
from .subject import Subject
from .tokens import Sample, Tokens

__all__ = [
    "Adaptation", "AllTrainOptions", "BadFormat", "Cancelled", "Decoding", "DeviceError", "Dtype", "Error", "Evaluator", "Event", "FileError",
    "Forked", "ImageLike", "InternalError", "InvalidArgument", "InvalidState", "LibraryError", "Method", "Model",
    "NotFound", "NotSupported", "OptimizerState", "OutOfMemory", "Progress", "Recompute", "Run", "Sample",
    "SampleOptions", "Scores", "Subject", "TextEncoder", "Tokens", "TrainOptions", "UnsupportedModel", "WrongModel", "build_info",
    "devices", "estimate", "version",
]


def version() -> str:
    """The version of the library: "0.1.0"."""
    return static_text("sitter_version_string")


def build_info() -> dict[str, Any]:
    """How the library was built: version, target, profile, compiler, commit."""
    found: dict[str, Any] = json.loads(static_text("sitter_build_info_json"))
    return found


def devices() -> list[dict[str, Any]]:
    """What models can be opened on: name, hardware, memory_bytes and memory_free_bytes (None if not known) of each."""
    found: list[dict[str, Any]] = read_json("sitter_devices_json")
    return found


def estimate(
    path: "str | os.PathLike[str]",
    device: str = "auto",
    dtype: Dtype = "auto",
    sample: Optional[SampleOptions] = None,
    train: Optional[AllTrainOptions] = None,
    text_encoder: TextEncoder = "auto",
) -> dict[str, Any]:
    """How many bytes a model and the work with it would take, at their worst moments and with the weights: weights, encode,
    decode, sample, embedding and layers (the training stages), layers_host (of stage 2, in the host's memory beside a GPU),
    and free. Nothing is opened. `sample` and `train` (which may hold "method") are options by name over those that
    the model recommends.
    """
    options = Options("model")
    options.update(device=device, dtype=dtype, text_encoder=text_encoder)
    drawing = teaching = None
    if sample is not None:
        drawing = Options("sample", path_utf8(path), origin="for_folder")
        drawing.update(**sample)
    if train is not None:
        given: dict[str, Any] = dict(train)
        method = given.pop("method", None)
        name = None if method is None else utf8(method, "method")
        teaching = Options("train", path_utf8(path), name, origin="for_folder")
        teaching.update(**given)
    found: dict[str, Any] = read_json(
        "sitter_model_estimate_json",
        path_utf8(path),
        options.handle,
        drawing and drawing.handle,
        teaching and teaching.handle,
    )
    return found
