"""Pictures in every form: what arrives is looked at through the fake model, which gives the first byte back."""
import tempfile
import unittest
from pathlib import Path

import numpy as np

import sitter
from sitter.images import picture, pictures, to_array
from support import FOX

try:
    from PIL import Image
except ImportError:
    Image = None

RANDOM = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
RGB = RANDOM[:, :, :3]


def arrived(image):
    return to_array(picture(image))


def whitened(rgba):
    """As src/picture/read.rs has it: f64, truncated."""
    alpha = rgba[:, :, -1:] / 255.0
    return ((1.0 - alpha) * 255.0 + alpha * rgba[:, :, :-1]).astype(np.uint8)


class Tensor:
    """What torch tensors have that matters here."""

    def __init__(self, array, known=True):
        self.array, self.known, self.moved = np.asarray(array), known, False

    def detach(self):
        return self

    def cpu(self):
        moved = Tensor(self.array, self.known)
        moved.moved = True
        return moved

    def float(self):
        return self.array.astype(np.float32)

    def __array__(self, dtype=None, copy=None):
        if not (self.moved and self.known):
            raise TypeError("can't convert to numpy")
        return self.array


class Arrays(unittest.TestCase):
    def same(self, image, expected):
        np.testing.assert_array_equal(arrived(image), expected)

    def test_bytes_arrive_as_they_are_whatever_their_strides(self):
        self.same(RGB.copy(), RGB)
        self.same(RGB, RGB)
        self.same(RGB[::-1, ::-2], RGB[::-1, ::-2])
        self.same(np.asfortranarray(RGB), RGB)
        frozen = RGB.copy()
        frozen.flags.writeable = False
        self.same(frozen, RGB)

    def test_grey_becomes_rgb(self):
        grey = RGB[:, :, 0]
        self.same(grey, np.stack([grey] * 3, 2))
        self.same(grey[:, :, None], np.stack([grey] * 3, 2))

    def test_transparency_is_laid_on_white(self):
        self.same(RANDOM, whitened(RANDOM))
        self.same(RANDOM[:, :, 2:], np.repeat(whitened(RANDOM[:, :, 2:]), 3, 2))
        opaque = RANDOM.copy()
        opaque[:, :, 3] = 255
        self.same(opaque, RGB)
        floats = RANDOM.astype(np.float32) / 255
        self.same(floats, whitened(RANDOM))
        floats[0, 0, 0] = np.nan
        with self.assertRaisesRegex(sitter.InvalidArgument, "NaN"):
            picture(floats)

    def test_floats_go_from_0_to_1_and_are_clipped(self):
        for kind in (np.float16, np.float32, np.float64, ">f4"):
            self.same((RGB / 255).astype(kind), RGB)
        self.same(np.array([[[-0.2, 0.5, 1.5]]]), [[[0, 128, 255]]])
        for wrong in (RGB.astype(float), np.full((2, 2, 3), np.inf), np.full((2, 2, 3), -np.inf), np.full((2, 2, 3), np.nan)):
            with self.assertRaises(sitter.InvalidArgument):
                picture(wrong)

    def test_floats_from_minus_1_are_refused_instead_of_losing_their_shadows(self):
        for scaled in (RGB / 127.5 - 1, Tensor((RGB / 127.5 - 1).astype(np.float16), known=False)):
            with self.assertRaisesRegex(sitter.InvalidArgument, r"from -[\d.]+; bring them there by \(x \+ 1\) / 2"):
                picture(scaled)

    def test_a_batch_is_as_many_pictures(self):
        batch = np.stack([RGB, 255 - RGB]).astype(np.float32) / 255
        found = [to_array(p) for p in pictures([batch, RGB, (RGB,)])]
        self.assertEqual(len(found), 4)
        np.testing.assert_array_equal(found[1], 255 - RGB)
        self.same(batch[:1], RGB)
        with self.assertRaisesRegex(sitter.InvalidArgument, "one picture is needed, 2"):
            picture(batch)

    def test_tensors_are_taken_off_their_device_and_brought_to_a_type_numpy_knows(self):
        self.same(Tensor(RGB), RGB)
        self.same(Tensor((RGB / 255).astype(np.float16)[None], known=False), RGB)

    def test_what_is_no_picture_is_refused_with_its_shape_or_type(self):
        wrong = [
            (np.zeros((3, 8, 8), np.uint8), r"\[3, 8, 8\]"), (np.zeros(8, np.uint8), r"\[8\]"), (np.uint8(3), r"\[\]"),
            (np.zeros((0, 8, 3), np.uint8), r"\[0, 8, 3\]"), (np.zeros((8, 8, 3), np.int64), "int64.*sitter.Tokens"),
            (np.zeros((8, 8, 3), bool), "bool"), (np.zeros((8, 8, 3), complex), "complex"),
        ]
        for image, pattern in wrong:
            with self.subTest(pattern), self.assertRaisesRegex(sitter.InvalidArgument, pattern):
                picture(image)
        for image in (None, 3, b"x.png", object()):
            with self.subTest(image), self.assertRaisesRegex(TypeError, "image must be"):
                picture(image)


