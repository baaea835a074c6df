"""Every node does its work, with the fake model of the library and a stand-in for ComfyUI."""
import json
import os
import unittest

from . import REPOSITORY, library as _  # noqa: F401

import numpy as np  # noqa: E402
import folder_paths  # noqa: E402
from comfy import model_management  # noqa: E402
from comfy.utils import ProgressBar  # noqa: E402
from server import PromptServer  # noqa: E402
from sitter_nodes import host, nodes_model, nodes_picture, nodes_sheet, nodes_subject, nodes_train, options  # noqa: E402
from sitter_nodes.messages import NodeError  # noqa: E402
from sitter_nodes.wires import ModelWire  # noqa: E402

DRAWING = {option.name: option.unset for option in nodes_picture.DRAWING}
host.register_folders()


def pictures(count=1, height=16, width=24):
    return np.random.default_rng(count).random((count, height, width, 3), np.float32)


def train(model, images, identifier="[V]", **changed):
    given = dict(class_word="dog", identifier=identifier, method="two_stage", embedding_steps=-1, layer_steps=-1, seed=3, on_stop="discard")
    given.update(changed)
    lists = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
    return nodes_train.TrainSubject.execute(model=[model], images=images, **lists).args


class NodesTest(unittest.TestCase):
    def setUp(self):
        model_management.interrupt_current_processing(False)
        ProgressBar.shown.clear()
        PromptServer.instance.texts.clear()
        self.model = ModelWire("fake:steps=3", "cpu", "auto", 1)

    def test_load_model_opens_the_embedded_model_and_says_what_it_is(self):
        (wire,) = nodes_model.LoadModel.execute("embedded:", "auto", "auto", 1).args
        self.assertTrue(wire.loaded)
        self.assertRegex(PromptServer.instance.texts[-1][1], r"^embedded:, 8 M, cpu f32$")

    def test_load_model_takes_nothing_that_is_not_listed(self):
        for name in ("fake:steps=3", "../x", "/etc"):
            with self.assertRaisesRegex(NodeError, "^model: "):
                nodes_model.LoadModel.execute(name, "auto", "auto", 1)

    def test_a_list_with_batches_of_two_sizes_is_learned_in_any_order(self):
        subject, losses, steps = train(self.model, [pictures(2), pictures(1, 32, 16)])
        self.assertEqual((subject.info["class_word"], steps, len(losses["loss"])), ("dog", 3, 3))
        self.assertIn((3, 3), [shown[:2] for shown in ProgressBar.shown])
        self.assertRegex(PromptServer.instance.texts[-1][1], "^learned after 3 steps, loss")

    def test_options_and_captions_reach_the_library(self):
        (chosen,) = nodes_train.TrainingOptions.execute(
            **{option.name: option.unset for option in options.OPTIONS} | {"dropout": 7.0}).args
        with self.assertRaisesRegex(NodeError, "^dropout: "):
            train(self.model, [pictures()], options=[chosen])
        with self.assertRaisesRegex(NodeError, "^captions: 2 for 3 pictures"):
            train(self.model, [pictures(3)], captions=["a [V]", "b [V]"])
        train(self.model, [pictures(2)], captions=["a [V]", "b [V]"])

    def test_checkpoints_lie_in_the_output_folder_under_a_name_of_their_own(self):
        keys = set()
        for seed in (1, 2):
            settings = {"seed": seed, "checkpoint_every": 5}
            keys.add(host.checkpoint(nodes_train._key(self.model, [pictures()[0]], settings)))
        self.assertEqual(len(keys), 2)
        self.assertTrue(all(key.startswith(folder_paths.get_output_directory() + os.sep) for key in keys))
        train(self.model, [pictures()], options=[{"checkpoint_every": 2}])

    def test_sample_gives_a_batch_and_tokens_that_decode_to_it(self):
        subject = train(self.model, pictures())[0]
        images, tokens = nodes_picture.Sample.execute(
            self.model, "a [V] dog", 5, 2, subject=subject, **{**DRAWING, "width": 32, "height": 16}).args
        self.assertEqual((images.shape[0], images.shape[3], images.dtype), (2, 3, np.float32))
        self.assertTrue(0 <= images.min() and images.max() <= 1)
        (again,) = nodes_picture.DecodeTokens.execute(self.model, tokens).args
        np.testing.assert_array_equal(images, again)

    def test_sample_tells_of_a_subject_that_the_prompt_does_not_name(self):
        subject = train(self.model, pictures())[0]
        nodes_picture.Sample.execute(self.model, "a dog", 5, 1, subject=subject, **{**DRAWING, "width": 16, "height": 16})
        self.assertEqual(PromptServer.instance.texts[-1][1], "the prompt does not name [V]")

    def test_a_model_that_draws_scale_after_scale_draws_encodes_and_scores(self):
        model = ModelWire(os.path.join(REPOSITORY, "tests", "golden", "infinity"), "cpu", "auto", 1)
        lists = {**DRAWING, "guidance_by_scale": "4, 3", "temperature_by_scale": "1, 0.5"}
        images, tokens = nodes_picture.Sample.execute(model, "a red dog", 5, 2, **lists).args
        self.assertEqual((images.shape, len(tokens.tokens[0].grids)), ((2, 64, 64, 3), 7))
        np.testing.assert_array_equal(nodes_picture.DecodeTokens.execute(model, tokens).args[0], images)
        (encoded,) = nodes_picture.EncodePicture.execute(model, images, 0).args
        self.assertEqual(len(encoded.tokens[1].grids), 7)
        self.assertGreater(nodes_picture.ScorePicture.execute(model, images, "a red dog").args[0], 0)
        with self.assertRaisesRegex(NodeError, "^top_k: "):
            nodes_picture.Sample.execute(model, "a red dog", 5, 1, **{**DRAWING, "top_k": 7})
        with self.assertRaisesRegex(NodeError, "64x64 and 80x64"):
            nodes_picture.Sample.execute(model, "a red dog", 5, 1, **{**DRAWING, "width": 70, "height": 64})

    def test_encode_and_score_take_batches(self):
        (tokens,) = nodes_picture.EncodePicture.execute(self.model, pictures(3), 0).args
        self.assertEqual(len(tokens.tokens), 3)
        result = nodes_picture.ScorePicture.execute(self.model, pictures(2), "a dog")
        mean, text = result.args
        self.assertIsInstance(mean, float)
        self.assertRegex(text, r"^\d+\.\d{3} nats \(\d+\.\d{3}, \d+\.\d{3}\)$")
        self.assertEqual(result.ui.value, text)

    def test_tokens_of_another_model_are_refused(self):
        (tokens,) = nodes_picture.EncodePicture.execute(self.model, pictures(), 0).args
        other = type(tokens)(tokens.tokens, "another")
        self.model.info["fingerprint"] = "this"
        with self.assertRaisesRegex(NodeError, "^tokens: were made with another model"):
            nodes_picture.DecodeTokens.execute(self.model, other)

    def test_a_saved_subject_is_listed_loaded_and_described_and_never_overwritten(self):
        subject = train(self.model, pictures())[0]
        names = [nodes_subject.SaveSubject.execute(subject, "kept/dog", "models/sitter_subjects").args[0] for _ in range(2)]
        self.assertEqual(names, ["kept/dog_00001.safetensors", "kept/dog_00002.safetensors"])
        (choices,) = [slot.options for slot in nodes_subject.LoadSubject.define_schema().inputs]
        self.assertLessEqual(set(names), set(choices))
        (loaded,) = nodes_subject.LoadSubject.execute(names[0]).args
        info, phrase = nodes_subject.SubjectInfo.execute(loaded).args
        self.assertEqual((json.loads(info)["identifier"], phrase), ("[V]", "[V] dog"))

    def test_a_damaged_subject_file_names_the_field(self):
        path = os.path.join(host.subject_roots()[0], "broken.safetensors")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"\x80\x04nonsense")
        with self.assertRaisesRegex(NodeError, "^file: .* damaged, incomplete or of another kind"):
            nodes_subject.LoadSubject.execute("broken.safetensors")

    def test_the_two_drawn_pictures_are_images(self):
        one, two = (train(self.model, pictures(), identifier=name)[0] for name in ("[V]", "[W]"))
        (curve,) = nodes_sheet.LossCurve.execute(400, 200, 9, subject=one, subject_3=two).args
        self.assertEqual((curve.shape, curve.dtype), ((1, 200, 400, 3), np.float32))
        (sheet,) = nodes_sheet.ContactSheet.execute(
            ["A\nB"], [64], [4], references=[pictures(2), pictures(1, 8, 8)], results_2=[pictures()]).args
        self.assertEqual(sheet.shape[2], 8 + 3 * 72)
        for empty in (lambda: nodes_sheet.LossCurve.execute(400, 200, 9), lambda: nodes_sheet.ContactSheet.execute([""], [64], [4])):
            with self.assertRaisesRegex(NodeError, "nothing is connected"):
                empty()

    def test_example_pictures_give_pictures_and_the_class(self):
        images, word = nodes_picture.ExamplePictures.execute("robot").args
        self.assertEqual((images.shape, word), ((4, 128, 128, 4), "robot"))
