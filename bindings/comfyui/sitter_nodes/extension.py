"""The list of nodes."""
from __future__ import annotations

from comfy_api.v0_0_2 import ComfyExtension, io

from . import host
from .nodes_model import LoadModel
from .nodes_picture import DecodeTokens, EncodePicture, ExamplePictures, Sample, ScorePicture
from .nodes_sheet import ContactSheet, LossCurve
from .nodes_subject import LoadSubject, SaveSubject, SubjectInfo
from .nodes_train import TrainingOptions, TrainSubject

NODES: list[type[io.ComfyNode]] = [
    LoadModel, ExamplePictures, TrainSubject, TrainingOptions, Sample, DecodeTokens, EncodePicture, ScorePicture,
    LoadSubject, SaveSubject, SubjectInfo, LossCurve, ContactSheet,
]


class SitterExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> SitterExtension:
    """Called by ComfyUI."""
    host.register_folders()
    return SitterExtension()
