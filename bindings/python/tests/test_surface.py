"""The names of the package, its errors, its options, and how it finds the library."""
import errno
import inspect
import math
import os
import pickle
import tempfile
import types
import typing
import unittest
from pathlib import Path

import numpy as np

import sitter
from sitter import _abi, _library, errors
from support import PIXELS, fake, program, train


class Surface(unittest.TestCase):
    def test_the_library_says_what_it_is(self):
        self.assertRegex(sitter.version(), r"^\d+\.\d+\.\d+")
        self.assertEqual(sitter.build_info()["version"], sitter.version())
        self.assertIn("cpu", [device["name"] for device in sitter.devices()])

    def test_every_function_of_the_table_is_in_the_library(self):
        for name in _abi.PROTOTYPES:
            _library.library().function(name)

    def test_all_public_names_exist_and_say_what_they_are(self):
        for name in sitter.__all__:
            thing = getattr(sitter, name)
            self.assertTrue(thing.__doc__ or not isinstance(thing, (type, types.FunctionType)), name)

    def test_a_fake_model_goes_through_all_verbs(self):
        model = fake(steps=2)
        self.assertEqual(model.info["family"], "fake")
        tokens = model.encode(PIXELS)
        self.assertEqual(tokens.grid.tolist(), [[7, 7], [7, 7]])
        self.assertEqual((tokens.grid.dtype, tokens.shape), (np.int64, (2, 2)))
        self.assertEqual(model.decode(tokens).tolist(), np.full((2, 2, 3), 7).tolist())
        self.assertEqual(model.decode([[1, 2, 3]])[0, :, 0].tolist(), [1, 2, 3])
        self.assertEqual(model.score("four", PIXELS), 4.0)
        self.assertEqual(model.score("four", [tokens, PIXELS, np.stack([PIXELS, PIXELS])]), [4.0] * 4)
        subject = train(model, identifier="[D]")
        self.assertEqual((subject.info["identifier"], subject.info["class_word"]), ("[D]", "dog"))
        self.assertEqual(subject.losses, [("embedding", 0, 0.0), ("embedding", 1, 1.0)])
        first, second = model.sample("a [D] dog", count=2, seed=2**64 - 1, subjects=[subject])
        self.assertEqual([s.image[0, 0, 0] for s in (first, second)], [255, 0])

    def test_tokens_are_an_array_that_cannot_be_changed(self):
        tokens = sitter.Tokens(np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::-1])
        self.assertEqual(np.asarray(tokens).tolist(), [[2, 1, 0], [5, 4, 3]])
        self.assertEqual(np.asarray(tokens, np.float32).dtype, np.float32)
        with self.assertRaises(ValueError):
            tokens.grid[0, 0] = 1
        for wrong in ([1, 2], [[0.5]], [[-1]], [[2**32]]):
            with self.subTest(wrong), self.assertRaises(sitter.InvalidArgument):
                sitter.Tokens(wrong)
        with self.assertRaises(sitter.InvalidArgument):
            fake().decode([[256]])

    def test_a_closed_model_says_so_and_what_it_made_stays_usable(self):
        with fake() as model:
            (sample,) = model.sample("x", seed=5)
        with self.assertRaisesRegex(sitter.InvalidState, "closed"):
            model.info
        self.assertEqual(sample.image[0, 0, 0], 5)
        self.assertIn("closed", repr(model))

    def test_objects_refuse_to_be_pickled(self):
        for thing in (fake(), train(fake()), sitter.Tokens([[1]])):
            with self.subTest(thing), self.assertRaisesRegex(TypeError, "cannot be pickled"):
                pickle.dumps(thing)

    def test_a_subject_is_saved_and_loaded(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "dög.safetensors"
            subject = train(fake(steps=3))
            subject.save(path)
            loaded = sitter.Subject.load(str(path))
            self.assertEqual((loaded.info, loaded.losses), (subject.info, subject.losses))


class Errors(unittest.TestCase):
    def test_every_status_has_an_exception_that_can_be_pickled(self):
        for name, status in vars(_abi).items():
            if name.startswith("E_"):
                error = pickle.loads(pickle.dumps(errors.from_status(status, "text", "cause")))
                self.assertIsInstance(error, sitter.Error)
                self.assertEqual((str(error), error.status, error.detail), ("text", status, "cause"), name)
        self.assertIs(type(errors.from_status(399, "")), sitter.BadFormat)
        self.assertIs(type(errors.from_status(777, "")), sitter.Error)

    def test_errors_are_also_what_python_programs_expect(self):
        model, folder = fake(), tempfile.gettempdir()
        cases = [
            (FileNotFoundError, sitter.NotFound, lambda: sitter.Subject.load("/none/such.safetensors")),
            (OSError, sitter.NotFound, lambda: train(model).save("/none/such.safetensors")),
            (OSError, sitter.FileError, lambda: train(model).save(folder)),
            (ValueError, sitter.BadFormat, lambda: sitter.Subject.load(__file__)),
            (ValueError, sitter.BadFormat, lambda: model.encode(__file__)),
            (ValueError, sitter.InvalidArgument, lambda: model.train_options("magic")),
            (ValueError, sitter.InvalidArgument, lambda: sitter.Model.open("embedded:", dtype="f64")),
            (RuntimeError, sitter.InternalError, lambda: train(fake(fail_at=2))),
            (RuntimeError, sitter.InternalError, lambda: train(fake(panic_at=2))),
            (sitter.Error, sitter.NotFound, lambda: sitter.Model.open("/none/such")),
        ]
        for base, kind, failing in cases:
            with self.subTest(kind), self.assertRaises(base) as caught:
                failing()
            self.assertIsInstance(caught.exception, kind)
            self.assertTrue(str(caught.exception))

    def test_errors_of_files_have_number_and_name_as_every_oserror_has(self):
        model = fake()
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "a: b"
            place.mkdir()
            for path in ("/none/such.safetensors", str(place / "none.png"), str(place / "c: d.safetensors")):
                with self.subTest(path), self.assertRaises(FileNotFoundError) as caught:
                    sitter.Subject.load(path)
                error = caught.exception
                self.assertEqual((error.errno, error.filename, error.strerror), (errno.ENOENT, path, os.strerror(errno.ENOENT)))
                self.assertTrue(str(error).startswith(path + ": "), str(error))
                copied = pickle.loads(pickle.dumps(error))
                self.assertEqual((copied.errno, copied.filename, str(copied)), (error.errno, path, str(error)))
            with self.assertRaises(sitter.FileError) as caught:
                train(model).save(place)
            self.assertEqual(caught.exception.errno, errno.EISDIR)
            self.assertEqual(caught.exception.filename, str(place))
        with self.assertRaises(sitter.NotFound) as caught:
            sitter.Model.open("/none/such")
        self.assertEqual((caught.exception.errno, caught.exception.filename), (errno.ENOENT, "/none/such"))

    def test_a_panic_is_told_apart_by_its_status_and_names_its_place(self):
        with self.assertRaisesRegex(sitter.InternalError, "fake.rs") as caught:
            train(fake(panic_at=1))
        self.assertEqual(caught.exception.status, _abi.E_PANIC)

    def test_paths_and_texts_are_checked_before_they_are_cut_off(self):
        for wrong in (lambda: sitter.Subject.load("a\0b"), lambda: fake().score("a\0b", PIXELS)):
            with self.assertRaisesRegex(sitter.InvalidArgument, "NUL"):
                wrong()
        with self.assertRaises(sitter.InvalidArgument):
            sitter.Subject.load("\udcff")
        with self.assertRaisesRegex(TypeError, "prompt must be a str"):
            fake().sample(7)
        with self.assertRaisesRegex(TypeError, "path"):
            sitter.Subject.load(7)


class Options(unittest.TestCase):
    def test_the_defaults_are_those_of_the_model_and_the_method(self):
        model = fake()
        self.assertEqual(model.sample_options()["width"], 16)
        self.assertEqual(model.train_options()["trainable"], "qkv")
        self.assertEqual(model.train_options("lora")["adaptation"], "low_rank")

    def test_every_default_can_be_given_back(self):
        model = fake()
        defaults = model.train_options()
        defaults.pop("class_word")
        self.assertEqual(model.train(PIXELS, "dog", **defaults).info["method"], "two_stage")
        self.assertEqual(len(model.sample("x", **model.sample_options())), 1)

    def test_options_of_all_types_reach_the_library(self):
        path = Path("some/checkpoint")
        given = dict(
            embedding_steps=np.int32(3), layer_learning_rate=np.float32(0.25), flip=np.bool_(True), random_crop=1, layers=[0, 2],
            templates=["a {}", "the {}"], checkpoint_path=path, initial_embedding=np.ones((2, 3), np.float32), clip_norm=2,
        )
        options = sitter.model.Options("train", None, None)
        for name, value in given.items():
            options.set(name, value)
        found = options.as_dict()
        self.assertEqual(found["initial_embedding"], [1.0] * 6)
        self.assertEqual((found["flip"], found["random_crop"], found["clip_norm"]), (True, True, 2.0))
        self.assertEqual((found["embedding_steps"], found["layers"]), (3, [0, 2]))
        self.assertEqual((found["templates"], found["checkpoint_path"]), (["a {}", "the {}"], str(path)))
        self.assertTrue(math.isclose(found["layer_learning_rate"], 0.25))
        for name in ("checkpoint_path", "initial_embedding", "initial_word"):
            options.set(name, None)
            self.assertIsNone(options.as_dict()[name], name)
        options.set("templates", [])
        self.assertEqual(options.as_dict()["templates"], [])

    def test_an_unknown_option_names_its_neighbours(self):
        with self.assertRaisesRegex(TypeError, "embeding_steps.*embedding_steps"):
            train(fake(), embeding_steps=3)
        with self.assertRaisesRegex(TypeError, "there are .*z_loss"):
            train(fake(), qqqq=3)

    def test_help_tells_every_option_and_what_it_means(self):
        told = inspect.getdoc(sitter.Model.train)
        for name in sitter.model.Options("train", None, None).names():
            self.assertRegex(told, rf"(?m)^{name}: |[. ]{name}: ", name)
        self.assertIn("Rank of low-rank changes", told)

    def test_the_types_for_checkers_have_the_librarys_options_and_names(self):
        keys = {kind: set(getattr(sitter, kind).__annotations__) for kind in ("SampleOptions", "TrainOptions", "AllTrainOptions")}
        own = {"class_word", "identifier", "seed"}
        self.assertEqual(keys["SampleOptions"], set(sitter.model.Options("sample", None).names()))
        train_names = set(sitter.model.Options("train", None, None).names())
        self.assertEqual(keys["TrainOptions"], train_names - own)
        # Python before 3.9 did not count those of the base.
        self.assertEqual(keys["AllTrainOptions"] | keys["TrainOptions"], train_names | {"method"})
        model = fake()
        for method in typing.get_args(sitter.Method):
            self.assertEqual(model.train_options(method)["method"], method)
        kinds = {"adaptation": sitter.Adaptation, "recompute": sitter.Recompute, "optimizer_state": sitter.OptimizerState}
        for name, kind in kinds.items():
            for value in typing.get_args(kind):
                train(model, **{name: value})
        for dtype in typing.get_args(sitter.Dtype):
            sitter.Model.open("fake:", dtype=dtype)
        for decoding in typing.get_args(sitter.Decoding):
            model.sample("x", decoding=decoding)

    def test_a_number_out_of_range_is_refused_without_a_range_that_is_not_its_own(self):
        for value, words in ((-1, "negative"), (2**32, "32 bits")):
            with self.assertRaisesRegex(sitter.InvalidArgument, f"embedding_steps: is {value}; .*{words}") as caught:
                train(fake(), embedding_steps=value)
            self.assertNotIn("allowed are", str(caught.exception))

    def test_a_value_of_the_wrong_type_names_its_option(self):
        wrong = dict(embedding_steps=3.5, layer_steps=True, beta1="0.9", flip="no", templates="a {}", layers=3, layer_stride=None,
                     checkpoint_path=3, initial_embedding="x", trainable=1)
        for name, value in wrong.items():
            with self.subTest(name), self.assertRaisesRegex(TypeError, name):
                train(fake(), **{name: value})

    def test_a_value_out_of_range_names_its_option(self):
        wrong = dict(embedding_steps=-1, layer_steps=2**32, batch_size=0, beta1=1.0, trainable="some", seed=2**64, layers=[-1],
                     checkpoint_path="a\0b", layer_learning_rate=float("nan"))
        for name, value in wrong.items():
            with self.subTest(name), self.assertRaisesRegex(sitter.InvalidArgument, name):
                train(fake(), **{name: value})

    def test_calls_check_their_other_arguments(self):
        model = fake()
        for count in (-1, 0, 257, 2**40):
            with self.assertRaisesRegex(sitter.InvalidArgument, f"count: is {count}; allowed are 1 to 256"):
                model.sample("x", count=count)
        for subjects in (["dog"], 7):
            with self.assertRaisesRegex(TypeError, "subjects"):
                model.sample("x", subjects=subjects)
        self.assertEqual(len(model.sample("x", subjects=None)), 1)
        self.assertEqual(model.score("four", PIXELS, subjects=None), 4.0)
        with self.assertRaisesRegex(sitter.InvalidArgument, "captions: 2 for 1"):
            train(model, captions=["a [V]", "the [V]"])
        with self.assertRaisesRegex(TypeError, "captions"):
            train(model, captions=[3])
        with self.assertRaisesRegex(TypeError, "progress"):
            train(model, progress=3)
        with self.assertRaisesRegex(TypeError, "run"):
            train(model, run=lambda: None)
        with self.assertRaises(sitter.InvalidArgument):
            model.train([], "dog")
        with self.assertRaisesRegex(sitter.InvalidArgument, "threads"):
            sitter.Model.open("fake:", threads=5000)


class Lookup(unittest.TestCase):
    def expect(self, library, *patterns, source="import sitter; sitter.version()"):
        done = program(source, SITTER_LIBRARY=library)
        self.assertEqual(done.returncode, 1, done.stderr)
        for pattern in ("sitter.errors.LibraryError", *patterns):
            self.assertIn(pattern, done.stderr)

    def test_importing_the_package_needs_no_library(self):
        self.assertEqual(program("import sitter", SITTER_LIBRARY="/none/such").returncode, 0)

    def test_a_missing_library_names_what_was_tried(self):
        self.expect("/none/such", "/none/such", "SITTER_LIBRARY")
        self.expect("", _library.FILE, "SITTER_LIBRARY is not set", source="""
            import sitter._library
            sitter._library.FILE = "lib-none.so"
            try: sitter.version()
            except sitter.LibraryError as e: e.args = (e.args[0].replace("lib-none.so", "%s"),); raise
        """ % _library.FILE)

    def test_a_file_that_is_no_library_is_named(self):
        self.expect(os.path.abspath(__file__), "test_surface.py cannot be loaded")

    def test_another_library_has_no_such_function(self):
        import _ctypes

        self.expect(_ctypes.__file__, "no function sitter_require_abi")

    def test_a_host_newer_than_the_library_is_told_both_versions(self):
        self.expect(os.environ["SITTER_LIBRARY"], "needs sitter ABI 1.99", "1.0", source="""
            import sitter._abi
            sitter._abi.ABI_MINOR = 99
            sitter.version()
        """)


if __name__ == "__main__":
    unittest.main()
