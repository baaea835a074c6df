"""Long calls: progress, exceptions, Ctrl-C, cancel, finish early, threads."""
import contextlib
import gc
import io
import os
import signal
import threading
import time
import traceback
import unittest
import weakref

import sitter
from support import PIXELS, fake, train

# Seconds within which a call has to stop.
SOON = 1.0


@contextlib.contextmanager
def after(seconds, function, *arguments):
    timer = threading.Timer(seconds, function, arguments)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


class Progress(unittest.TestCase):
    def test_events_tell_each_step_in_order(self):
        events = []
        train(fake(steps=3, step_ms=1), progress=events.append)
        steps = list(dict.fromkeys((e.stage, e.done, e.total, e.loss) for e in events if e.stage != "waiting"))
        expected = [(stage, i, 3, float(i)) for stage in ("embedding", "layers") for i in (1, 2, 3)]
        self.assertEqual(steps, expected)
        self.assertTrue(all(a.elapsed <= b.elapsed for a, b in zip(events, events[1:])))
        self.assertEqual((events[-1].item, events[-1].item_count), (0, 1))

    def test_every_long_call_reports(self):
        model, stages = fake(steps=1), []
        note = lambda event: stages.append(event.stage)
        model.sample("x", progress=note)
        tokens = model.encode(PIXELS, progress=note)
        model.decode(tokens, progress=note)
        model.score("x", [PIXELS, tokens], progress=note)
        sitter.Model.open("fake:steps=1,open=1", progress=note)
        stages = [s for s in stages if s != "waiting"]
        self.assertEqual(list(dict.fromkeys(stages)), ["sample", "encode", "decode", "score", "open"])

    def test_there_is_a_heartbeat_without_progress(self):
        events = []
        train(fake(steps=1, step_ms=400), progress=events.append)
        self.assertGreater(len(events), 6)

    def test_loss_is_none_outside_training(self):
        events = []
        fake(steps=2).sample("x", progress=events.append)
        self.assertEqual({e.loss for e in events}, {None})

    def test_an_exception_stops_the_call_and_comes_out_with_its_traceback(self):
        class Mine(Exception):
            pass

        seen = []

        def broken(event):
            seen.append(event)
            if event.done == 2:
                raise Mine("here") from KeyError("cause")

        model = fake(steps=1000, step_ms=1)
        try:
            train(model, progress=broken)
            self.fail("nothing was raised")
        except Mine as e:
            text = traceback.format_exc()
            self.assertIsInstance(e.__cause__, KeyError)
        self.assertIn("in broken", text)
        self.assertNotIn("Cancelled", text)
        self.assertLessEqual(seen[-1].done, 2)
        self.assertEqual(model.sample_options()["width"], 16)

    def test_an_exception_in_the_last_event_counts_too(self):
        def broken(event):
            if event.stage == "layers" and event.done == event.total:
                raise StopIteration

        with self.assertRaises(StopIteration):
            train(fake(steps=2), progress=broken)

    def test_even_system_exit_comes_out(self):
        with self.assertRaises(SystemExit):
            train(fake(steps=1000, step_ms=1), progress=lambda event: exit(3))

    def test_work_cannot_be_started_from_inside(self):
        model, found = fake(steps=2), []

        def curious(event):
            found.append(model.info["family"])
            with self.assertRaisesRegex(sitter.InvalidState, "callback"):
                model.encode(PIXELS)

        train(model, progress=curious)
        self.assertEqual(set(found), {"fake"})

    def test_a_bar_shows_each_stage_on_stderr(self):
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            train(fake(steps=4), progress=True)
        lines = stderr.getvalue().splitlines()
        self.assertEqual([line.split()[:2] for line in lines], [["embedding", "4/4"], ["layers", "4/4"]])
        self.assertIn("loss 4.000", lines[0])

    def test_nothing_is_left_of_a_call(self):
        class Mine(Exception):
            pass

        kept = []

        def broken(event):
            error = Mine()
            kept.append(weakref.ref(error))
            raise error

        gc.disable()
        try:
            with contextlib.suppress(Mine):
                train(fake(), progress=broken)
            # The exception knew the frame that raised it, and the frame the exception.
            gc.collect()
            self.assertIsNone(kept[0]())
        finally:
            gc.enable()


