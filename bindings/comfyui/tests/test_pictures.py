"""Pictures between ComfyUI and the library."""
import os
import unittest

from . import REPOSITORY, need

need("numpy", "PIL")

import numpy as np  # noqa: E402
from sitter_nodes import pictures  # noqa: E402
from sitter_nodes.messages import NodeError  # noqa: E402


def plain(height, width, value=0.5, count=1, channels=3):
    return np.full((count, height, width, channels), value, np.float32)


class SplitTest(unittest.TestCase):
    def test_batches_lists_and_mixed_sizes_become_single_pictures_in_order(self):
        found = pictures.split([plain(4, 6, 0.1, count=2), plain(8, 3, 0.3)])
        self.assertEqual([one.shape for one in found], [(4, 6, 3), (4, 6, 3), (8, 3, 3)])
        self.assertEqual([round(float(one[0, 0, 0]), 1) for one in found], [0.1, 0.1, 0.3])

    def test_a_batch_alone_and_a_picture_alone_are_taken_too(self):
        self.assertEqual(len(pictures.split(plain(4, 4, count=3))), 3)
        self.assertEqual(len(pictures.split(plain(4, 4)[0])), 1)

    def test_transparency_is_kept_for_training_and_grey_becomes_rgb(self):
        clear = np.zeros((1, 2, 2, 4), np.float32)
        self.assertEqual(pictures.split(clear)[0].shape, (2, 2, 4))
        self.assertEqual(pictures.on_white(pictures.split(clear)[0]).min(), 1.0)
        self.assertEqual(pictures.split(plain(2, 2, channels=1))[0].shape, (2, 2, 3))

    def test_half_precision_overshoot_and_nan_come_out_as_pixels(self):
        odd = np.array([[[[1.2, -0.1, np.nan]]]], np.float16)
        self.assertEqual(pictures.split(odd)[0].tolist(), [[[1.0, 0.0, 0.0]]])

    def test_what_is_no_picture_names_the_field(self):
        for wrong in ([], [None], np.zeros((0, 4, 4, 3)), np.zeros((1, 4, 4, 2)), np.zeros((4, 4))):
            with self.subTest(wrong=np.shape(wrong)), self.assertRaisesRegex(NodeError, "^references: "):
                pictures.split(wrong, "references")


class BatchTest(unittest.TestCase):
    def test_the_tensor_is_the_one_that_load_image_makes(self):
        pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
        made = pictures.batch([pixels, pixels])
        self.assertEqual((made.shape, made.dtype), ((2, 2, 4, 3), np.float32))
        np.testing.assert_array_equal(made[0], np.array(pixels).astype(np.float32) / 255.0)


class CaptionsTest(unittest.TestCase):
    def test_one_is_for_all_and_none_or_empty_ones_are_none(self):
        self.assertEqual(pictures.captions_for(3, ["a [V]"]), ["a [V]"] * 3)
        self.assertIsNone(pictures.captions_for(3, None))
        self.assertIsNone(pictures.captions_for(2, ["", " "]))

    def test_other_numbers_are_named(self):
        with self.assertRaisesRegex(NodeError, "^captions: 2 for 3 pictures"):
            pictures.captions_for(3, ["a", "b"])
        with self.assertRaisesRegex(NodeError, "^captions: 1 of 2 are empty"):
            pictures.captions_for(2, ["a", ""])

    def test_order_is_by_content_and_captions_go_with_their_pictures(self):
        given = [plain(2, 2, v)[0] for v in (0.9, 0.1, 0.5)]
        one = pictures.in_order(given, ["nine", "one", "five"])
        two = pictures.in_order(given[::-1], ["five", "one", "nine"])
        self.assertEqual(one[1], two[1])
        self.assertEqual([pictures.digest(x) for x in one[0]], [pictures.digest(x) for x in two[0]])


class ExamplesTest(unittest.TestCase):
    def test_the_bundled_pictures_are_those_of_the_repository(self):
        for subject in pictures.EXAMPLES:
            for file in sorted(os.listdir(os.path.join(pictures.FOLDER, subject))):
                with open(os.path.join(pictures.FOLDER, subject, file), "rb") as ours:
                    with open(os.path.join(REPOSITORY, "assets", "subjects", subject, file), "rb") as original:
                        self.assertEqual(ours.read(), original.read(), f"{subject}/{file}")

    def test_there_are_four_of_each_and_no_other_folder_is_read(self):
        self.assertEqual([len(pictures.examples(name)) for name in pictures.EXAMPLES], [4, 4, 4])
        with self.assertRaisesRegex(NodeError, "^subject: "):
            pictures.examples("../tests")
