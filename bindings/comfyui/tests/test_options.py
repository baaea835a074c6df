"""Widgets and the library's options."""
import unittest

from . import need

need("numpy", "PIL")

from sitter import _abi  # noqa: E402
from sitter_nodes import options  # noqa: E402
from sitter_nodes.messages import NodeError  # noqa: E402
from sitter_nodes.nodes_picture import DRAWING, NOT_OFFERED  # noqa: E402

ALL = options.STEPS + options.OPTIONS


class OptionsTest(unittest.TestCase):
    def test_every_option_of_the_library_has_a_widget_or_a_reason(self):
        prefix = "sitter_train_options_set_"
        known = {name[len(prefix):] for name in _abi.PROTOTYPES if name.startswith(prefix)}
        self.assertEqual({option.name for option in ALL} | set(options.OTHER), known)

    def test_every_drawing_option_of_the_library_has_a_widget_or_a_reason(self):
        prefix = "sitter_sample_options_set_"
        known = {name[len(prefix):] for name in _abi.PROTOTYPES if name.startswith(prefix)}
        self.assertEqual({option.name for option in DRAWING} | {"seed", *NOT_OFFERED}, known)

    def test_no_path_can_be_set_by_a_workflow(self):
        self.assertNotIn("checkpoint_path", {option.name for option in ALL})

    def test_untouched_widgets_set_nothing(self):
        self.assertEqual(options.chosen(ALL, {option.name: option.unset for option in ALL}), {})
        self.assertEqual(options.chosen(ALL, {}), {})

    def test_zero_is_a_value(self):
        self.assertEqual(options.chosen(ALL, {"embedding_steps": 0, "dropout": 0.0}), {"embedding_steps": 0, "dropout": 0.0})

    def test_values_arrive_as_the_library_takes_them(self):
        given = {"flip": "yes", "augment_aligned": "no", "layers": "0, 2,4", "trainable": "all", "initial_word": " dog ",
                 "templates": "a {}\n\n the {} \n"}
        wanted = {"flip": True, "augment_aligned": False, "layers": [0, 2, 4], "trainable": "all", "initial_word": "dog",
                  "templates": ["a {}", "the {}"]}
        self.assertEqual(options.chosen(ALL, given), wanted)

    def test_a_wrong_list_of_layers_names_the_field(self):
        with self.assertRaisesRegex(NodeError, "^layers: "):
            options.chosen(ALL, {"layers": "first"})

    def test_lists_of_scales_are_numbers(self):
        given = {"guidance_by_scale": "4, 3 2.5", "temperature_by_scale": " ", "top_p": 0.0}
        self.assertEqual(options.chosen(DRAWING, given), {"guidance_by_scale": [4.0, 3.0, 2.5], "top_p": 0.0})
        with self.assertRaisesRegex(NodeError, "^temperature_by_scale: 'hot' is no list of numbers"):
            options.chosen(DRAWING, {"temperature_by_scale": "hot"})

    def test_help_says_what_leaving_it_alone_means(self):
        for option in ALL + DRAWING:
            self.assertIn("as the model and the method recommend (", option.help)
