"""Writes example_workflows/*.jpg, which the template browser shows, from what the workflows drew.

    python bindings/comfyui/tests/real_host.py --comfyui DIR --full --pictures OUT
    python bindings/comfyui/tools/make_thumbnails.py OUT
"""
from __future__ import annotations

import os
import sys

from PIL import Image

PACK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIDE = 480
# Of each workflow the pictures that real_host.py keeps of it; of two subjects, and of what needs a download, what they are
# taught from.
SHOWN = {
    "1_first_picture": ["first_picture", "first_picture1", "first_picture2", "first_picture3"],
    "2_teach_a_subject": ["teach"],
    "3_two_subjects": [os.path.join(PACK, "pictures", *path) for path in (("fox", "3"), ("robot", "3"), ("robot", "1"), ("fox", "1"))],
    "4_compare_methods": ["4_compare_methods"],
    "5_janus_pro": [os.path.join(PACK, "pictures", "dog", str(number)) for number in (1, 2, 3, 4)],
    "6_infinity": [os.path.join(PACK, "pictures", "robot", str(number)) for number in (1, 2, 3, 4)],
}


def thumbnail(images: list[Image.Image]) -> Image.Image:
    """Square: four pictures in two rows, or the middle of one."""
    if len(images) == 4:
        sheet = Image.new("RGB", (SIDE, SIDE))
        for i, image in enumerate(images):
            sheet.paste(image.resize((SIDE // 2, SIDE // 2), Image.Resampling.LANCZOS), (i % 2 * SIDE // 2, i // 2 * SIDE // 2))
        return sheet
    image = images[0]
    side = min(image.size)
    return image.crop((0, 0, side, side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main(folder: str) -> None:
    for name, files in SHOWN.items():
        images = [Image.open(os.path.join(folder, file + ".png")).convert("RGB") for file in files]
        path = os.path.join(PACK, "example_workflows", name + ".jpg")
        thumbnail(images).save(path, quality=85, optimize=True)
        print(f"{path}: {os.path.getsize(path) >> 10} KiB")


if __name__ == "__main__":
    main(sys.argv[1])