class Interrupt(unittest.TestCase):
    def setUp(self):
        self.model = fake(steps=100_000, step_ms=5)
        self.addCleanup(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        # Test programs that run in the background ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def test_control_c_stops_every_long_call_soon(self):
        calls = [lambda: train(self.model), lambda: self.model.sample("x"), lambda: self.model.encode(PIXELS),
                 lambda: self.model.decode([[1]]), lambda: self.model.score("x", PIXELS),
                 lambda: sitter.Model.open("fake:steps=100000,step_ms=5,open=1")]
        for long in calls:
            with self.subTest(), after(0.1, interrupt):
                started = time.monotonic()
                with self.assertRaises(KeyboardInterrupt):
                    long()
                self.assertLess(time.monotonic() - started, 0.1 + SOON)
        self.assertIs(signal.getsignal(signal.SIGINT), signal.default_int_handler)

    def test_control_c_is_heard_between_slow_steps(self):
        with after(0.1, interrupt), self.assertRaises(KeyboardInterrupt):
            started = time.monotonic()
            train(fake(steps=3, step_ms=400))
        self.assertLess(time.monotonic() - started, SOON)

    def test_control_c_is_heard_while_progress_is_told(self):
        for progress in (True, lambda event: time.sleep(0.01)):
            with self.subTest(progress), contextlib.redirect_stderr(io.StringIO()):
                with after(0.1, interrupt), self.assertRaises(KeyboardInterrupt):
                    train(self.model, progress=progress)

    def test_the_programs_own_handler_decides_and_is_put_back(self):
        calls = []

        def own(number, frame):
            calls.append(number)
            if len(calls) == 2:
                raise TimeoutError("own")

        signal.signal(signal.SIGINT, own)
        with after(0.1, interrupt), after(0.3, interrupt), self.assertRaisesRegex(TimeoutError, "own"):
            train(self.model)
        self.assertEqual(calls, [signal.SIGINT] * 2)
        self.assertIs(signal.getsignal(signal.SIGINT), own)

    def test_a_program_that_ignores_control_c_goes_on_ignoring_it(self):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with after(0.05, interrupt):
            self.assertEqual(len(train(fake(steps=20, step_ms=5)).losses), 20)
        self.assertIs(signal.getsignal(signal.SIGINT), signal.SIG_IGN)

    def test_calls_in_other_threads_leave_the_handler_alone(self):
        found = []
        note = lambda event: found.append(signal.getsignal(signal.SIGINT))
        thread = threading.Thread(target=train, args=(fake(steps=3),), kwargs={"progress": note})
        thread.start()
        thread.join()
        self.assertEqual(set(found), {signal.default_int_handler})


@unittest.skipUnless(hasattr(signal, "setitimer"), "there is no alarm here")
class OtherSignals(unittest.TestCase):
    def setUp(self):
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def raising(self, number, error):
        def handler(*_):
            raise error

        signal.signal(number, handler)
        return handler

    def send(self, *numbers):
        for number in numbers:
            os.kill(os.getpid(), number)

    def test_what_the_handler_of_any_signal_raises_stops_the_call_and_comes_out_of_it(self):
        model = fake(steps=100_000, step_ms=5)
        calls = [lambda: train(model), lambda: model.sample("x"), lambda: model.encode(PIXELS), lambda: model.score("x", PIXELS),
                 lambda: train(model, progress=lambda event: None)]
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1):
            handler = self.raising(number, TimeoutError("own"))
            for long in calls:
                with self.subTest(number), after(0.1, self.send, number), self.assertRaisesRegex(TimeoutError, "own"):
                    started = time.monotonic()
                    long()
                self.assertLess(time.monotonic() - started, 0.1 + SOON)
                self.assertIs(signal.getsignal(number), handler)
        self.assertEqual(fake().info["family"], "fake")

    def test_an_alarm_that_never_stops_loses_nothing(self):
        calls = []

        def handler(number, frame):
            calls.append(frame)
            if len(calls) % 7 == 0:
                raise TimeoutError("seven")

        signal.signal(signal.SIGALRM, handler)
        model, raised = fake(steps=3, step_ms=1), 0
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        for _ in range(60):
            try:
                train(model)
            except TimeoutError:
                raised += 1
        self.assertGreater(raised, 3)
        self.assertIs(signal.getsignal(signal.SIGALRM), handler)

    def test_handlers_that_do_not_raise_are_called_and_the_call_goes_on(self):
        seen = []
        signal.signal(signal.SIGUSR1, lambda number, frame: seen.append((number, frame is not None)))
        with after(0.05, self.send, signal.SIGUSR1), after(0.1, self.send, signal.SIGUSR1):
            self.assertEqual(len(train(fake(steps=40, step_ms=5)).losses), 40)
        self.assertEqual(seen, [(signal.SIGUSR1, True)] * 2)

    def test_of_two_exceptions_one_is_the_context_of_the_other(self):
        self.raising(signal.SIGTERM, SystemExit(3))
        self.raising(signal.SIGUSR1, TimeoutError("own"))
        with after(0.1, self.send, signal.SIGTERM, signal.SIGUSR1), self.assertRaises((SystemExit, TimeoutError)) as caught:
            train(fake(steps=3, step_ms=300))
        found = {type(caught.exception), type(caught.exception.__context__)}
        self.assertEqual(found, {SystemExit, TimeoutError})

    def test_a_handler_that_the_program_sets_during_a_call_stays(self):
        mine = lambda number, frame: None
        self.raising(signal.SIGUSR1, TimeoutError("old"))
        train(fake(steps=3), progress=lambda event: signal.signal(signal.SIGUSR1, mine))
        self.assertIs(signal.getsignal(signal.SIGUSR1), mine)


