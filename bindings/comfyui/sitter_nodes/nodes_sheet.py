"""Loss Curve and Contact Sheet."""
from __future__ import annotations

from typing import Any, Optional

from comfy_api.v0_0_2 import io, ui

from . import drawings, fields, pictures
from .messages import NodeError
from .wires import call

ROWS = ("references", "results", "results_2", "results_3", "results_4", "results_5", "results_6")


class LossCurve(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterLossCurve",
            display_name="Sitter: Loss Curve",
            category=fields.CATEGORY,
            description="Draws the losses of up to four trainings into one picture.",
            is_output_node=True,
            inputs=[
                *fields.subjects("A trained subject; it carries its losses, loaded ones too."),
                io.Int.Input("width", default=800, min=256, max=4096, tooltip="Of the picture, in pixels."),
                io.Int.Input("height", default=480, min=160, max=4096, tooltip="Of the picture, in pixels."),
                io.Int.Input("smooth", default=9, min=1, max=1001, tooltip="Steps in the running mean that is drawn over the losses."),
            ],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The curves.")],
        )

    @classmethod
    def execute(
        cls, width: int, height: int, smooth: int, subject: Any = None, subject_2: Any = None, subject_3: Any = None,
        subject_4: Any = None,
    ) -> io.NodeOutput:
        given = [one for one in (subject, subject_2, subject_3, subject_4) if one is not None]
        if not given:
            raise NodeError("subject: nothing is connected. Connect the subject of Train Subject or Load Subject.")
        curves = [(_label(one), call(lambda one=one: one.losses)) for one in given]
        image = pictures.batch([drawings.pixels(drawings.loss_curve(curves, width, height, smooth))])
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


class ContactSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SitterContactSheet",
            display_name="Sitter: Contact Sheet",
            category=fields.CATEGORY,
            description="Lays pictures of any sizes out in titled rows: references above results.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                *(io.Image.Input(name, optional=True, tooltip="A row: a batch or a list of pictures.") for name in ROWS),
                io.String.Input("titles", multiline=True, default="References\nResults", tooltip="One line for each connected row."),
                io.Int.Input("cell", default=160, min=32, max=1024, tooltip="Side of a picture's place, in pixels."),
                io.Int.Input("columns", default=8, min=1, max=64, tooltip="Pictures side by side before a row wraps."),
            ],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The sheet.")],
        )

    @classmethod
    def execute(cls, titles: list[str], cell: list[int], columns: list[int], **rows: Optional[list[Any]]) -> io.NodeOutput:
        connected = [(name, rows[name]) for name in ROWS if rows.get(name)]
        if not connected:
            raise NodeError("references: nothing is connected. Connect pictures to at least one row.")
        lines = titles[0].splitlines()
        tiles = [[pictures.on_white(one) for one in pictures.split(given, name)] for name, given in connected]
        named = [(lines[i] if i < len(lines) else "", row) for i, row in enumerate(tiles)]
        image = pictures.batch([drawings.pixels(drawings.contact_sheet(named, cell[0], columns[0]))])
        return io.NodeOutput(image, ui=ui.PreviewImage(image, cls=cls))


def _label(subject: Any) -> str:
    info = call(lambda: subject.info)
    return f"{info.get('method')} {info['identifier']}"
