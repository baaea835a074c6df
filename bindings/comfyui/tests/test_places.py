"""Names from workflows cannot leave the allowed folders."""
import os
import tempfile
import unittest

from sitter_nodes import places
from sitter_nodes.messages import NodeError

HOSTILE = ["..", "../x", "a/../../x", "/etc/passwd", "", "a\0b", "\\\\host\\share", "..\\x", "."]


class PlacesTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = os.path.join(self.folder.name, "root")
        os.makedirs(self.root)

    def write(self, name, text="x"):
        path = os.path.join(self.folder.name, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        return path

    def test_hostile_names_lead_nowhere(self):
        self.write("x/config.json")
        self.write("secret.safetensors")
        for name in HOSTILE:
            with self.subTest(name=name):
                self.assertIsNone(places.below(self.root, name))
                with self.assertRaisesRegex(NodeError, "^model: "):
                    places.model_path(name, [self.root])
                with self.assertRaisesRegex(NodeError, "^subject: "):
                    places.subject_path(name + ".safetensors" if name == "../secret" else name, [self.root])

    def test_a_folder_beside_the_root_with_its_name_as_beginning_is_outside(self):
        self.write("root2/config.json")
        self.assertIsNone(places.below(self.root, "../root2"))

    def test_models_are_folders_with_a_configuration_directly_or_one_level_down(self):
        self.write("root/lumina/config.json")
        self.write("root/family/small/config.json")
        self.write("root/notes/readme.txt")
        self.assertEqual(places.models([self.root, "/nowhere"]), ["embedded:", "embedded:infinity", "family/small", "lumina"])
        self.assertEqual(places.model_path("lumina", [self.root]), os.path.join(self.root, "lumina"))
        for name in ("embedded:", "embedded:infinity"):
            self.assertEqual(places.model_path(name, []), name)

    def test_a_folder_of_weights_beside_its_text_encoder_is_one_model(self):
        self.write("root/Infinity-2B/infinity_2b_reg.pth")
        self.write("root/Infinity-2B/flan-t5-xl/config.json")
        self.write("root/not/a/config.json")
        self.write("root/other/notes.txt")
        self.assertEqual(places.models([self.root]), ["embedded:", "embedded:infinity", "Infinity-2B", "not/a"])
        self.assertEqual(places.model_path("Infinity-2B", [self.root]), os.path.join(self.root, "Infinity-2B"))
        with self.assertRaises(NodeError):
            places.model_path("other", [self.root])

    def test_other_names_of_the_library_are_not_models(self):
        with self.assertRaises(NodeError):
            places.model_path("fake:steps=3", [self.root])

    def test_only_subject_files_are_listed_and_read_newest_first(self):
        old, new = self.write("root/old.safetensors"), self.write("root/fox/new.safetensors")
        self.write("root/other.ckpt")
        os.utime(old, (1, 1))
        self.assertEqual(places.subjects([self.root]), ["fox/new.safetensors", "old.safetensors"])
        self.assertEqual(places.subject_path("fox/new.safetensors", [self.root]), new)
        with self.assertRaises(NodeError):
            places.subject_path("other.ckpt", [self.root])

    def test_new_files_are_numbered_and_overwrite_nothing(self):
        first = places.new_file(self.root, "fox/mine")
        self.assertEqual(os.path.relpath(first, self.root), os.path.join("fox", "mine_00001.safetensors"))
        self.write("root/fox/mine_00007.safetensors")
        self.assertTrue(places.new_file(self.root, "fox/mine").endswith("mine_00008.safetensors"))

    def test_hostile_prefixes_make_no_file_and_no_folder(self):
        for prefix in ["../x", "a/../../x", "..", "", "a/..", "C:x", "a\0b", "con|x"]:
            with self.subTest(prefix=prefix), self.assertRaisesRegex(NodeError, "^filename_prefix: "):
                places.new_file(self.root, prefix)
        self.assertEqual(os.listdir(self.root), [])

    def test_an_absolute_prefix_stays_below_the_root(self):
        self.assertTrue(places.new_file(self.root, "/etc/x").startswith(self.root + os.sep))

    def test_the_fingerprint_follows_content_size_time_and_names_down_the_tree(self):
        seen = set()
        path = self.write("root/m/tokenizer/vqgan.yaml", "a")
        folder = os.path.join(self.root, "m")
        for change in (lambda: None, lambda: self.write("root/m/tokenizer/vqgan.yaml", "b"), lambda: os.utime(path, (5, 5)),
                       lambda: self.write("root/m/config.json")):
            change()
            seen.add(places.fingerprint(folder))
            self.assertEqual(places.fingerprint(folder), places.fingerprint(folder))
        self.assertEqual(len(seen), 4)

    def test_weights_that_sitter_keeps_beside_a_model_do_not_change_its_fingerprint(self):
        folder = os.path.join(self.root, "kept")
        os.makedirs(folder)
        with open(os.path.join(folder, "model.safetensors"), "wb") as file:
            file.write(b"weights")
        before = places.fingerprint(folder)
        with open(os.path.join(folder, "sitter.q4_k.safetensors"), "wb") as file:
            file.write(b"the same weights")
        self.assertEqual(places.fingerprint(folder), before)

    def test_the_fingerprint_of_what_is_not_there_does_not_raise(self):
        self.assertEqual(places.fingerprint(os.path.join(self.root, "gone")), places.fingerprint("/nowhere"))
