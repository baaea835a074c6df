"""Long calls that are awaited."""
import asyncio
import contextvars
import gc
import threading
import time
import unittest
import weakref

import sitter
from support import PIXELS, fake, program

# Seconds within which a call has to stop.
SOON = 1.0
LONG = dict(steps=100_000, step_ms=5)


class Awaited(unittest.IsolatedAsyncioTestCase):
    async def test_every_long_call_can_be_awaited(self):
        model = await sitter.Model.open_async("fake:steps=2", threads=1)
        subject = await model.train_async(PIXELS, "dog", seed=1, layer_steps=2)
        tokens = await model.encode_async(PIXELS)
        self.assertEqual((await model.decode_async(tokens)).tolist(), model.decode(tokens).tolist())
        self.assertEqual(await model.score_async("four", PIXELS, subjects=[subject]), 4.0)
        (sample,) = await model.sample_async("a [V] dog", subjects=subject, seed=9)
        self.assertEqual(sample.tokens.grid[0, 0], 9)

    async def test_the_loop_goes_on_meanwhile_and_calls_of_several_models_work_at_once(self):
        turns = 0

        async def turn():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.005)

        turning = asyncio.create_task(turn())
        started = time.monotonic()
        await asyncio.gather(*(fake(steps=1, step_ms=200).sample_async("x") for _ in range(40)))
        self.assertLess(time.monotonic() - started, 4)
        turning.cancel()
        self.assertGreater(turns, 10)

    async def test_cancelling_the_task_stops_the_work_and_waits_for_its_end(self):
        model = fake(**LONG)
        calls = [lambda **k: model.train_async(PIXELS, "dog", **k), lambda **k: model.sample_async("x", **k),
                 lambda **k: model.score_async("x", [PIXELS], **k), lambda **k: model.encode_async(PIXELS, **k),
                 lambda **k: model.decode_async([[1]], **k), lambda **k: sitter.Model.open_async("fake:steps=100000,step_ms=5,open=1", **k)]
        for call in calls:
            with self.subTest(call):
                run = sitter.Run()
                task = asyncio.create_task(call(run=run))
                await asyncio.sleep(0.1)
                self.assertEqual(run.snapshot().stage in sitter.run.STAGES.values(), True)
                started = time.monotonic()
                task.cancel()
                # Again, while it waits for the end.
                asyncio.get_running_loop().call_later(0.001, task.cancel)
                with self.assertRaises(asyncio.CancelledError):
                    await task
                self.assertLess(time.monotonic() - started, SOON)
                self.assertEqual(sitter.run._at_work, set())

    async def test_a_timeout_is_a_timeout(self):
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(fake(**LONG).train_async(PIXELS, "dog"), 0.1)
        self.assertEqual(sitter.run._at_work, set())

    async def test_the_run_cancels_and_finishes_early_as_elsewhere(self):
        for stop, expected in (("cancel", sitter.Cancelled), ("finish_early", None)):
            run = sitter.Run()
            asyncio.get_running_loop().call_later(0.1, getattr(run, stop))
            working = fake(**LONG).train_async(PIXELS, "dog", run=run)
            if expected is None:
                self.assertEqual((await working).info["identifier"], "[V]")
            else:
                with self.assertRaises(expected):
                    await working

    async def test_progress_is_told_by_the_loop_and_what_it_raises_stops_the_call(self):
        events, threads, here = [], set(), threading.get_ident()
        kind = contextvars.ContextVar("kind", default="none")
        kind.set("mine")

        def note(event):
            events.append(event)
            threads.add((threading.get_ident(), kind.get()))

        await fake(steps=3, step_ms=5).train_async(PIXELS, "dog", progress=note)
        self.assertEqual(threads, {(here, "mine")})
        self.assertEqual((events[-1].stage, events[-1].done), ("layers", 3))

        class Mine(Exception):
            pass

        def broken(event):
            raise Mine

        started = time.monotonic()
        with self.assertRaises(Mine):
            await fake(**LONG).sample_async("x", progress=broken)
        self.assertLess(time.monotonic() - started, SOON)

    async def test_errors_come_out_as_they_are(self):
        model = fake(steps=2, fail_at=1)
        with self.assertRaisesRegex(sitter.InternalError, "fails at step 1"):
            await model.sample_async("x")
        with self.assertRaisesRegex(TypeError, "embeding_steps.*embedding_steps"):
            await model.train_async(PIXELS, "dog", embeding_steps=3)
        with self.assertRaises(sitter.NotFound):
            await sitter.Model.open_async("/none/such")
        with self.assertRaises(TypeError):
            await model.sample_async()
        with self.assertRaisesRegex(TypeError, "progress"):
            await model.sample_async("x", progress=3)

    async def test_nothing_is_left_of_a_call(self):
        class Mine(Exception):
            pass

        kept = []

        def broken(event):
            error = Mine()
            kept.append(weakref.ref(error))
            raise error

        gc.collect()
        gc.disable()
        try:
            try:
                await fake(steps=50, step_ms=5).sample_async("x", progress=broken)
            except Mine:
                pass
            await asyncio.sleep(0.05)
            gc.collect()
            self.assertIsNone(kept[0]())
        finally:
            gc.enable()


class End(unittest.TestCase):
    def test_a_program_that_ends_with_a_call_under_way_ends_at_once(self):
        for last in ("asyncio.run(main())", "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close()"):
            started = time.monotonic()
            done = program(f"""
                import asyncio, sitter, numpy as np
                model = sitter.Model.open("fake:steps=100000,step_ms=5")
                async def main():
                    global task
                    task = asyncio.ensure_future(model.train_async(np.zeros((8, 8, 3), np.uint8), "dog"))
                    await asyncio.sleep(0.2)
                {last}
                print("end")
            """)
            self.assertEqual((done.returncode, done.stdout), (0, "end\n"), done.stderr)
            self.assertLess(time.monotonic() - started, 20)

    def test_control_c_ends_asyncio_run(self):
        done = program("""
            import asyncio, os, signal, sitter, threading, numpy as np
            signal.signal(signal.SIGINT, signal.default_int_handler)
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            async def main():
                model = await sitter.Model.open_async("fake:steps=100000,step_ms=5")
                await model.train_async(np.zeros((8, 8, 3), np.uint8), "dog")
            asyncio.run(main())
        """)
        self.assertIn("KeyboardInterrupt", done.stderr)


if __name__ == "__main__":
    unittest.main()
