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
from typing import Any

from ._library import read_json, static_text
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
from .images import ImageLike
from .model import Model
from .run import Event, Progress, Run
from .subject import Subject
from .tokens import Sample, Tokens

__all__ = [
    "BadFormat", "Cancelled", "DeviceError", "Error", "Event", "FileError", "Forked", "ImageLike", "InternalError",
    "InvalidArgument", "InvalidState", "LibraryError", "Model", "NotFound", "NotSupported", "OutOfMemory", "Progress", "Run",
    "Sample", "Subject", "Tokens", "UnsupportedModel", "WrongModel", "build_info", "devices", "version",
]


def version() -> str:
    """The version of the library: "0.1.0"."""
    return static_text("sitter_version_string")


def build_info() -> dict[str, Any]:
    """How the library was built: version, target, profile, compiler, commit."""
    found: dict[str, Any] = json.loads(static_text("sitter_build_info_json"))
    return found


def devices() -> list[dict[str, Any]]:
    """What models can be opened on: name and memory_bytes (or None) of each device."""
    found: list[dict[str, Any]] = read_json("sitter_devices_json")
    return found
