"""Writes example_workflows/*.json, in the format that the editor saves, from the short descriptions below.

    python bindings/comfyui/tools/make_workflows.py

Widget values that are not given are the nodes' defaults. Needs no ComfyUI: the schemas come through the tests' stand-ins.
"""
from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from typing import Any, Optional

PACK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, PACK)
from tests import PACK  # noqa: E402, F811  (puts the stand-ins on the path)

from sitter_nodes import extension  # noqa: E402

# Core's nodes that the workflows use: inputs, then widgets with their values.
CORE = {"SaveImage": ([("images", "IMAGE")], ["sitter"]), "PreviewImage": ([("images", "IMAGE")], [])}
WIDTH = 320
# Of a Sample node with the picture that grows on it.
SAMPLE = 660


class Graph:
    """One workflow, growing."""

    def __init__(self) -> None:
        nodes = asyncio.run(asyncio.run(extension.comfy_entrypoint()).get_node_list())
        self.schemas = {schema.node_id: schema for schema in (node.define_schema() for node in nodes)}
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []

    def note(self, x: int, y: int, height: int, text: str, width: int = WIDTH) -> None:
        self.nodes.append({
            **self._frame("MarkdownNote", x, y, width, height), "inputs": [], "outputs": [], "widgets_values": [text],
            "color": "#432", "bgcolor": "#653", "title": "Read me",
        })

    def add(
        self, kind: str, x: int, y: int, height: int, /, title: Optional[str] = None, collapsed: bool = False, **given: Any
    ) -> "Out":
        """`given`: values of widgets, and outputs (`Out`) for inputs."""
        node = self._frame(kind, x, y, WIDTH, height)
        if collapsed:
            node["flags"] = {"collapsed": True}
        if title:
            node["title"] = title
        inputs, values, outputs = self._slots(kind, given)
        node.update(inputs=[], outputs=[{"name": n, "type": t, "links": None} for n, t in outputs], widgets_values=values)
        for name, io_type, widget in inputs:
            source = given.pop(name, None)
            if widget and not isinstance(source, Out):
                continue
            socket = {"name": name, "type": io_type, "link": None}
            if widget:
                socket["widget"] = {"name": name}
            node["inputs"].append(socket)
            if isinstance(source, Out):
                self._link(source, node, len(node["inputs"]) - 1, io_type)
        assert not given, f"{kind} has no {list(given)}"
        self.nodes.append(node)
        return Out(self, node, 0)

    def _slots(self, kind: str, given: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
        if kind in CORE:
            inputs, values = CORE[kind]
            prefix = given.pop("filename_prefix", None)
            return [(n, t, False) for n, t in inputs], [prefix] if prefix else list(values), []
        schema, inputs, values = self.schemas[kind], [], []
        for slot in schema.inputs:
            inputs.append((slot.id, slot.io_type, slot.widget))
            if slot.widget:
                chosen = given.get(slot.id, slot.given.get("default"))
                values.append(slot.given.get("default") if isinstance(chosen, Out) else chosen)
                if not isinstance(chosen, Out):
                    given.pop(slot.id, None)
                if slot.given.get("control_after_generate"):
                    values.append("fixed")
        # Sockets before widgets, as the editor has them.
        inputs.sort(key=lambda one: one[2])
        return inputs, values, [(o.given["display_name"], o.io_type) for o in schema.outputs]

    def _frame(self, kind: str, x: int, y: int, width: int, height: int) -> dict[str, Any]:
        number = len(self.nodes) + 1
        return {
            "id": number, "type": kind, "pos": [x, y], "size": [width, height], "flags": {}, "order": number - 1, "mode": 0,
            "properties": {} if kind == "MarkdownNote" else {"Node name for S&R": kind},
        }

    def _link(self, source: "Out", node: dict[str, Any], entry: int, io_type: str) -> None:
        number = len(self.links) + 1
        output = source.node["outputs"][source.slot]
        assert output["type"] == io_type, (output, node["type"], entry)
        output["links"] = [*(output["links"] or []), number]
        node["inputs"][entry]["link"] = number
        self.links.append([number, source.node["id"], source.slot, node["id"], entry, io_type])

    def write(self, name: str) -> None:
        workflow = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"sitter/{name}")), "revision": 0, "last_node_id": len(self.nodes),
            "last_link_id": len(self.links), "nodes": self.nodes, "links": self.links, "groups": [], "config": {},
            "extra": {}, "version": 0.4,
        }
        with open(os.path.join(PACK, "example_workflows", name + ".json"), "w", encoding="utf-8") as file:
            json.dump(workflow, file, indent=1, ensure_ascii=False)
            file.write("\n")


