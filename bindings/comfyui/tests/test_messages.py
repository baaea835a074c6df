"""Errors name the field and what to change."""
import unittest

from . import need

need("numpy", "PIL")

import sitter  # noqa: E402
from sitter_nodes import messages  # noqa: E402


class MessagesTest(unittest.TestCase):
    def test_every_sort_of_error_that_a_user_can_cause_gets_advice(self):
        for kind in (sitter.WrongModel, sitter.NotFound, sitter.FileError, sitter.BadFormat, sitter.UnsupportedModel,
                     sitter.OutOfMemory, sitter.DeviceError):
            with self.subTest(kind=kind.__name__):
                text = str(messages.explain(kind("what happened"), "model"))
                self.assertTrue(text.startswith("model: what happened. "), text)
                self.assertGreater(len(text), len("model: what happened. ") + 20)

    def test_the_advice_of_the_closest_kind_is_taken(self):
        self.assertIn("another kind", str(messages.explain(sitter.BadFormat("x"))))
        self.assertIn("Chameleon", str(messages.explain(sitter.UnsupportedModel("x"))))

    def test_what_names_its_field_already_is_left_as_it_is(self):
        error = sitter.InvalidArgument("class_word: is empty; say what the subject is")
        self.assertEqual(str(messages.explain(error)), "class_word: is empty; say what the subject is.")
        self.assertEqual(str(messages.explain(error, "class_word")), "class_word: is empty; say what the subject is.")

    def test_a_missing_package_and_a_missing_library_say_how_to_install(self):
        for error in (ImportError("no module"), sitter.LibraryError("libsitter.so is not there")):
            self.assertIn("pip install", str(messages.explain(error) if isinstance(error, sitter.Error) else messages.missing(error)))
