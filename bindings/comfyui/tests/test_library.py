"""The nodes' side of a call with the real library, where it was built; ComfyUI is a stand-in."""
import os
import pickle
import shutil
import tempfile
import threading
import time
import unittest
import weakref

from . import REPOSITORY, library as _  # noqa: F401

import numpy as np  # noqa: E402
from comfy import model_management  # noqa: E402
from sitter.options import Options  # noqa: E402
from sitter_nodes import host, memory, nodes_picture, options, places  # noqa: E402
from sitter_nodes.messages import NodeError  # noqa: E402
from sitter_nodes.watch import Watch  # noqa: E402
from sitter_nodes.wires import ModelWire, library, subjects_of  # noqa: E402

PICTURE = np.full((96, 96, 3), 0.5, np.float32)


def slow(**settings):
    """A fake model that takes four seconds for everything."""
    words = ",".join(f"{k}={v}" for k, v in {"steps": 100, "step_ms": 40, **settings}.items())
    return ModelWire(f"fake:{words}", "cpu", "auto", 1)


class StopTest(unittest.TestCase):
    def setUp(self):
        self.node = host.Node("7")
        model_management.interrupt_current_processing(False)

    def stopped_after(self, work):
        """Presses Stop during a call; how long it took."""
        pressed = []

        def press():
            pressed.append(time.monotonic())
            model_management.interrupt_current_processing(True)

        timer = threading.Timer(0.3, press)
        timer.start()
        with self.assertRaises(model_management.InterruptProcessingException):
            work()
        timer.join()
        self.assertFalse(model_management.processing_interrupted(), "the flag stays for the next prompt")
        return time.monotonic() - pressed[0]

    def test_stop_while_loading_training_sampling_and_scoring_comes_within_a_second(self):
        wire = slow()
        tokens = library().Tokens(np.zeros((4, 4), int))
        verbs = {
            "load": lambda: self.node.watched(lambda w: memory.opened(slow(open=1), w)),
            "train": lambda: self.node.watched(lambda w: memory.opened(wire, w).train([PICTURE], "dog", progress=w)),
            "sample": lambda: self.node.watched(lambda w: memory.opened(wire, w).sample("a dog", progress=w)),
            "score": lambda: self.node.watched(lambda w: memory.opened(wire, w).score("a dog", [tokens], progress=w)),
        }
        for name, work in verbs.items():
            with self.subTest(verb=name):
                self.assertLess(self.stopped_after(work), 1.0)
        # The model is as good as new.
        self.assertEqual(len(memory.opened(ModelWire("fake:steps=1", "cpu", "auto", 1), Watch(self.node)).sample("a dog")), 1)

    def test_keep_gives_the_subject_so_far_and_leaves_the_flag_for_comfyui(self):
        wire, run = slow(), library().Run()
        watch = Watch(self.node, run.finish_early)
        threading.Timer(0.3, model_management.interrupt_current_processing, [True]).start()
        began = time.monotonic()
        subject = self.node.watched(lambda w: memory.opened(wire, w).train([PICTURE], "dog", progress=w, run=run), watch)
        self.assertTrue(watch.kept and model_management.processing_interrupted())
        # Of the four seconds that the training takes.
        self.assertLess(time.monotonic() - began, 2.0)
        self.assertEqual(subject.info["class_word"], "dog")

    def test_stop_before_a_call_makes_no_call(self):
        model_management.interrupt_current_processing(True)
        with self.assertRaises(model_management.InterruptProcessingException):
            self.node.watched(lambda w: self.fail("called"))


