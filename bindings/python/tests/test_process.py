"""The end of the process, and its forks."""
import os
import sys
import unittest

from support import program

OBJECTS = """
    import sitter, numpy as np
    model = sitter.Model.open("fake:steps=2")
    subject = model.train(np.zeros((8, 8, 3), np.uint8), "dog")
    samples = model.sample("x", count=3)
    samples[0].image
    run = sitter.Run()
"""


class End(unittest.TestCase):
    def ends_well(self, source, code=0, **environment):
        done = program(source, "-X", "faulthandler", **environment)
        self.assertEqual((done.returncode, done.stderr), (code, ""))
        return done.stdout

    def test_live_objects_at_exit_are_harmless(self):
        self.ends_well(OBJECTS)
        self.ends_well(OBJECTS + "    raise SystemExit(3)", 3)
        # Objects in a cycle, and those that go when modules are torn down.
        self.ends_well(OBJECTS + "    import sys; sys.kept = [model, subject, samples]; sys.kept.append(sys.kept)")

    def test_a_daemon_thread_at_work_is_stopped(self):
        for call in ("model.train(pixels, 'dog')", "model.encode(pixels, progress=lambda e: None)", "quick.encode(pixels)"):
            self.ends_well(f"""
                import sitter, threading, time, numpy as np
                model, pixels = sitter.Model.open("fake:steps=100000,step_ms=5"), np.zeros((8, 8, 3), np.uint8)
                quick = sitter.Model.open("fake:steps=2,step_ms=1")
                def work():
                    while True:
                        try: {call}
                        except sitter.Cancelled: pass
                        except sitter.InvalidState: break
                threading.Thread(target=work, daemon=True).start()
                time.sleep(0.2)
            """)

    def test_control_c_ends_a_program_as_usual(self):
        done = program("""
            import os, signal, sitter, threading, numpy as np
            signal.signal(signal.SIGINT, signal.default_int_handler)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            sitter.Model.open("fake:steps=100000,step_ms=5").train(np.zeros((8, 8, 3), np.uint8), "dog")
        """)
        self.assertIn("KeyboardInterrupt", done.stderr)
        self.assertIn(done.returncode, (-2, 130))

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")
    def test_objects_of_the_parent_give_a_clear_error_in_a_forked_child(self):
        flags = "error::DeprecationWarning" if sys.version_info < (3, 12) else "ignore"
        printed = self.ends_well(OBJECTS + """
    import multiprocessing, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    def child(answers):
        for use in (lambda: model.info, lambda: model.sample("x"), lambda: samples[1].image, lambda: subject.losses):
            try: use()
            except sitter.Forked as e: answers.put(str(e))
        global_names = globals()
        for name in ("model", "subject", "samples", "run"): del global_names[name]
        answers.put(sitter.version())
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=child, args=(answers,))
    process.start()
    found = [answers.get(timeout=20) for _ in range(5)]
    process.join(20)
    assert process.exitcode == 0, process.exitcode
    assert all("forked" in text for text in found[:4]), found
    print(model.info["family"], found[-1] == sitter.version())
""", PYTHONWARNINGS=flags)
        self.assertEqual(printed, "fake True\n")

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")
    def test_a_child_forked_during_a_call_ends_at_once(self):
        self.ends_well("""
            import os, sitter, sys, threading, time, warnings, numpy as np
            warnings.simplefilter("ignore", DeprecationWarning)
            model = sitter.Model.open("fake:steps=60,step_ms=5")
            thread = threading.Thread(target=model.train, args=(np.zeros((8, 8, 3), np.uint8), "dog"))
            thread.start()
            time.sleep(0.1)
            pid = os.fork()
            if pid == 0:
                sys.exit(7)
            started = time.monotonic()
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
            assert time.monotonic() - started < 2
            thread.join()
        """)

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")
    def test_a_child_opens_models_of_its_own(self):
        printed = self.ends_well(OBJECTS + """
    import warnings, os, sys
    warnings.simplefilter("ignore", DeprecationWarning)
    pid = os.fork()
    if pid == 0:
        print(sitter.Model.open("fake:").sample("x", seed=4)[0].image[0, 0, 0], flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
""")
        self.assertEqual(printed, "4\n")


if __name__ == "__main__":
    unittest.main()
