"""Progress and Stop, without ComfyUI."""
import unittest
from collections import namedtuple

from sitter_nodes.watch import HostInterrupt, Stopped, Watch, describe

Event = namedtuple("Event", "stage done total loss item item_count", defaults=(0, 1))


class FakeHost:
    def __init__(self):
        self.stop, self.again, self.shown, self.steals_flag = False, 0, [], False

    def interrupted(self):
        return self.stop

    def interrupt_again(self):
        self.again += 1

    def show(self, *update):
        if self.steals_flag:
            raise HostInterrupt()
        self.shown.append(update)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def learning(step, loss=2.0):
    return Event("layers", step, 10, loss)


class StopTest(unittest.TestCase):
    def setUp(self):
        self.host, self.clock, self.finished = FakeHost(), Clock(), []

    def watch(self, keep=False):
        return Watch(self.host, (lambda: self.finished.append(1)) if keep else None, clock=self.clock)

    def test_stop_leaves_the_call_at_the_next_event_of_any_stage(self):
        for stage in ("open", "encode", "prior", "sample", "decode", "score", "layers"):
            self.host.stop = True
            with self.assertRaises(Stopped):
                self.watch()(Event(stage, 0, 0, None))

    def test_stop_is_seen_between_two_updates_of_the_bar(self):
        watch = self.watch()
        watch(learning(1))
        self.host.stop = True
        with self.assertRaises(Stopped):
            watch(learning(1))

    def test_keep_finishes_early_once_and_leaves_the_flag_and_the_bar_alone(self):
        watch = self.watch(keep=True)
        watch(learning(1))
        self.host.stop = True
        before = len(self.host.shown)
        watch(learning(2))
        self.clock.now = 9.0
        watch(learning(3))
        self.assertEqual((watch.kept, self.finished, self.host.again), (True, [1], 0))
        self.assertEqual(len(self.host.shown), before)

    def test_keep_discards_while_nothing_was_learned(self):
        watch = self.watch(keep=True)
        self.host.stop = True
        with self.assertRaises(Stopped):
            watch(Event("encode", 1, 4, None))
        self.assertEqual((watch.kept, self.finished), (False, []))

    def test_a_flag_that_the_bar_cleared_is_set_again(self):
        for keep in (False, True):
            host = self.host = FakeHost()
            watch = self.watch(keep)
            host.steals_flag = True
            if keep:
                watch(learning(1))
                self.assertTrue(watch.kept)
            else:
                with self.assertRaises(Stopped):
                    watch(learning(1))
            self.assertEqual(host.again, 1)


class BarTest(unittest.TestCase):
    def setUp(self):
        self.host, self.clock = FakeHost(), Clock()

    def test_updates_come_at_most_every_tenth_of_a_second_but_ends_and_new_stages_always(self):
        watch = Watch(self.host, clock=self.clock)
        watch(Event("encode", 1, 4, None))
        watch(Event("encode", 2, 4, None))
        self.clock.now = 0.11
        watch(Event("encode", 3, 4, None))
        watch(Event("encode", 4, 4, None))
        watch(learning(1))
        self.assertEqual([(x[0], x[1]) for x in self.host.shown], [(1, 4), (3, 4), (4, 4), (1, 10)])

    def test_an_unknown_total_gives_a_bar_that_comfyui_can_divide_by(self):
        Watch(self.host, clock=self.clock)(Event("open", 0, 0, None))
        self.assertEqual(self.host.shown[0][:2], (0, 1))

    def test_losses_are_those_of_steps_and_heartbeats_do_not_repeat_them(self):
        curves = []
        watch = Watch(self.host, None, lambda _, losses: curves.append(list(losses)) or "picture", self.clock)
        for k, step in enumerate([1, 1, 2, 2, 3]):
            self.clock.now = k * 1.0
            watch(learning(step, 5.0 - step))
        self.assertEqual(curves[-1], [("layers", 1, 4.0), ("layers", 2, 3.0), ("layers", 3, 2.0)])
        self.assertEqual(self.host.shown[-1][3], "picture")

    def test_the_bar_stays_where_the_training_is_while_a_sample_is_drawn(self):
        watch = Watch(self.host, clock=self.clock)
        watch(Event("sample", 5, 9, None))
        watch(learning(4))
        watch(Event("sample", 7, 9, None, 1, 3))
        self.assertEqual([x[:2] for x in self.host.shown], [(5, 9), (4, 10), (4, 10)])
        self.assertEqual(self.host.shown[-1][2], "drawing 2 of 3: 7/9")

    def test_the_last_event_is_shown_once_more_with_its_new_picture(self):
        pictures = iter([None, "picture"])
        watch = Watch(self.host, None, lambda *_: next(pictures), self.clock)
        watch.once_more()
        watch(learning(4))
        watch.once_more()
        self.assertEqual([(x[0], x[3]) for x in self.host.shown], [(4, None), (4, "picture")])

    def test_the_text_says_stage_step_and_loss(self):
        self.assertEqual(describe(learning(3, 1.25)), "training layers 3/10, loss 1.250")
        self.assertEqual(describe(Event("stage 42", 0, 0, None)), "stage 42")
