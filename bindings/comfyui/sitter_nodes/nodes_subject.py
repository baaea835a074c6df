"""Load Subject, Save Subject, Subject Info."""
from __future__ import annotations

import json
import os
from typing import Any

from comfy_api.v0_0_2 import io, ui

from . import fields, host, places
from .wires import call, library

FOLDERS = {"models/sitter_subjects": host.SUBJECTS, "output": "output"}


class LoadSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterLoadSubject",
            display_name="Sitter: Load Subject",
            category=fields.CATEGORY,
            description="Reads a subject that Save Subject wrote. It works with the model that it was trained on.",
            inputs=[
                io.Combo.Input(
                    "file", options=places.subjects(host.subject_roots()),
                    tooltip="A .safetensors file in models/sitter_subjects, newest first. Press R after saving one.",
                ),
            ],
            outputs=[fields.Subject.Output("subject", display_name="subject", tooltip="For Sample, Score, Info and Loss Curve.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: Any = None, **_: Any) -> str:
        path = next((p for root in host.subject_roots() if (p := places.below(root, str(file))) and os.path.isfile(p)), "")
        return places.fingerprint(path) if path else ""

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        path = places.subject_path(file, host.subject_roots())
        return io.NodeOutput(call(lambda: library().Subject.load(path), "file"))


class SaveSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterSaveSubject",
            display_name="Sitter: Save Subject",
            category=fields.CATEGORY,
            description="Writes a subject to a file of its own; nothing is ever overwritten.",
            is_output_node=True,
            inputs=[
                fields.Subject.Input("subject", tooltip="From Train Subject."),
                io.String.Input(
                    "filename_prefix", default="subject",
                    tooltip="The file is called filename_prefix_00001.safetensors, with the next free number; fox/mine puts it into fox.",
                ),
                io.Combo.Input(
                    "folder", options=list(FOLDERS), default=next(iter(FOLDERS)),
                    tooltip="models/sitter_subjects, where Load Subject sees it after R; or ComfyUI's output folder.",
                ),
            ],
            outputs=[io.String.Output("name", display_name="name", tooltip="The file, below the chosen folder.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, subject: Any, filename_prefix: str, folder: str) -> io.NodeOutput:
        path, root = host.new_subject_file(FOLDERS.get(folder, "output"), filename_prefix)
        call(lambda: subject.save(path), "filename_prefix")
        name = os.path.relpath(path, root).replace(os.sep, "/")
        host.Node(cls.hidden.unique_id).say(f"saved {folder}/{name}")
        return io.NodeOutput(name, ui=ui.PreviewText(f"{folder}/{name}"))


class SubjectInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterSubjectInfo",
            display_name="Sitter: Subject Info",
            category=fields.CATEGORY,
            description="What a subject is called, and all options of its training, with the values that it had.",
            is_output_node=True,
            inputs=[fields.Subject.Input("subject", tooltip="From Train Subject or Load Subject.")],
            outputs=[
                io.String.Output("info", display_name="info", tooltip="All of it, as JSON."),
                io.String.Output("phrase", display_name="phrase", tooltip="How prompts name the subject: [V] dog."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, subject: Any) -> io.NodeOutput:
        info = call(lambda: subject.info)
        phrase = f"{info['identifier']} {info.get('class_word') or ''}".strip()
        loss = info.get("last_loss")
        summary = f"{phrase}: {info.get('method')}, {info.get('steps')} steps" + (f", loss {loss:.3f}" if loss is not None else "")
        if licence := info.get("licence"):
            summary += f"\nLicence of the model's weights: {licence}"
        host.Node(cls.hidden.unique_id).say(summary)
        return io.NodeOutput(json.dumps(info, indent=2, ensure_ascii=False), phrase, ui=ui.PreviewText(summary))
