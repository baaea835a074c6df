"""The pack in a real ComfyUI, headless on the CPU.

    python bindings/comfyui/tests/real_host.py --comfyui DIR [--only NAME] [--pictures DIR] [--full]

DIR is a source tree of ComfyUI whose requirements this Python has, and `websocket-client`. The package `sitter` is the installed
one, or with SITTER_LIBRARY the one of this repository. `--full` runs the example workflows with their own number of steps.
"""
from __future__ import annotations

import argparse
import glob
import io
import json
import os
import shutil
import sys
import tempfile
import time
import unittest
from typing import Any

import numpy as np
from PIL import Image

from comfy_server import PACK, REPOSITORY, Client, Server, api_graph, nodes

ARGUMENTS = argparse.Namespace()
BASE_MODEL = os.path.join(REPOSITORY, "assets", "embedded")


class HostTest(unittest.TestCase):
    """One server for all tests; they run in the order of their names."""

    server: Server
    client: Client
    info: dict[str, Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.mkdtemp(prefix="sitter-comfyui-")
        cls.server = Server(ARGUMENTS.comfyui, cls.folder).__enter__()
        cls.addClassCleanup(shutil.rmtree, cls.folder, True)
        cls.addClassCleanup(cls.server.__exit__)
        cls.client, cls.info = Client(cls.server), cls.server.get("/object_info")

    # What the tests below are made of

    def workflow(self, name: str, quick: bool = True) -> dict[str, Any]:
        """An example workflow as the editor sends it; quick: a few steps and one picture each."""
        graph = api_graph(self.server.get(f"/api/workflow_templates/sitter/{name}.json"), self.info)
        if quick:
            for number in nodes(graph, "SitterTrainSubject"):
                self.make_quick(graph, number)
            for number in nodes(graph, "SitterSample"):
                graph[number]["inputs"]["count"] = 1
        return graph

    def make_quick(self, graph: dict[str, Any], number: str, steps: int = 2) -> None:
        options = {name: value[1]["default"] for name, value in self.info["SitterTrainingOptions"]["input"]["required"].items()}
        graph["900"] = {"class_type": "SitterTrainingOptions", "inputs": {**options, "augment": 0, "batch_size": 1}}
        method = graph[number]["inputs"]["method"]
        graph[number]["inputs"].update(
            options=["900", 0], embedding_steps=0 if method == "dreambooth" else steps,
            layer_steps=0 if method == "textual_inversion" else steps,
        )

    def choices(self, node: str, field: str) -> list[str]:
        """What the menu of a field offers now: it is computed when it is asked for."""
        info = self.server.get(f"/object_info/{node}")[node]["input"]["required"][field]
        return info[1].get("options", info[0])

    def succeeded(self, graph: dict[str, Any]) -> Any:
        result = self.client.run(graph)
        self.assertEqual(result.end, "execution_success", result.error)
        return result

    def images(self, result: Any, number: str, name: str = "") -> list[np.ndarray]:
        """What an output node made."""
        return self.decoded(self.client.pictures(result, number), name)

    def shown(self, result: Any, name: str) -> list[np.ndarray]:
        """What nodes showed while they worked."""
        return self.decoded(result.previews, name)

    def decoded(self, encoded: list[bytes], name: str) -> list[np.ndarray]:
        found = []
        for i, data in enumerate(encoded):
            if ARGUMENTS.pictures and name:
                os.makedirs(ARGUMENTS.pictures, exist_ok=True)
                Image.open(io.BytesIO(data)).save(os.path.join(ARGUMENTS.pictures, f"{name}{i or ''}.png"))
            found.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        return found

    # The pack

    def test_01_the_pack_is_imported_listed_and_documented(self) -> None:
        # Core's own extras may fail, for want of packages; that is not ours to say.
        ours = [line for line in self.server.log().splitlines() if "sitter" in line.replace(self.folder, "")]
        self.assertFalse([line for line in ours if "FAILED" in line or "Cannot import" in line], ours)
        ours = {name for name, node in self.info.items() if node["category"] == "Sitter"}
        self.assertEqual(len(ours), 13, sorted(ours))
        for name in ours:
            self.assertEqual(self.info[name]["python_module"], "custom_nodes.sitter")
            self.assertIn(b"## Inputs", self.server.raw(f"/extensions/sitter/docs/{name}.md"))
        templates = self.server.get("/api/workflow_templates")["sitter"]
        self.assertEqual(len(templates), len(glob.glob(os.path.join(PACK, "example_workflows", "*.json"))))

    def test_02_first_picture_runs_shows_progress_and_is_cached(self) -> None:
        graph = self.workflow("1_first_picture", quick=not ARGUMENTS.full)
        (sample,), (preview,) = nodes(graph, "SitterSample"), nodes(graph, "PreviewImage")
        # Enough to do that it can be watched.
        graph[sample]["inputs"]["count"] = 32
        result = self.succeeded(graph)
        drawn = self.images(result, preview, "first_picture")
        self.assertEqual([one.shape for one in drawn], [(128, 128, 3)] * graph[sample]["inputs"]["count"])
        self.assertTrue(all(one.std() > 15 for one in drawn), "the pictures are empty")
        self.assertGreater(len({x["value"] for x in result.of("progress") if x["node"] == sample}), 5)
        self.assertTrue(any(node == sample and text.startswith("drawing ") for node, text in result.texts), result.texts)
        # Upper rows are drawn, lower ones still grey.
        grown = [one for one in self.shown(result, "growing") if one[:8].std() > 5 and one[-8:].std() < 3 and abs(one[-8:].mean() - 128) < 3]
        self.assertTrue(grown, f"no growing picture among {len(result.previews)}")

        again = self.succeeded(graph)
        self.assertEqual((again.ran, again.of("progress")), ([], []))
        graph[sample]["inputs"]["seed"] = 2
        other = self.succeeded(graph)
        self.assertEqual(set(other.ran), {sample, preview})
        self.assertFalse(np.array_equal(self.images(other, preview)[0], drawn[0]))

    def test_03_teaching_shows_losses_and_a_curve_saves_and_is_not_done_twice(self) -> None:
        graph = self.workflow("2_teach_a_subject", quick=not ARGUMENTS.full)
        (train,), (save,), (curve,) = (nodes(graph, f"Sitter{x}") for x in ("TrainSubject", "SaveSubject", "LossCurve"))
        if not ARGUMENTS.full:
            self.make_quick(graph, train, steps=6)
            graph["900"]["inputs"]["sample_every"] = 3
        (sheet,) = nodes(graph, "SaveImage")
        result = self.succeeded(graph)
        texts = [text for node, text in result.texts if node == train]
        self.assertTrue(any("loss" in text and text.startswith("training layers") for text in texts), texts)
        shapes = {one.shape for one in self.shown(result, "learning")}
        self.assertIn((320, 512, 3), shapes, "no growing curve came")
        # Below the curve; pictures that Sample draws are square.
        self.assertTrue(any(320 < height < 512 for height, _, _ in shapes), f"no sample came: {shapes}")
        self.assertGreater(self.images(result, sheet, "teach")[0].shape[0], 500)
        self.assertEqual(self.images(result, curve, "curve")[0].shape, (480, 800, 3))
        files = os.listdir(os.path.join(self.folder, "models", "sitter_subjects"))
        self.assertEqual(files, ["fox_00001.safetensors"])

        again = self.succeeded(graph)
        self.assertEqual(again.ran, [])
        graph[nodes(graph, "SitterSample")[0]]["inputs"]["seed"] = 77
        self.assertNotIn(train, self.succeeded(graph).ran)
        if ARGUMENTS.full:
            return
        graph[nodes(graph, "SitterExamplePictures")[0]]["inputs"]["example"] = "dog"
        self.assertIn(train, self.succeeded(graph).ran)

    def test_04_a_saved_subject_is_loaded_and_described(self) -> None:
        choices = self.choices("SitterLoadSubject", "file")
        self.assertIn("fox_00001.safetensors", choices)
        graph = {
            "1": {"class_type": "SitterLoadSubject", "inputs": {"file": "fox_00001.safetensors"}},
            "2": {"class_type": "SitterSubjectInfo", "inputs": {"subject": ["1", 0]}},
            "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
        }
        result = self.succeeded(graph)
        told = json.loads(result.outputs["3"]["text"][0])
        self.assertEqual((told["identifier"], told["class_word"]), ("[V]", "fox"))
        path = os.path.join(self.folder, "models", "sitter_subjects", "fox_00001.safetensors")
        os.utime(path, (1, 1))
        self.assertIn("1", self.succeeded(graph).ran, "a changed file has to be read again")

    def test_05_two_subjects_and_three_methods(self) -> None:
        for name in ("3_two_subjects", "4_compare_methods"):
            graph = self.workflow(name, quick=not ARGUMENTS.full)
            result = self.succeeded(graph)
            for number in nodes(graph, "SaveImage"):
                self.images(result, number, name)
            for number in nodes(graph, "SitterLossCurve"):
                self.images(result, number, name + "_curve")
            for number in nodes(graph, "SitterScorePicture"):
                self.assertRegex(result.outputs[number]["text"][0], r"^\d+\.\d{3} nats \(")

    def test_06_core_nodes_on_both_ends(self) -> None:
        """LoadImage and a folder loader in, mixed sizes and lists, LossGraphNode out, encode and decode between; with
        every model that the library has inside."""
        target = os.path.join(self.folder, "input", "fox")
        shutil.copytree(os.path.join(PACK, "pictures", "fox"), target)
        Image.open(os.path.join(target, "1.png")).resize((150, 110)).save(os.path.join(self.folder, "input", "large.png"))
        # Its menu of folders is computed when it is asked for.
        self.info["LoadImageSetFromFolderNode"] = self.server.get("/object_info/LoadImageSetFromFolderNode")["LoadImageSetFromFolderNode"]
        graph = {
            "1": {"class_type": "SitterLoadModel", "inputs": {"model": "embedded:", "device": "auto", "dtype": "auto", "threads": 0}},
            "2": {"class_type": "LoadImageSetFromFolderNode", "inputs": {"folder": "fox", "resize_method": "None"}},
            "3": {"class_type": "SitterTrainSubject", "inputs": {
                "model": ["1", 0], "images": ["2", 0], "class_word": "fox", "identifier": "[V]", "method": "lora", "seed": 0,
                "on_stop": "discard"}},
            "4": {"class_type": "LossGraphNode", "inputs": {"loss": ["3", 1], "filename_prefix": "loss"}},
            "5": {"class_type": "LoadImage", "inputs": {"image": "large.png"}},
            "6": {"class_type": "SitterEncodePicture", "inputs": {"model": ["1", 0], "images": ["5", 0], "size": 0}},
            "7": {"class_type": "SitterDecodeTokens", "inputs": {"model": ["1", 0], "tokens": ["6", 0]}},
            "8": {"class_type": "ImageScale", "inputs": {
                "image": ["7", 0], "upscale_method": "lanczos", "width": 192, "height": 192, "crop": "disabled"}},
            "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}},
            "10": {"class_type": "SitterContactSheet", "inputs": {
                "references": ["5", 0], "results": ["7", 0], "titles": "Picture\nAs the model sees it", "cell": 160, "columns": 8}},
        }
        self.make_quick(graph, "3", steps=1)
        inside = [model for model in self.choices("SitterLoadModel", "model") if model.startswith("embedded:")]
        self.assertIn("embedded:", inside)
        for model in inside:
            graph["1"]["inputs"]["model"] = model
            result = self.succeeded(graph)
            name = model.replace("embedded:", "")
            self.assertEqual(len(self.images(result, "4", f"core_loss_graph{name}")), 1)
            self.assertEqual(self.images(result, "9")[0].shape, (192, 192, 3))
            self.images(result, "10", f"encode_decode{name}")

    def test_07_errors_name_the_field_and_what_to_change(self) -> None:
        graph = self.workflow("2_teach_a_subject")
        (train,), (save,) = nodes(graph, "SitterTrainSubject"), nodes(graph, "SitterSaveSubject")
        cases = [
            (train, {"class_word": ""}, r"^class_word: is empty"),
            (train, {"identifier": "two words"}, r"^identifier: "),
            (save, {"filename_prefix": "../../x"}, r"^filename_prefix: .*leads out|^filename_prefix: .*no name"),
            (nodes(graph, "SitterSample")[0], {"width": 97}, r"^width: 97 is not"),
        ]
        for number, change, wanted in cases:
            changed = json.loads(json.dumps(graph))
            changed[number]["inputs"].update(change)
            with self.subTest(change=change):
                result = self.client.run(changed)
                self.assertEqual(result.end, "execution_error")
                self.assertRegex(result.error, wanted)
        graph[nodes(graph, "SitterLoadModel")[0]]["inputs"]["model"] = "../../etc"
        # Core lets any text through that a workflow names for a menu.
        self.assertRegex(self.client.run(graph).error, r"^model: '../../etc' is not there; there are: embedded:")
        self.assertFalse(os.path.exists(os.path.join(os.path.dirname(self.folder), "x_00001.safetensors")))

    # Stop

    def stopped(self, graph: dict[str, Any], when: Any, name: str) -> None:
        result = self.client.run(graph, when)
        self.assertEqual(result.end, "execution_interrupted", f"{name}: {result.error}")
        print(f"Stop while {name}: {result.stopped_after:.2f} s", file=sys.stderr)
        self.assertLess(result.stopped_after, 1.0, name)

    def test_08_stop_while_training_and_sampling_and_the_next_queue_works(self) -> None:
        graph = self.workflow("2_teach_a_subject")
        (train,) = nodes(graph, "SitterTrainSubject")
        graph[train]["inputs"].update(embedding_steps=400, seed=5)
        self.stopped(graph, lambda r: any(t.startswith("learning the word") for n, t in r.texts if n == train), "training")
        graph[train]["inputs"].update(embedding_steps=1)
        sample = nodes(graph, "SitterSample")[0]
        graph[sample]["inputs"]["count"] = 8
        # Train Subject draws too: pictures of the class.
        self.stopped(graph, lambda r: any(t.startswith("drawing") for n, t in r.texts if n != train), "sampling")
        graph[sample]["inputs"]["count"] = 1
        self.assertNotIn(train, self.succeeded(graph).ran, "the finished training is in the cache")

    def test_09_stop_with_keep_goes_on_with_the_subject_so_far(self) -> None:
        graph = self.workflow("2_teach_a_subject")
        (train,) = nodes(graph, "SitterTrainSubject")
        graph[train]["inputs"].update(embedding_steps=400, seed=6, on_stop="keep")
        self.stopped(graph, lambda r: any("loss" in t for n, t in r.texts if n == train), "training, to keep")
        result = self.succeeded(graph)
        self.assertNotIn(train, result.ran)
        (info,) = nodes(graph, "SitterSubjectInfo")
        steps = int(result.outputs[info]["text"][0].split(", ")[1].split()[0])
        self.assertTrue(0 < steps < 400, steps)

    def large_model(self, layers: int = 24) -> str:
        """A folder with gigabytes of zeros (a sparse file) for a model, beside the tokenizers of the embedded one."""
        folder = os.path.join(self.folder, "models", "sitter", "large")
        shutil.copytree(BASE_MODEL, folder, dirs_exist_ok=True)
        config_path, weights = os.path.join(folder, "config.json"), os.path.join(folder, "model.safetensors")
        with open(weights, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        with open(config_path) as file:
            config = json.load(file)
        scale, small = 6, config["hidden_size"]
        sizes = {small: small * scale, config["intermediate_size"]: config["intermediate_size"] * scale}
        config.update(hidden_size=small * scale, intermediate_size=config["intermediate_size"] * scale, num_hidden_layers=layers,
                      num_attention_heads=config["num_attention_heads"] * scale, num_key_value_heads=config["num_key_value_heads"] * scale)
        tensors, end = {}, 0
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            copies = [name.replace("layers.0.", f"layers.{k}.") for k in range(layers)] if "layers.0." in name else [name]
            if "layers." in name and "layers.0." not in name:
                continue
            shape = [sizes.get(side, side) for side in tensor["shape"]]
            for copy in copies:
                size = int(np.prod(shape)) * 2
                tensors[copy] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
                end += size
        text = json.dumps(tensors).encode()
        with open(weights, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
        with open(config_path, "w") as file:
            json.dump(config, file)
        return "large"

    def test_10_stop_while_loading_then_two_models_in_turn_without_a_leak(self) -> None:
        name = self.large_model()
        small = self.workflow("1_first_picture")
        (load,) = nodes(small, "SitterLoadModel")
        large = json.loads(json.dumps(small))
        large[load]["inputs"].update(model=name, dtype="f32")
        # An output node right behind the model, so that nothing is drawn with gigabytes of zeros.
        for number in [n for n in large if n != load]:
            del large[number]
        large["100"] = {"class_type": "PreviewAny", "inputs": {"source": [load, 0]}}
        self.stopped(large, lambda r: any(t.startswith("reading the model") for _, t in r.texts), "loading")
        self.succeeded(small)
        before, rounds = self.server.memory(), []
        for _ in range(3):
            self.succeeded(large)
            with_large = self.server.memory()
            small[nodes(small, "SitterSample")[0]]["inputs"]["seed"] += 1
            self.succeeded(small)
            rounds.append((with_large, self.server.memory()))
        print(f"memory before, with the large model, and after it, MiB: {before >> 20},", [(x >> 20, y >> 20) for x, y in rounds],
              file=sys.stderr)
        for with_large, after in rounds:
            self.assertGreater(with_large - before, 1 << 30)
            self.assertLess(after - before, 200 << 20)

    def test_11_unload_models_and_free_take_our_model_out_of_memory(self) -> None:
        graph = self.workflow("1_first_picture")
        (load,), (sample,) = nodes(graph, "SitterLoadModel"), nodes(graph, "SitterSample")
        self.succeeded(graph)
        told = self.server.log().count("left memory")
        self.server.post("/free", {"unload_models": True})
        self.wait_for(lambda: self.server.log().count("left memory") > told)
        graph[sample]["inputs"]["seed"] = 4711
        result = self.succeeded(graph)
        self.assertNotIn(load, result.ran, "Load Model is cached; the next node opens the model again")
        self.server.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(1.5)
        self.assertIn(load, self.succeeded(graph).ran)

    def wait_for(self, done: Any) -> None:
        deadline = time.monotonic() + 10
        while not done():
            self.assertLess(time.monotonic(), deadline, "waited for too long")
            time.sleep(0.1)

    def test_12_janus_pro_says_which_folder_is_missing_and_runs_when_it_is_there(self) -> None:
        graph = self.workflow("5_janus_pro")
        (load,), (save,), (sheet,) = (nodes(graph, kind) for kind in ("SitterLoadModel", "SitterSaveSubject", "SaveImage"))
        self.assertRegex(self.client.run(graph).error, r"^model: 'Janus-Pro-1B' is not there; there are: embedded:")
        # A small random model in the form of the authors' release.
        folder = os.path.join(self.folder, "models", "sitter", "Janus-Pro-1B")
        os.makedirs(folder)
        for source, name in (("original.json", "config.json"), ("tokenizer.json",) * 2, ("pytorch_model.bin",) * 2):
            shutil.copy(os.path.join(REPOSITORY, "tests", "golden", "janus", source), os.path.join(folder, name))
        self.assertIn("Janus-Pro-1B", self.choices("SitterLoadModel", "model"))
        graph["901"] = {"class_type": "SitterSubjectInfo", "inputs": {"subject": graph[save]["inputs"]["subject"]}}
        graph["902"] = {"class_type": "PreviewAny", "inputs": {"source": ["901", 0]}}
        result = self.succeeded(graph)
        self.assertTrue(any(node == load and text.endswith("cpu bf16") for node, text in result.texts), result.texts)
        self.assertGreater(self.images(result, sheet, "5_janus_pro")[0].shape[0], 500)
        self.assertIn("dog_janus_00001.safetensors", os.listdir(os.path.join(self.folder, "models", "sitter_subjects")))
        self.assertIn("DeepSeek Model License", json.loads(result.outputs["902"]["text"][0])["licence"])

    def test_13_infinity_says_which_folder_is_missing_and_runs_when_it_is_there(self) -> None:
        graph = self.workflow("6_infinity")
        (load,), (train,), (sheet,) = (nodes(graph, kind) for kind in ("SitterLoadModel", "SitterTrainSubject", "SaveImage"))
        self.assertRegex(self.client.run(graph).error, r"^model: 'Infinity-2B' is not there; there are: ")
        # A tiny model with its parts as they are published; its pictures have a quarter of the pixels along a side.
        folder = os.path.join(self.folder, "models", "sitter", "Infinity-2B")
        shutil.copytree(os.path.join(REPOSITORY, "tests", "golden", "infinity"), folder)
        for node in [*nodes(graph, "SitterSample"), *nodes(graph, "SitterTrainingOptions")]:
            graph[node]["inputs"].update(
                {name: 128 for name in ("width", "height", "image_size") if name in graph[node]["inputs"]}
            )
        graph["901"] = {"class_type": "SitterSubjectInfo", "inputs": {"subject": [train, 0]}}
        graph["902"] = {"class_type": "PreviewAny", "inputs": {"source": ["901", 0]}}
        result = self.succeeded(graph)
        self.assertTrue(any(node == load and text.endswith("cpu bf16") for node, text in result.texts), result.texts)
        self.assertGreater(self.images(result, sheet, "6_infinity")[0].shape[0], 500)
        self.assertEqual(json.loads(result.outputs["902"]["text"][0])["method"], "arbooth")

    def test_14_nothing_went_wrong_in_the_log(self) -> None:
        log = self.server.log()
        for word in ("Exception ignored", "memory leak", "does not count the model"):
            self.assertNotIn(word, log)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", default=os.environ.get("COMFYUI_DIR"), required="COMFYUI_DIR" not in os.environ)
    parser.add_argument("--only", action="append", default=[], help="a part of test names; may be given several times")
    parser.add_argument("--pictures", default="", help="a folder for the pictures that were made")
    parser.add_argument("--full", action="store_true", help="the example workflows with their own steps")
    parser.parse_args(namespace=ARGUMENTS)
    names = [sys.argv[0], "-v", *(word for part in ARGUMENTS.only for word in ("-k", part))]
    unittest.main(argv=names)
