"""Load Model."""
from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io

from . import fields, host, memory, places
from .watch import Watch
from .wires import ModelWire


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterLoadModel",
            display_name="Sitter: Load Model",
            category=fields.CATEGORY,
            description="Opens an autoregressive text-to-image model: a folder in models/sitter, or one of the small ones inside Sitter.",
            inputs=[
                io.Combo.Input(
                    "model", options=places.models(host.model_roots()), default=places.EMBEDDED,
                    tooltip="A folder in models/sitter with a model's files as published; or embedded: and "
                    "embedded:infinity, toy models of 128x128 pictures that need no download. Press R after adding a folder.",
                ),
                io.Combo.Input(
                    "device", options=["auto", "cpu", "cuda", "cuda:1", "cuda:2", "cuda:3"], default="auto",
                    tooltip="auto takes the GPU if this build of Sitter has one, and the CPU if ComfyUI runs with --cpu.",
                ),
                io.Combo.Input(
                    "dtype", options=["auto", "f32", "bf16", "q8_0", "q4_k"], default="auto",
                    tooltip="Of the transformer's weights. bf16 takes half the memory of f32, q8_0 about a quarter, q4_k about a seventh; "
                    "these two are made once and kept in the model's folder. The image tokenizer always runs in f32.",
                ),
                io.Int.Input(
                    "threads", default=0, min=0, max=1024,
                    tooltip="Threads of each job on the CPU; 0 takes one per core. Lower it to keep the machine usable meanwhile.",
                ),
            ],
            outputs=[fields.Model.Output("opened", display_name="model", tooltip="For the other nodes of Sitter.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, model: Any = None, **_: Any) -> str:
        name = str(model)
        path = next((p for root in host.model_roots() if (p := places.below(root, name))), "")
        return name if name in places.INSIDE or not path else f"{name} {places.fingerprint(path)}"

    @classmethod
    def execute(cls, model: str, device: str, dtype: str, threads: int) -> io.NodeOutput:
        node = host.Node(cls.hidden.unique_id)
        wire = ModelWire(places.model_path(model, host.model_roots()), host.device_for(device), dtype, threads)
        node.watched(lambda watch: memory.opened(wire, watch), Watch(node), "model")
        info = wire.info
        node.say(f"{model}, {int(info.get('parameters') or 0) / 1e6:.0f} M, {info.get('device')} {info.get('dtype')}")
        return io.NodeOutput(wire)
