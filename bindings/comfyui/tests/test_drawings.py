"""Loss curves and contact sheets."""
import unittest

from . import need

need("numpy", "PIL")

import numpy as np  # noqa: E402
from sitter_nodes import drawings  # noqa: E402


def losses(*values):
    return [("embedding" if k < 2 else "layers", k, v) for k, v in enumerate(values)]


class CurveTest(unittest.TestCase):
    def test_any_losses_make_a_picture_of_the_asked_size(self):
        for given in ([], [("a", [])], [("a", losses(2.0))], [("a", losses(2.0, 2.0))], [("a", losses(3, float("nan"), 1))],
                      [("a", losses(*range(50))), ("b", losses(4, 3))], [("a", losses(1e9, 1e-9))]):
            self.assertEqual(drawings.loss_curve(given, 400, 200).size, (400, 200))

    def test_a_falling_loss_is_drawn_falling(self):
        image = drawings.pixels(drawings.loss_curve([("", losses(*np.linspace(5, 1, 40)))], 400, 300)).astype(int)
        line = np.argwhere(np.abs(image - (0, 114, 178)).sum(axis=2) < 10)
        left, right = line[line[:, 1] < 150][:, 0].mean(), line[line[:, 1] > 250][:, 0].mean()
        self.assertLess(left + 50, right)


class SheetTest(unittest.TestCase):
    def test_rows_wrap_and_every_picture_keeps_its_proportions(self):
        wide = np.zeros((20, 40, 3), np.uint8)
        sheet = drawings.pixels(drawings.contact_sheet([("", [wide] * 3)], cell=40, columns=2))
        self.assertEqual(sheet.shape[1], 8 + 2 * 48)
        self.assertEqual(sheet.shape[0], 8 + 2 * 48)
        self.assertEqual(int((sheet.sum(axis=2) == 0).sum()), 3 * 20 * 40)

    def test_float_pictures_are_the_same_as_bytes(self):
        ramp = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) * 9
        one, two = (drawings.pixels(drawings.contact_sheet([("t", [x])], 64)) for x in (ramp, ramp.astype(np.float32) / 255))
        np.testing.assert_array_equal(one, two)

    def test_a_long_title_is_cut_and_an_empty_row_is_only_its_title(self):
        drawings.contact_sheet([("x" * 500, [np.zeros((2, 2, 3), np.uint8)]), ("empty", [])], 64)
