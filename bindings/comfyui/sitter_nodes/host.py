"""ComfyUI's side of a call: its Stop flag, its progress bar, its folders."""
from __future__ import annotations

import os
from typing import Any, Callable, Optional, TypeVar

import comfy.model_management as management
import comfy.utils
import folder_paths
from server import PromptServer

from . import places
from .watch import HostInterrupt, Stopped, Watch
from .wires import call

T = TypeVar("T")

MODELS, SUBJECTS = "sitter_models", "sitter_subjects"
# Longer side in pixels of a picture shown on a node while it works.
PREVIEW = 512


class Node:
    """One execution of a node."""

    def __init__(self, node_id: Optional[str]) -> None:
        self._id = node_id
        self._bar: Optional[comfy.utils.ProgressBar] = None

    def interrupted(self) -> bool:
        return bool(management.processing_interrupted())

    def interrupt_again(self) -> None:
        management.interrupt_current_processing(True)

    def show(self, done: int, total: int, text: str, picture: Any) -> None:
        if self._bar is None:
            self._bar = comfy.utils.ProgressBar(total, node_id=self._id)
        try:
            self._bar.update_absolute(done, total, ("JPEG", picture, PREVIEW) if picture is not None else None)
        except management.InterruptProcessingException as error:
            raise HostInterrupt() from error
        self.say(text)

    def say(self, text: str) -> None:
        """Text under the node."""
        server = PromptServer.instance
        if self._id is not None and hasattr(server, "send_progress_text"):
            server.send_progress_text(text, self._id, server.client_id)

    def watched(self, work: Callable[[Watch], T], watch: Optional[Watch] = None, field: Optional[str] = None) -> T:
        """Runs a call of the library. After Stop, ComfyUI gets the exception that it reports as "interrupted"."""
        management.throw_exception_if_processing_interrupted()
        watch = watch or Watch(self)
        try:
            return call(lambda: work(watch), field)
        except Stopped:
            management.throw_exception_if_processing_interrupted()
            raise management.InterruptProcessingException() from None


def register_folders() -> None:
    """models/sitter and models/sitter_subjects, beside what extra_model_paths.yaml says."""
    for name, folder in ((MODELS, "sitter"), (SUBJECTS, "sitter_subjects")):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, folder), is_default=True)


def model_roots() -> list[str]:
    return list(folder_paths.get_folder_paths(MODELS))


def subject_roots() -> list[str]:
    return list(folder_paths.get_folder_paths(SUBJECTS))


def checkpoint(key: str) -> str:
    """Where the checkpoint of a training lies; the temp folder would be emptied at a restart."""
    folder = os.path.join(folder_paths.get_output_directory(), "sitter_checkpoints")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, f"{key}.checkpoint")


def device_for(choice: str) -> str:
    """`auto` keeps to the CPU where ComfyUI was told to."""
    return "cpu" if choice == "auto" and management.cpu_state == management.CPUState.CPU else choice


def new_subject_file(folder: str, prefix: str) -> tuple[str, str]:
    """A path that nothing has yet, and the folder that it is below."""
    root = subject_roots()[0] if folder == SUBJECTS else folder_paths.get_output_directory()
    os.makedirs(root, exist_ok=True)
    return places.new_file(root, prefix), root
