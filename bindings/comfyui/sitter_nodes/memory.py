"""Sharing memory with ComfyUI: it counts our models among its own, unloads them as its own, and makes room for them.

ComfyUI manages `ModelPatcher` objects. Ours patches nothing; it only answers how large the model is, and closes it.
"""
from __future__ import annotations

import logging
import weakref
from typing import Any

import comfy.model_management as management
import torch
from comfy.model_patcher import ModelPatcher

from . import places
from .watch import Watch
from .wires import ModelWire, library

log = logging.getLogger("sitter")

# ComfyUI's list holds weak references: a patcher lives as long as the wire that it speaks for.
_patchers: "weakref.WeakKeyDictionary[ModelWire, Patcher]" = weakref.WeakKeyDictionary()


class SitterModel(torch.nn.Module):
    """What ComfyUI's log calls the model."""


class Patcher(ModelPatcher):
    """Speaks for one wire."""

    def __init__(self, wire: ModelWire, device: torch.device) -> None:
        self._wire = weakref.ref(wire)
        super().__init__(SitterModel(), load_device=device, offload_device=torch.device("cpu"), size=max(wire.bytes, 1))
        self.model.device = device

    def loaded_size(self) -> int:
        wire = self._wire()
        return self.size if wire is not None and wire.loaded else 0

    def partially_load(self, device_to: Any, extra_memory: float = 0, force_patch_weights: bool = False) -> int:
        return 0

    def partially_unload(self, device_to: Any, memory_to_free: float = 0, *_: Any, **__: Any) -> int:
        return self._close()

    def detach(self, unpatch_all: bool = True) -> Any:
        self._close()
        return self.model

    def _close(self) -> int:
        freed, wire = self.loaded_size(), self._wire()
        if wire is not None:
            wire.close()
        return freed

    def __del__(self) -> None:
        """Nothing is patched; the wire's own end frees the model."""


def opened(wire: ModelWire, watch: Watch, alone: bool = False) -> Any:
    """The `sitter.Model` of a wire, in memory. On a GPU ComfyUI makes room first; with `alone` it empties the GPU."""
    device = _device(wire)
    if device.type != "cpu" and (alone or not wire.loaded):
        needed = 1e30 if alone else wire.bytes or places.size(wire.path)
        ours = [entry for entry in management.current_loaded_models if entry.model is _patchers.get(wire)]
        management.free_memory(needed + management.minimum_inference_memory(), device, ours)
    model = wire.open(watch)
    if wire not in _patchers:
        _patchers[wire] = Patcher(wire, _device(wire))
    patcher = _patchers[wire]
    if all(entry.model is not patcher for entry in management.current_loaded_models):
        try:
            management.load_models_gpu([patcher])
        except Exception as error:  # Its insides change; our model works without being counted.
            log.warning("Sitter: ComfyUI does not count the model among its own: %s", error)
    # Making room may have taken out what had just been opened.
    return model if wire.loaded else wire.open(watch)


def _device(wire: ModelWire) -> torch.device:
    """Where the model is, or will be: a build of the library without CUDA takes the CPU beside any GPU."""
    name = wire.info.get("device") or wire.device
    if name == "auto":
        name = "cuda" if any(one["name"].startswith("cuda") for one in library().devices()) else "cpu"
    return torch.device("cuda", 0) if name == "cuda" else torch.device(name)
