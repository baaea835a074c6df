"""The real small model inside the library."""
import tempfile
import unittest
from pathlib import Path

import numpy as np

import sitter
from sitter.images import picture, to_array
from support import FOX

PROMPT = "a photo of a fox"
# Enough to go through both stages, not to learn anything.
QUICK = dict(embedding_steps=2, layer_steps=2, batch_size=1, augment=0)


class Embedded(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = sitter.Model.open("embedded:", threads=2)

    @classmethod
    def tearDownClass(cls):
        cls.model.close()

    def test_it_says_what_it_is(self):
        info = self.model.info
        self.assertEqual((info["family"], info["device"], info["can_decode"]), ("lumina-mgpt", "cpu", True))
        self.assertGreater(info["parameters"], 1_000_000)
        self.assertEqual(self.model.sample_options()["width"], 128)
        self.assertEqual(info["sample_defaults"], self.model.sample_options())

    def test_options_of_an_estimate_stand_over_what_the_model_recommends(self):
        of = lambda **more: {k: v for k, v in sitter.estimate("embedded:", dtype="f32", **more).items() if k != "free"}
        self.assertEqual(of(), of(sample={}, train={"method": "two_stage"}))
        larger = of(train={"image_size": 192})
        self.assertGreater(larger["embedding"], of(train={"layer_steps": 1})["embedding"])

    def test_a_picture_survives_encoding_and_decoding(self):
        tokens = self.model.encode(FOX[0])
        self.assertEqual(tokens.shape, (16, 16))
        self.assertLess(tokens.grid.max(), self.model.info["codebook"])
        decoded, original = self.model.decode(tokens), to_array(picture(FOX[0]))
        self.assertEqual((decoded.shape, decoded.dtype), ((128, 128, 3), np.uint8))
        self.assertLess(np.abs(decoded.astype(int) - original).mean(), 20)
        np.testing.assert_array_equal(self.model.decode(tokens.grid), decoded)

    def test_a_picture_is_the_same_from_a_file_and_from_arrays(self):
        from_file = self.model.encode(FOX[1]).grid
        pixels = to_array(picture(FOX[1]))
        for image in (pixels, pixels.astype(np.float32)[None] / 255):
            np.testing.assert_array_equal(self.model.encode(image).grid, from_file)

    def test_pictures_of_any_size_are_fitted(self):
        image = np.zeros((100, 300, 3), np.uint8)
        height, width = self.model.encode(image).shape
        self.assertGreater(width, height)
        self.assertLess(self.model.encode(image, size=48).grid.size, height * width)

    def test_likelier_pictures_score_lower(self):
        tokens = self.model.encode(FOX[0])
        noise = sitter.Tokens(np.random.default_rng(0).integers(0, self.model.info["codebook"], (16, 16)))
        likely, unlikely = self.model.score(PROMPT, [tokens, noise])
        self.assertLess(likely, unlikely)
        self.assertAlmostEqual(self.model.score(PROMPT, FOX[0]), likely, places=4)

    def test_the_same_seed_gives_the_same_tokens(self):
        draw = lambda seed: self.model.sample(PROMPT, seed=seed, width=48, height=48)[0].tokens.grid
        np.testing.assert_array_equal(draw(1), draw(1))
        self.assertTrue((draw(1) != draw(2)).any())

    def test_speculative_decoding_draws_the_same_picture(self):
        draw = lambda **how: self.model.sample(PROMPT, seed=1, width=48, height=48, **how)[0].tokens.grid
        np.testing.assert_array_equal(draw(), draw(decoding="speculative", window=6))
        self.assertTrue((draw() != draw(decoding="speculative_distribution")).any())
        with self.assertRaisesRegex(sitter.InvalidArgument, "decoding"):
            draw(decoding="fast")

    def test_a_saved_sample_says_what_made_it(self):
        (sample,) = self.model.sample(PROMPT, seed=3, width=48, height=32, guidance=1.0, top_k=1, temperature=0.7)
        self.assertEqual(sample.image.shape, (32, 48, 3))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fox.png"
            sample.save(path)
            data = path.read_bytes()
            self.assertIn(b"sitter", data)
            self.assertIn(PROMPT.encode(), data)
            self.assertIn(b'"temperature":0.7,', data)
            np.testing.assert_array_equal(to_array(picture(path)), sample.image)

    def test_a_subject_is_taught_saved_loaded_and_drawn(self):
        stages = []
        subject = self.model.train(FOX, "fox", seed=5, progress=lambda e: stages.append(e.stage), **QUICK)
        self.assertEqual([(stage, step) for stage, step, _ in subject.losses],
                         [("embedding", 0), ("embedding", 1), ("layers", 0), ("layers", 1)])
        self.assertTrue(all(0 < loss < 20 for *_, loss in subject.losses))
        self.assertLessEqual({"encode", "embedding", "layers"}, set(stages))
        self.assertEqual(subject.info["options"]["layer_steps"], 2)
        self.assertEqual(subject.info["model"], self.model.info["fingerprint"])
        again = self.model.train(FOX, "fox", seed=5, **QUICK)
        self.assertEqual(again.losses, subject.losses)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fox.safetensors"
            subject.save(path)
            loaded = sitter.Subject.load(path)
        self.assertEqual(loaded.losses, subject.losses)
        draw = lambda s: self.model.sample("a photo of a [V] fox", subjects=[s], seed=1, width=48, height=48)[0].tokens.grid
        np.testing.assert_array_equal(draw(loaded), draw(subject))
        prompt = "a photo of a [V] fox"
        self.assertNotEqual(self.model.score(prompt, FOX[0], subjects=subject), self.model.score(PROMPT, FOX[0]))

    def test_captions_take_the_place_of_templates(self):
        subject = self.model.train(FOX[:2], "fox", captions="a [V] fox on the floor", **QUICK)
        self.assertEqual(len(subject.losses), 4)
        with self.assertRaises(sitter.InvalidArgument):
            self.model.train(FOX[:1], "fox", captions=["no identifier"], **QUICK)

    def test_a_subject_of_another_model_is_refused(self):
        other = sitter.Model.open("fake:").train(FOX[0], "dog")
        with self.assertRaises(sitter.WrongModel):
            self.model.sample("a [V] dog", subjects=[other])


if __name__ == "__main__":
    unittest.main()