class Files(unittest.TestCase):
    def test_paths_of_both_kinds_are_read(self):
        self.assertEqual(arrived(FOX[0]).shape, (128, 128, 3))
        np.testing.assert_array_equal(arrived(str(FOX[0])), arrived(FOX[0]))
        with self.assertRaisesRegex(sitter.NotFound, "none.png"):
            picture(Path("none.png"))


@unittest.skipIf(Image is None, "Pillow is not installed")
class Pillow(unittest.TestCase):
    def test_pictures_in_memory_arrive_as_their_files_do(self):
        grey = Image.fromarray(RANDOM[:, :, 0])
        palette = Image.fromarray(RGB).convert("P")
        deep = Image.fromarray(RANDOM[:, :, 0].astype(np.uint16) * 256 + 3)
        cases = {
            "rgb": (Image.fromarray(RGB), {}), "rgba": (Image.fromarray(RANDOM), {}), "grey": (grey, {}),
            "grey, alpha": (Image.fromarray(RANDOM).convert("LA"), {}), "one bit": (grey.convert("1"), {}),
            "palette": (palette, {}), "palette, transparent": (palette, {"transparency": 3}),
            "rgb, colour key": (Image.fromarray(RGB), {"transparency": tuple(map(int, RGB[0, 0]))}), "16 bits": (deep, {}),
        }
        with tempfile.TemporaryDirectory() as folder:
            for name, (image, extra) in cases.items():
                path = Path(folder) / f"{name}.png"
                image.save(path, **extra)
                with self.subTest(name), Image.open(path) as opened:
                    np.testing.assert_array_equal(arrived(opened), arrived(path))

    def test_modes_whose_white_is_not_known_are_refused_by_name(self):
        whole = np.array([[0, 128], [255, 70000]], np.int32)
        wrong = {"I": [Image.fromarray(whole), Image.fromarray(-whole), Image.fromarray(RANDOM[:, :, 0]).convert("I")],
                 "F": [Image.fromarray(RANDOM[:, :, 0] / np.float32(255))], "LAB": [Image.new("LAB", (2, 2))]}
        for mode, images in wrong.items():
            for image in images:
                self.assertEqual(image.mode, mode)
                with self.subTest(mode), self.assertRaisesRegex(sitter.InvalidArgument, f"mode {mode}.*RGB"):
                    picture(image)

    def test_grey_of_16_bits_is_right_in_either_order_of_bytes(self):
        deep = RANDOM[:, :, 0].astype(np.uint16) * 256 + 3
        for mode, kind in (("I;16", "<u2"), ("I;16B", ">u2")):
            image = Image.frombytes(mode, (7, 5), deep.astype(kind).tobytes())
            with self.subTest(mode):
                np.testing.assert_array_equal(arrived(image), arrived(RANDOM[:, :, 0].copy()))

    def test_a_photo_taken_upright_is_upright(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "turned.jpg"
            Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(path, exif=exif)
            with Image.open(path) as opened:
                self.assertEqual(arrived(opened).shape, (16, 8, 3))
            self.assertEqual(arrived(path).shape, (16, 8, 3))

    def test_samples_are_pillow_images_if_asked_for(self):
        from support import fake

        image = fake().sample("x", seed=9)[0].image_pil
        self.assertEqual((image.mode, image.size, image.getpixel((0, 0))), ("RGB", (2, 2), (9, 9, 9)))


if __name__ == "__main__":
    unittest.main()
