"""Pictures while a node works, with the fake model of the library."""
import os
import time
import unittest
from collections import namedtuple

from . import REPOSITORY, library as _  # noqa: F401

import numpy as np  # noqa: E402
import sitter  # noqa: E402
from sitter_nodes import preview  # noqa: E402

Event = namedtuple("Event", "stage done total item", defaults=(0,))
LOSSES = [("embedding", 1, 3.0), ("embedding", 2, 2.0)]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Drawing:
    """A run that has drawn so many rows of two codes."""

    def __init__(self, rows=0, code=200):
        self.rows, self.code = rows, code

    def tokens(self):
        return sitter.Tokens(np.full((self.rows, 2), self.code)) if self.rows else None


def opened(**settings):
    words = ",".join(f"{k}={v}" for k, v in {"steps": 1, **settings}.items())
    return sitter.Model.open(f"fake:{words}", max_jobs=2)


def until(look):
    """What `look` gives at last; it is decoded in another thread."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        picture = look()
        if picture is not None:
            return np.asarray(picture)
        time.sleep(0.01)
    raise AssertionError("no picture came")


class GrowingTest(unittest.TestCase):
    def setUp(self):
        self.clock, self.run = Clock(), Drawing()

    def growing(self, **settings):
        made = preview.Growing(opened(**settings), self.run, self.clock)
        self.addCleanup(made.__exit__)
        return made

    def test_drawn_rows_are_above_and_grey_is_below(self):
        look, event = self.growing(), Event("sample", 3, 8)
        self.clock.now = 1.0
        self.assertIsNone(look(event))
        self.run.rows = 1
        picture = until(lambda: look(event))
        self.assertEqual(picture.shape, (4, 2, 3))
        self.assertEqual(picture[:, 0, 0].tolist(), [200, preview.GREY, preview.GREY, preview.GREY])

    def test_the_next_comes_after_a_second_and_only_with_new_rows(self):
        look, event = self.growing(), Event("sample", 3, 8)
        self.run.rows = 1
        self.clock.now = preview.FIRST - 0.01
        look(event)
        self.assertIsNone(look._future, "too early")
        self.clock.now = 1.0
        until(lambda: look(event))
        self.run.rows = 2
        self.clock.now = 1.99
        look(event)
        self.assertIsNone(look._future, "too early")
        self.clock.now = 2.0
        self.assertEqual(until(lambda: look(event))[1, 0, 0], 200)
        self.clock.now = 9.0
        look(event)
        self.assertIsNone(look._future, "nothing new was drawn")

    def test_slow_decoding_takes_a_tenth_of_the_time(self):
        look, event = self.growing(), Event("sample", 3, 8)
        self.run.rows, self.clock.now = 1, 1.0
        look(event)
        look._future.result()
        self.clock.now = 5.0
        look(event)
        self.assertAlmostEqual(look._next, 5.0 + 9 * 4.0)

    def test_scales_are_shown_whole_and_in_one_size(self):
        """A tiny model that draws scale after scale, and the picture after each of them."""
        model = sitter.Model.open(os.path.join(REPOSITORY, "tests", "golden", "infinity"), max_jobs=2)
        run, shown = sitter.Run(), []
        look = preview.Growing(model, run, self.clock)
        self.addCleanup(look.__exit__)

        def watch(event):
            self.clock.now += 100.0
            look(event)
            # The next scale could come before the picture of this one. An event that comes again has nothing new.
            if look._future is not None:
                look._future.result()
                shown.append((look(event).size, len(run.tokens().grids)))

        model.sample("a red dog", progress=watch, run=run)
        self.assertEqual(shown, [((preview.WIDTH, preview.WIDTH), scales) for scales in range(1, 8)])

    def test_only_drawing_is_shown(self):
        look = self.growing()
        self.run.rows, self.clock.now = 1, 9.0
        look(Event("decode", 0, 1))
        self.assertIsNone(look._future)

    def test_the_end_stops_what_is_being_decoded(self):
        look = preview.Growing(opened(steps=1000, step_ms=20), self.run, self.clock)
        with look:
            self.run.rows, self.clock.now = 1, 1.0
            look(Event("sample", 3, 8))
            began = time.monotonic()
        self.assertLess(time.monotonic() - began, 2.0)
        self.assertIsNone(preview.result(look._future))


class LearningTest(unittest.TestCase):
    def setUp(self):
        self.clock, self.run = Clock(), Drawing(rows=2)
        self.look = preview.Learning(opened(), self.run, self.clock)
        self.addCleanup(self.look.__exit__)

    def test_the_curve_alone_comes_at_most_so_often(self):
        step = Event("embedding", 2, 9)
        self.assertIsNone(self.look(step, LOSSES[:1]))
        self.assertEqual(np.asarray(self.look(step, LOSSES)).shape, (320, 512, 3))
        more = [*LOSSES, ("embedding", 3, 1.0)]
        self.assertIsNone(self.look(step, more), "too early")
        self.clock.now += preview.CURVE_PAUSE
        self.assertIsNone(self.look(step, LOSSES), "nothing new")
        self.assertIsNotNone(self.look(step, more))

    def test_each_sample_gets_a_tile_below_the_curve_and_the_newest_stay(self):
        width, seen = preview.WIDTH // preview.STRIP, []
        for item in range(preview.STRIP + 1):
            self.run.code = 10 * (item + 1)
            self.look(Event("sample", 4, 4, item), LOSSES)
            self.look.complete()
            picture = np.asarray(self.look(Event("embedding", 2, 9), LOSSES))
            seen.append([int(picture[-width // 2, k * width + width // 2, 0]) for k in range(preview.STRIP)])
        self.assertEqual(seen[0], [10, 255, 255, 255])
        self.assertEqual(seen[-1], [20, 30, 40, 50])

    def test_a_sample_grows_on_its_tile(self):
        self.run.rows, self.clock.now = 1, 1.0
        self.look(Event("sample", 2, 4), LOSSES)
        self.clock.now = 1.1
        width = preview.WIDTH // preview.STRIP
        column = until(lambda: self.look(Event("sample", 2, 4), LOSSES))[-width:, width // 2, 0].tolist()
        # The code is 200; enlarging overshoots.
        self.assertGreater(column[10], 190)
        self.assertLess(column[-20], preview.GREY + 5)

    def test_class_pictures_are_not_shown(self):
        self.clock.now = 9.0
        self.assertIsNone(self.look(Event("sample", 4, 4), []))
        self.assertEqual((self.look._waiting, self.look._tiles), ({}, {}))