class Control(unittest.TestCase):
    def test_another_thread_cancels(self):
        run, model = sitter.Run(), fake(steps=100_000, step_ms=5)
        with after(0.1, run.cancel), self.assertRaises(sitter.Cancelled):
            started = time.monotonic()
            train(model, run=run)
        self.assertLess(time.monotonic() - started, 0.1 + SOON)
        self.assertEqual(model.info["family"], "fake")

    def test_a_run_cancelled_before_stops_the_call_at_once(self):
        run = sitter.Run()
        run.cancel()
        with self.assertRaises(sitter.Cancelled):
            fake(steps=100_000, step_ms=5).score("x", [PIXELS, PIXELS], run=run)

    def test_cancel_reaches_each_part_of_a_call(self):
        # Three encodings come before the score.
        for events in (1, 3, 5, 7):
            run, seen = sitter.Run(), []

            def note(event):
                seen.append(event)
                if len(seen) == events:
                    run.cancel()

            with self.subTest(events), self.assertRaises(sitter.Cancelled):
                fake(steps=2, step_ms=1).score("x", [PIXELS] * 3, run=run, progress=note)

    def test_finishing_early_keeps_what_was_learned(self):
        run = sitter.Run()
        with after(0.1, run.finish_early):
            subject = train(fake(steps=100_000, step_ms=5), run=run)
        self.assertEqual(subject.info["identifier"], "[V]")

    def test_snapshots_tell_the_newest_event(self):
        run, seen = sitter.Run(), []
        self.assertIsNone(run.snapshot())

        def note(event):
            if event.stage == "embedding" and event.done == 10:
                other = threading.Thread(target=lambda: seen.append(run.snapshot()))
                other.start()
                other.join()

        train(fake(steps=30), run=run, progress=note)
        self.assertEqual((seen[0].stage, seen[0].done, seen[0].total), ("embedding", 10, 30))
        self.assertEqual((run.snapshot().stage, run.snapshot().done), ("layers", 30))

    def test_what_is_drawn_so_far_can_be_taken_while_a_call_draws(self):
        run, rows = sitter.Run(), []
        self.assertIsNone(run.tokens())

        def note(event):
            drawn = run.tokens(1)
            rows.append((event.done, 0 if drawn is None else drawn.shape[0]))

        fake(steps=4).sample("x", count=2, seed=7, run=run, progress=note)
        self.assertLessEqual({(1, 0), (2, 1), (3, 1), (4, 2)}, set(rows))
        self.assertEqual((run.tokens(0).grid.tolist(), run.tokens(2)), ([[7, 7], [7, 7]], None))
        with self.assertRaisesRegex(sitter.InvalidArgument, "picture"):
            run.tokens(-1)

    def test_what_is_drawn_so_far_is_decoded_by_another_thread_meanwhile(self):
        model = sitter.Model.open("fake:steps=40,step_ms=10", max_jobs=2)
        run, pictures, stages = sitter.Run(), [], []

        def note(event):
            stages.append((event.stage, len(pictures)))
            if event.done == 20 and not threads:
                threads.append(threading.Thread(target=lambda: pictures.append(quick.decode(run.tokens()))))
                threads[0].start()

        quick, threads = model, []
        model.sample("x", seed=9, run=run, progress=note)
        threads[0].join()
        self.assertEqual((pictures[0].shape, pictures[0][0, 0, 0]), ((1, 2, 3), 9))

    def test_a_run_serves_one_call(self):
        run = sitter.Run()
        train(fake(), run=run)
        with self.assertRaisesRegex(sitter.InvalidState, "new one"):
            train(fake(), run=run)
        run.cancel()
        run.finish_early()