class Out:
    """An output of a node; `out[1]` is its second."""

    def __init__(self, graph: Graph, node: dict[str, Any], slot: int) -> None:
        self.graph, self.node, self.slot = graph, node, slot

    def __getitem__(self, slot: int) -> "Out":
        return Out(self.graph, self.node, slot)


def first_picture() -> None:
    g = Graph()
    g.note(20, 20, 130, "Draws four pictures with the small model inside Sitter: 128x128 pixels, a few seconds. Nothing is "
           "downloaded. Press **Run**; then change the prompt (it knows 147 kinds of emoji in 26 scenes) or the seed.")
    model = g.add("SitterLoadModel", 20, 210, 150)
    drawn = g.add("SitterSample", 400, 20, 440, model=model, prompt="a photo of a fox in the snow", seed=1, count=4)
    g.add("PreviewImage", 780, 20, 440, images=drawn)
    g.write("1_first_picture")


def teach_a_subject() -> None:
    g = Graph()
    g.note(20, 20, 200, "Teaches the model one particular fox from four pictures (a quarter of a minute on two cores), and draws it in four "
           "scenes that no reference shows. Every 21 steps a picture shows how far it is.\n\nFor a subject of your own, connect "
           "**Load Image** or any folder loader to *images* and write its class word. Press **Run** again: nothing is trained "
           "twice. **Stop** with *on_stop: keep* goes on with what was learned so far.")
    model = g.add("SitterLoadModel", 20, 280, 150)
    pictures = g.add("SitterExamplePictures", 20, 490, 260, example="fox")
    # Everything else in it is as recommended.
    shown = g.add("SitterTrainingOptions", 20, 810, 900, title="Training Options: sample_every 21", collapsed=True, sample_every=21)
    subject = g.add("SitterTrainSubject", 400, 20, 600, model=model, images=pictures, class_word=pictures[1], method="two_stage",
                    options=shown)
    g.add("SitterSaveSubject", 400, 700, 150, subject=subject, filename_prefix="fox")
    g.add("SitterSubjectInfo", 400, 910, 100, subject=subject)
    rows, scenes = {}, ["in the snow", "at night", "in the desert", "at sunset"]
    for i, scene in enumerate(scenes):
        rows[f"results{f'_{i + 1}' if i else ''}"] = g.add(
            "SitterSample", 780 + 380 * (i % 2), 20 + (SAMPLE + 50) * (i // 2), SAMPLE, model=model, subject=subject,
            prompt=f"a photo of a [V] fox {scene}", seed=1, count=4,
        )
    sheet = g.add("SitterContactSheet", 1540, 20, 700, references=pictures, cell=144,
                  titles="\n".join(["References", *(f"a photo of a [V] fox {scene}" for scene in scenes)]), **rows)
    g.add("SaveImage", 1920, 20, 700, images=sheet, filename_prefix="sitter/teach")
    g.add("SitterLossCurve", 1540, 780, 420, subject=subject)
    g.write("2_teach_a_subject")


def two_subjects() -> None:
    g = Graph()
    g.note(20, 20, 260, "Two subjects, each learned under a word of its own, **[V]** and **[W]**. *textual_inversion* learns the words and "
           "nothing else, so they do not disturb each other. The first two rows have their own subject connected, the last one both.\n\n"
           "The small model has seen pictures of two figures: the one that is named first stands on the left. Words alone give it only "
           "roughly what they were taught. Methods that change the model's layers come closer to one subject, but the changes of two add up.")
    model = g.add("SitterLoadModel", 20, 300, 150)
    one = g.add("SitterExamplePictures", 20, 510, 260, example="fox")
    two = g.add("SitterExamplePictures", 20, 830, 260, example="robot")
    fox = g.add("SitterTrainSubject", 400, 20, 600, title="Train [V]", model=model, images=one, class_word=one[1], identifier="[V]",
                method="textual_inversion")
    robot = g.add("SitterTrainSubject", 400, 680, 600, title="Train [W]", model=model, images=two, class_word=two[1], identifier="[W]",
                  method="textual_inversion")
    rows, prompts = {}, {
        "a photo of a [V] fox in the snow": {"subject": fox},
        "a photo of a [W] robot in the snow": {"subject": robot},
        "a photo of a [V] fox and a [W] robot in the snow": {"subject": fox, "subject_2": robot},
    }
    for i, (prompt, subjects) in enumerate(prompts.items()):
        rows[f"results{f'_{i + 1}' if i else ''}"] = g.add(
            "SitterSample", 780, 20 + (SAMPLE + 50) * i, SAMPLE, model=model, prompt=prompt, seed=1, count=4, **subjects,
        )
    sheet = g.add("SitterContactSheet", 1160, 20, 700, cell=144, titles="\n".join(prompts), **rows)
    g.add("SaveImage", 1540, 20, 500, images=sheet, filename_prefix="sitter/two_subjects")
    g.write("3_two_subjects")


def compare_methods() -> None:
    g = Graph()
    g.note(20, 20, 200, "The same four pictures, taught in three ways: the word alone, word and layers together, and first the word, "
           "then layers. The curves show the losses while learning; the rows show one prompt with the same seeds; the scores "
           "say how likely each subject makes the four references (lower is likelier).")
    model = g.add("SitterLoadModel", 20, 280, 150)
    pictures = g.add("SitterExamplePictures", 20, 490, 260, example="dog")
    methods = {"textual_inversion": "Word alone", "dreambooth": "Together", "two_stage": "Two stages"}
    subjects, rows = {}, {}
    for i, (method, title) in enumerate(methods.items()):
        suffix = f"_{i + 1}" if i else ""
        trained = g.add("SitterTrainSubject", 400, 20 + (SAMPLE + 50) * i, SAMPLE, title=title, model=model, images=pictures,
                        class_word=pictures[1], method=method)
        rows["results" + suffix] = g.add(
            "SitterSample", 780, 20 + (SAMPLE + 50) * i, SAMPLE, model=model, subject=trained,
            prompt="a photo of a [V] dog in the snow", seed=1, count=4,
        )
        g.add("SitterScorePicture", 1160, 20 + 260 * i, 200, title=f"Score: {title}", model=model, images=pictures, subject=trained,
              prompt="a photo of a [V] dog")
        subjects["subject" + suffix] = trained
    g.add("SitterLossCurve", 1160, 820, 420, **subjects)
    sheet = g.add("SitterContactSheet", 1540, 20, 700, references=pictures, cell=144,
                  titles="\n".join(["References", *methods.values()]), **rows)
    g.add("SaveImage", 1920, 20, 500, images=sheet, filename_prefix="sitter/compare_methods")
    g.write("4_compare_methods")


def two_scenes(g: Graph, photo: str, pictures: Out, file: str, **drawing: Any) -> None:
    """Two pictures of each scene, on a sheet with the references."""
    rows, prompts = {}, [f"{photo} {scene}" for scene in ("in the snow", "at night")]
    for i, prompt in enumerate(prompts):
        rows[f"results{f'_{i + 1}' if i else ''}"] = g.add(
            "SitterSample", 780, 20 + (SAMPLE + 50) * i, SAMPLE, prompt=prompt, seed=1, count=2, **drawing,
        )
    sheet = g.add("SitterContactSheet", 1160, 20, 700, references=pictures, cell=288, titles="\n".join(["References", *prompts]), **rows)
    g.add("SaveImage", 1540, 20, 700, images=sheet, filename_prefix=file)


def janus_pro() -> None:
    g = Graph()
    g.note(20, 20, 420, "Teaches Janus-Pro 1B one dog from four pictures and draws it in two scenes, 384x384 pixels.\n\n"
           "**Get these files** (4 GB) into `models/sitter/Janus-Pro-1B` and press **R**: `config.json`, `tokenizer.json` and "
           "`pytorch_model.bin` of *deepseek-ai/Janus-Pro-1B*, or `config.json`, `tokenizer.json` and `model.safetensors` of "
           "*deepseek-community/Janus-Pro-1B*, from Hugging Face. Nothing in them is executed. For the 7B all shards and their index; "
           "*q8_0* or *q4_k* need a half or a quarter of the memory of bf16.\n\nThe weights have a licence of their own, the DeepSeek "
           "Model License: its restrictions hold for what you make of them, too.\n\nFor a subject of your own, connect **Load Image** "
           "or any folder loader to *images* and write its class word.")
    model = g.add("SitterLoadModel", 20, 500, 150, model="Janus-Pro-1B", dtype="bf16")
    pictures = g.add("SitterExamplePictures", 20, 710, 260, example="dog")
    # Everything else in it is as recommended.
    low = g.add("SitterTrainingOptions", 20, 1030, 900, title="Training Options: recompute", collapsed=True, recompute="always")
    subject = g.add("SitterTrainSubject", 400, 20, 600, model=model, images=pictures, class_word=pictures[1], options=low,
                    method="lora", embedding_steps=300, layer_steps=100)
    g.add("SitterSaveSubject", 400, 700, 150, subject=subject, filename_prefix="dog_janus")
    two_scenes(g, "a photo of a [V] dog", pictures, "sitter/janus_pro", model=model, subject=subject)
    g.write("5_janus_pro")


def infinity() -> None:
    g = Graph()
    g.note(20, 20, 500, "Teaches Infinity 2B one robot from four pictures by ARBooth and draws it in two scenes, 512x512 pixels. A picture comes scale "
           "after scale, coarse to fine, and Sample shows each.\n\n**Get these files** into `models/sitter/Infinity-2B` and press **R**: "
           "`infinity_2b_reg.pth` and `infinity_vae_d32reg.pth` of *FoundationVision/Infinity*, and in a folder `flan-t5-xl` in there "
           "`config.json`, `tokenizer.json`, `model.safetensors.index.json` and the shards that it names of *google/flan-t5-xl*, from "
           "Hugging Face. Nothing in them is executed.\n\nThe text encoder stays in memory only where there is room; *bf16*, *q8_0* or "
           "*q4_k* hold for it, too. Pictures have the sizes of Infinity's table, from 256x256 to 1024x1024 and other ratios; one that is "
           "none is refused with the nearest two. Which licence the weights have, their pages say.\n\nFor a subject of your own, connect "
           "**Load Image** or any folder loader to *images* and write its class word.")
    model = g.add("SitterLoadModel", 20, 580, 150, model="Infinity-2B", dtype="bf16")
    pictures = g.add("SitterExamplePictures", 20, 790, 260, example="robot")
    # Everything else in it is as recommended.
    small = g.add("SitterTrainingOptions", 20, 1110, 900, title="Training Options: image_size, recompute, batch_size", collapsed=True,
                  image_size=512, recompute="always", batch_size=1)
    subject = g.add("SitterTrainSubject", 400, 20, 600, model=model, images=pictures, class_word=pictures[1], options=small,
                    layer_steps=150)
    g.add("SitterSaveSubject", 400, 700, 150, subject=subject, filename_prefix="robot_infinity")
    two_scenes(g, "a photo of a [V] robot", pictures, "sitter/infinity", model=model, subject=subject, width=512, height=512,
               guidance_by_scale="4, 4, 4, 4, 3")
    g.write("6_infinity")


if __name__ == "__main__":
    for make in (first_picture, teach_a_subject, two_subjects, compare_methods, janus_pro, infinity):
        make()