class MemoryTest(unittest.TestCase):
    def test_a_model_that_comfyui_unloaded_is_opened_again_by_the_next_node(self):
        wire, watch = ModelWire("fake:steps=1", "cpu", "auto", 1), Watch(host.Node("7"))
        memory.opened(wire, watch)
        patcher = memory._patchers[wire]
        self.assertGreater(patcher.loaded_size(), 0)
        patcher.detach()
        self.assertEqual((wire.loaded, patcher.loaded_size()), (False, 0))
        memory.opened(wire, watch).sample("a dog")
        self.assertTrue(wire.loaded)

    def test_nothing_of_a_model_stays_when_its_wire_is_gone(self):
        wire = ModelWire("fake:steps=1", "cpu", "auto", 1)
        memory.opened(wire, Watch(host.Node("7")))
        before, model = len(memory._patchers), weakref.ref(wire._model)
        del wire
        self.assertEqual((len(memory._patchers), model()), (before - 1, None))


class SubjectsTest(unittest.TestCase):
    def test_two_subjects_with_one_identifier_name_the_second_input(self):
        model = ModelWire("fake:steps=1", "cpu", "auto", 1).open()
        one, two = (model.train([PICTURE], "dog", identifier=name) for name in ("[V]", "[W]"))
        self.assertEqual(subjects_of(one, None, two), [one, two])
        with self.assertRaisesRegex(NodeError, "^subject_3: its identifier .V. is that of subject"):
            subjects_of(one, None, one)


class StrangerTest(unittest.TestCase):
    def test_a_pickle_in_a_model_folder_executes_nothing(self):
        class Evil:
            def __reduce__(self):
                return open, (os.path.join(self.folder, "owned"), "w")

        with tempfile.TemporaryDirectory() as folder:
            model = os.path.join(folder, "model")
            shutil.copytree(os.path.join(REPOSITORY, "assets", "embedded"), model)
            os.remove(os.path.join(model, "vqgan.safetensors"))
            Evil.folder = folder
            with open(os.path.join(model, "vqgan.ckpt"), "wb") as file:
                pickle.dump({"state_dict": Evil()}, file, protocol=2)
            wire = ModelWire(places.model_path("model", [folder]), "cpu", "auto", 1)
            with self.assertRaises(NodeError):
                host.Node("7").watched(lambda w: memory.opened(wire, w), field="model")
            self.assertFalse(os.path.exists(os.path.join(folder, "owned")))


class HelpTest(unittest.TestCase):
    """The values that tooltips call recommended are those of the library."""

    def test_the_defaults_of_training(self):
        embedded = ModelWire("embedded:", "cpu", "auto", 1).open().train_options()
        for option in options.STEPS + options.OPTIONS:
            if option.kind != "text":
                with self.subTest(option=option.name):
                    self.check(option, Options("train", None, b"two_stage").as_dict(), embedded)

    def test_the_defaults_of_drawing(self):
        embedded = ModelWire("embedded:", "cpu", "auto", 1).open().sample_options()
        scales = ModelWire(os.path.join(REPOSITORY, "tests", "golden", "infinity"), "cpu", "auto", 1).open().sample_options()
        for option in nodes_picture.DRAWING:
            with self.subTest(option=option.name):
                if option.defaults.startswith("Infinity: "):
                    self.assertAlmostEqual(float(option.defaults.split(": ")[1]), scales[option.name])
                elif option.kind == "text":
                    self.assertEqual((option.defaults, scales[option.name]), ("none", []))
                else:
                    self.check(option, Options("sample", None).as_dict(), embedded)

    def check(self, option, large, embedded):
        """`7B: 4; embedded: 1`, or one value for both; exceptions of a method follow after a comma or a semicolon."""
        told = {}
        for part in option.defaults.split(";"):
            model, _, value = part.strip().rpartition(": ")
            if model in ("7B", "embedded", ""):
                told[model] = value.split(",")[0].strip()
        for model, values in (("7B", large), ("embedded", embedded)):
            value, said = values[option.name], told.get(model, told.get(""))
            if isinstance(value, bool):
                self.assertEqual(said, "yes" if value else "no", model)
            elif isinstance(value, str):
                self.assertEqual(said, value, model)
            else:
                self.assertAlmostEqual(float(said), value, msg=model)