class Threads(unittest.TestCase):
    def test_calls_on_several_models_work_at_the_same_time(self):
        # Opens only when all four are inside their calls.
        together, threads, passed = threading.Barrier(4, timeout=20), [], []

        def meet(event):
            if event.stage == "layers" and event.done == 1:
                passed.append(together.wait())

        for _ in range(4):
            thread = threading.Thread(target=train, args=(fake(steps=1),), kwargs={"progress": meet})
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(passed), [0, 1, 2, 3])

    def test_one_model_takes_as_many_jobs_as_it_was_opened_for(self):
        def stages(max_jobs):
            model, found = sitter.Model.open("fake:steps=20,step_ms=10", max_jobs=max_jobs), []
            note = lambda event: found.append(event.stage)
            threads = [threading.Thread(target=train, args=(model,), kwargs={"progress": note}) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return set(found)

        self.assertIn("waiting", stages(1))
        self.assertNotIn("waiting", stages(2))

    def test_a_model_closed_during_a_call_lives_to_its_end(self):
        model = fake(steps=20, step_ms=5)
        with after(0.05, model.close):
            self.assertEqual(len(train(model).losses), 20)

    def test_python_goes_on_during_a_call(self):
        counted = 0
        thread = threading.Thread(target=train, args=(fake(steps=1, step_ms=300),))
        thread.start()
        while thread.is_alive():
            counted += 1
            time.sleep(0.001)
        self.assertGreater(counted, 20)

    def test_objects_are_freed_in_any_order_from_any_thread(self):
        for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
            model = fake()
            things = [model, train(model), model.sample("x")[0], sitter.Run()]
            del model

            def drop():
                for i in order:
                    things[i] = None
                    gc.collect()

            thread = threading.Thread(target=drop)
            thread.start()
            thread.join()


if __name__ == "__main__":
    unittest.main()
