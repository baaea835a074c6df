"""Tokens of several grids, with a tiny model that draws scale after scale."""
import unittest
from pathlib import Path

import numpy as np

import sitter

MODEL = Path(__file__).resolve().parents[3] / "tests/golden/infinity"
SIDES = [1, 2, 4, 6, 8, 12, 16]
PROMPT = "a red dog"


class GridsTest(unittest.TestCase):
    def test_grids_come_back_as_they_were_given(self):
        grids = [np.array([[7]]), np.array([[1, 2, 3], [4, 5, 2**32 - 1]])]
        tokens = sitter.Tokens.of_grids(grids)
        self.assertEqual((tokens.shape, len(tokens.grids), repr(tokens)), ((2, 3), 2, "<sitter.Tokens 2x3 in 2 scales>"))
        for found, given in zip(tokens.grids, grids):
            np.testing.assert_array_equal(found, given)
            self.assertFalse(found.flags.writeable)
        np.testing.assert_array_equal(tokens.grid, grids[1])

    def test_one_grid_is_a_list_of_one(self):
        tokens = sitter.Tokens([[1, 2], [3, 4]])
        self.assertEqual(len(tokens.grids), 1)
        np.testing.assert_array_equal(tokens.grids[0], tokens.grid)

    def test_wrong_grids_are_named(self):
        with self.assertRaisesRegex(sitter.InvalidArgument, r"^grids\[1\]: whole numbers"):
            sitter.Tokens.of_grids([[[1]], [[0.5]]])
        with self.assertRaisesRegex(sitter.InvalidArgument, "grid_count"):
            sitter.Tokens.of_grids([])


class ScalesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = sitter.Model.open(MODEL, threads=2, text_encoder="unload")

    @classmethod
    def tearDownClass(cls):
        cls.model.close()

    def draw(self, **how):
        return self.model.sample(PROMPT, seed=4, **how)[0]

    def test_a_picture_goes_through_codes_and_back(self):
        drawn = self.draw()
        self.assertEqual([grid.shape for grid in drawn.tokens.grids], [(side, side) for side in SIDES])
        copy = sitter.Tokens.of_grids(grid.tolist() for grid in drawn.tokens.grids)
        np.testing.assert_array_equal(self.model.decode(copy), drawn.image)
        encoded = self.model.encode(drawn.image)
        self.assertEqual(len(encoded.grids), 7)
        scores = self.model.score(PROMPT, [drawn.tokens, copy, encoded])
        self.assertEqual(scores[0], scores[1])
        self.assertTrue(0 < scores[2] < 5)
        with self.assertRaisesRegex(sitter.InvalidArgument, "16x16"):
            self.model.decode(drawn.tokens.grid)

    def test_the_picture_so_far_is_seen_after_every_scale(self):
        seen, run = [], sitter.Run()
        self.draw(run=run, progress=lambda event: seen.append((event.done, run.tokens().shape[0])))
        # Where nothing happens for a while, an event comes again.
        self.assertEqual(list(dict.fromkeys(seen)), list(zip([1, 5, 21, 57, 121, 265, 521], SIDES)))
        stopped = sitter.Run()
        with self.assertRaises(sitter.Cancelled):
            self.draw(run=stopped, progress=lambda event: stopped.cancel() if event.done == 21 else None)
        self.assertEqual(len(stopped.tokens().grids), 3)

    def test_lists_of_scales_are_options(self):
        plain = self.draw(guidance=3.0)
        np.testing.assert_array_equal(self.draw(guidance_by_scale=[3, 3.0]).image, plain.image)
        other = self.draw(guidance_by_scale=np.array([3.0, 9.0]), temperature_by_scale=(0.5, 2.0), top_p=1.0)
        self.assertTrue((other.tokens.grid != plain.tokens.grid).any())
        with self.assertRaisesRegex(sitter.InvalidArgument, "temperature_by_scale: has 8 values.*7 scales"):
            self.draw(temperature_by_scale=[1.0] * 8)
        with self.assertRaisesRegex(sitter.InvalidArgument, "top_k: .*guidance_by_scale"):
            self.draw(top_k=10)
        with self.assertRaisesRegex(sitter.InvalidArgument, "70x64.*64x64 and 80x64"):
            self.draw(width=70)

    def test_a_text_encoder_counts_in_estimates_while_it_stays(self):
        kept, unloaded = (sitter.estimate(MODEL, text_encoder=choice)["weights"] for choice in ("keep", "unload"))
        self.assertGreater(kept, unloaded)
        with self.assertRaisesRegex(sitter.InvalidArgument, "text_encoder.*auto, keep, unload"):
            sitter.estimate(MODEL, text_encoder="free")

    def test_the_first_of_a_batch_is_what_it_is_alone(self):
        batch = self.model.sample(PROMPT, count=3, seed=4)
        np.testing.assert_array_equal(batch[0].image, self.draw().image)
        self.assertTrue((batch[1].tokens.grid != batch[2].tokens.grid).any())


if __name__ == "__main__":
    unittest.main()
