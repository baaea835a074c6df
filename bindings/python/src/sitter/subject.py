"""Learned subjects."""
from __future__ import annotations

import os
from ctypes import POINTER, byref, c_double, c_int32, c_size_t, c_uint64
from typing import Any

import numpy as np

from ._library import Handle, call, make, path_utf8, read_json
from .run import STAGES


class Subject:
    """What training learned about one subject. It belongs to the model it was trained on, and never changes."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @classmethod
    def load(cls, path: "str | os.PathLike[str]") -> "Subject":
        """Reads a subject file. NotFound, BadFormat."""
        return cls(make("subject", "sitter_subject_load", path_utf8(path)))

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Writes a subject file (safetensors). It appears whole or not at all."""
        call("sitter_subject_save", self._handle, path_utf8(path))

    @property
    def info(self) -> dict[str, Any]:
        """identifier, class_word, model (its fingerprint), method, vectors, changed_weights, stored_numbers, steps, last_loss,
        the options of the training, and licence, the terms of the model's weights, where they were known when it was taught."""
        found: dict[str, Any] = read_json("sitter_subject_info_json", self._handle)
        return found

    @property
    def losses(self) -> list[tuple[str, int, float]]:
        """One entry a step: the stage, "embedding" or "layers", the step within it from 0, and the loss in nats per token."""
        needed = c_size_t()
        call("sitter_subject_losses", self._handle, None, None, None, 0, byref(needed))
        count = needed.value
        stages, steps, losses = np.zeros(count, np.int32), np.zeros(count, np.uint64), np.zeros(count, np.float64)
        arrays = (
            stages.ctypes.data_as(POINTER(c_int32)),
            steps.ctypes.data_as(POINTER(c_uint64)),
            losses.ctypes.data_as(POINTER(c_double)),
        )
        call("sitter_subject_losses", self._handle, *arrays, count, byref(needed))
        names = (STAGES.get(stage, "") for stage in stages.tolist())
        return list(zip(names, steps.tolist(), losses.tolist()))

    def __repr__(self) -> str:
        info = self.info
        return f"<sitter.Subject {info['identifier']} {info['class_word']}, {info['method']}, {info['steps']} steps>"
