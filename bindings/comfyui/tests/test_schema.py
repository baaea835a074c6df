"""What the nodes look like to ComfyUI, and that their pages and workflows agree with it. ComfyUI is a stand-in here."""
import asyncio
import glob
import json
import os
import unittest

from . import PACK, need

need("numpy", "PIL")

from sitter_nodes import extension  # noqa: E402
from sitter_nodes.nodes_model import LoadModel  # noqa: E402
from sitter_nodes.nodes_subject import LoadSubject  # noqa: E402
from sitter_nodes.nodes_train import TrainSubject, loss_map  # noqa: E402

# Saved workflows name these. Never rename or remove one.
IDS = {
    "SitterLoadModel", "SitterExamplePictures", "SitterTrainSubject", "SitterTrainingOptions", "SitterSample",
    "SitterDecodeTokens", "SitterEncodePicture", "SitterScorePicture", "SitterLoadSubject", "SitterSaveSubject",
    "SitterSubjectInfo", "SitterLossCurve", "SitterContactSheet",
}


def schemas():
    nodes = asyncio.run(asyncio.run(extension.comfy_entrypoint()).get_node_list())
    return {schema.node_id: schema for schema in (node.define_schema() for node in nodes)}


class SchemaTest(unittest.TestCase):
    def test_ids_are_the_frozen_ones(self):
        self.assertEqual(set(schemas()), IDS)

    def test_every_input_and_output_has_a_tooltip_and_every_node_a_description(self):
        for schema in schemas().values():
            self.assertTrue(schema.description and schema.category == "Sitter" and schema.display_name.startswith("Sitter: "))
            for slot in [*schema.inputs, *schema.outputs]:
                self.assertTrue(slot.tooltip, f"{schema.node_id}.{slot.id}")

    def test_every_default_lies_within_its_widget(self):
        for schema in schemas().values():
            for slot in filter(lambda s: s.widget and s.id != "file", schema.inputs):
                default, name = slot.given["default"], f"{schema.node_id}.{slot.id}"
                if slot.options is not None:
                    self.assertIn(default, slot.options, name)
                elif "min" in slot.given:
                    self.assertTrue(slot.given["min"] <= default <= slot.given["max"], name)

    def test_every_node_has_a_help_page_with_every_input_as_its_tooltip_says_it(self):
        for schema in schemas().values():
            with open(os.path.join(PACK, "web", "docs", schema.node_id + ".md"), encoding="utf-8") as file:
                page = file.read()
            for slot in schema.inputs:
                kind = slot.io_type + (", optional" if slot.optional else "")
                self.assertIn(f"| `{slot.id}` | {kind} | {slot.tooltip} |\n", page, schema.node_id)

    def test_fingerprints_do_not_raise_for_linked_inputs_and_strange_names(self):
        for name in (None, "../x", "embedded:", 7):
            LoadModel.fingerprint_inputs(model=name, device=None)
            LoadSubject.fingerprint_inputs(file=name)

    def test_a_training_seed_does_not_change_by_itself(self):
        seed = next(slot for slot in TrainSubject.define_schema().inputs if slot.id == "seed")
        self.assertIs(seed.given["control_after_generate"], False)

    def test_any_losses_can_be_drawn_by_the_loss_graph_of_core(self):
        for losses in ([], [1.0], [2.0, 2.0], [3.0, 1.0]):
            values = loss_map(losses)
            self.assertTrue(len(values) > 1 and max(values) > min(values), losses)


class WorkflowTest(unittest.TestCase):
    def workflows(self):
        for path in sorted(glob.glob(os.path.join(PACK, "example_workflows", "*.json"))):
            with open(path, encoding="utf-8") as file:
                yield os.path.basename(path), json.load(file)

    def test_there_are_the_six(self):
        self.assertEqual(
            [name for name, _ in self.workflows()],
            ["1_first_picture.json", "2_teach_a_subject.json", "3_two_subjects.json", "4_compare_methods.json",
             "5_janus_pro.json", "6_infinity.json"],
        )

    def test_each_has_a_small_thumbnail_for_the_template_browser(self):
        for name, _ in self.workflows():
            path = os.path.join(PACK, "example_workflows", name.replace(".json", ".jpg"))
            with open(path, "rb") as file:
                self.assertEqual(file.read(3), b"\xff\xd8\xff", name)
            self.assertLess(os.path.getsize(path), 100_000, name)

    def test_widgets_and_links_fit_the_schemas(self):
        known = schemas()
        for name, workflow in self.workflows():
            types = {}
            for node in workflow["nodes"]:
                for slot, output in enumerate(node.get("outputs", [])):
                    types[node["id"], slot] = output["type"]
                if node["type"] not in known:
                    continue
                schema, where = known[node["type"]], f"{name} {node['type']}"
                widgets = sum(1 + bool(s.given.get("control_after_generate")) for s in schema.inputs if s.widget)
                self.assertEqual(len(node.get("widgets_values", [])), widgets, where)
                self.assertEqual([o["type"] for o in node["outputs"]], [o.io_type for o in schema.outputs], where)
                kinds = {s.id: s.io_type for s in schema.inputs}
                for socket in node["inputs"]:
                    self.assertEqual(kinds[socket["name"]], socket["type"], where)
            by_id = {node["id"]: node for node in workflow["nodes"]}
            for link, source, slot, target, entry, kind in workflow["links"]:
                self.assertEqual(types[source, slot], kind, name)
                self.assertEqual(by_id[target]["inputs"][entry]["link"], link, name)

    def test_what_needs_a_download_says_which_files(self):
        files = {
            "5_janus_pro.json": ("config.json", "tokenizer.json", "pytorch_model.bin", "model.safetensors", "License"),
            "6_infinity.json": ("config.json", "tokenizer.json", "infinity_2b_reg.pth", "infinity_vae_d32reg.pth", "flan-t5-xl", "licence"),
        }
        for name, words in files.items():
            workflow = dict(self.workflows())[name]
            nodes = {node["type"]: node for node in workflow["nodes"]}
            said = nodes["MarkdownNote"]["widgets_values"][0]
            self.assertIn("models/sitter/" + nodes["SitterLoadModel"]["widgets_values"][0], said)
            for word in words:
                self.assertIn(word, said)

    def test_nothing_else_needs_a_download_or_a_file(self):
        for name, workflow in self.workflows():
            if name in ("5_janus_pro.json", "6_infinity.json"):
                continue
            for node in workflow["nodes"]:
                self.assertNotIn(node["type"], {"LoadImage", "SitterLoadSubject"}, name)
                if node["type"] == "SitterLoadModel":
                    self.assertEqual(node["widgets_values"][0], "embedded:", name)
