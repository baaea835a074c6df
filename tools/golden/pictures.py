#!/usr/bin/env python3
"""Makes tests/golden/pictures/: small picture files and what Pillow reads from them, and digests of what Pillow's
resampling makes of large pictures that both sides compute from a formula.

Run by hand with Pillow and numpy:  python tools/golden/pictures.py
The committed files were made with Pillow 13.0.0, libjpeg-turbo behind it, and numpy 2.4.6. No random numbers.

The crop rule and the whitening of transparency below are written from the description of Lumina-mGPT's
preprocessing; resizing, cropping and decoding are Pillow's own.
"""

import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "pictures"


def formula(width, height):
    """The test picture: half noise, half slopes. tests/pictures.rs computes the same one."""
    x = np.arange(width, dtype=np.uint32)[None, :, None]
    y = np.arange(height, dtype=np.uint32)[:, None, None]
    c = np.arange(3, dtype=np.uint32)[None, None, :]
    h = (x * np.uint32(73856093)) ^ (y * np.uint32(19349663)) ^ (c * np.uint32(83492791))
    h = h ^ (h >> np.uint32(13))
    h = h * np.uint32(0x5BD1E995)
    h = h ^ (h >> np.uint32(15))
    slope = (x * np.uint32(3) + y * np.uint32(2) + c * np.uint32(40)) & np.uint32(255)
    return (((h & np.uint32(255)) + slope) // np.uint32(2)).astype(np.uint8)


def crop_sizes(target):
    budget = (target // 32) ** 2
    sizes, w, h = [], budget, 1
    while w > 0:
        if max(w, h) / min(w, h) <= 4.0:
            sizes.append((w * 32, h * 32))
        if (h + 1) * w <= budget:
            h += 1
        else:
            w -= 1
    return sizes


def fit(image, target, where):
    w, h = image.size
    scored = [(min(cw / w, ch / h) / max(cw / w, ch / h), (cw, ch)) for cw, ch in crop_sizes(target)]
    cw, ch = max(scored)[1]
    while image.size[0] >= 2 * cw and image.size[1] >= 2 * ch:
        image = image.resize((image.size[0] // 2, image.size[1] // 2), resample=Image.BOX)
    scale = max(cw / image.size[0], ch / image.size[1])
    image = image.resize((round(image.size[0] * scale), round(image.size[1] * scale)), resample=Image.BICUBIC)
    spare = (image.size[0] - cw, image.size[1] - ch)
    if where is None:
        left, top = spare[0] // 2, spare[1] // 2
    else:
        left, top = (min(int(f * (s + 1.0)), s) for f, s in zip(where, spare))
    return image.crop((left, top, left + cw, top + ch))


def fits():
    cases = []
    sizes = [(1000, 1000), (1024, 683), (4000, 3000), (2048, 1152), (333, 500), (97, 61), (768, 768), (1537, 1537),
             (3001, 2003), (120, 1000), (31, 17), (896, 608), (5, 5), (1792, 1216), (1100, 609),
             # More than twice as tall as wide: Pillow 13 makes the rows first where it shrinks them.
             (900, 2000), (501, 1003), (640, 2811), (1301, 2602), (777, 6001)]
    for size in sizes:
        for target in (512, 768):
            for where in (None, (0.0, 0.37), (0.9999, 0.81)):
                out = fit(Image.fromarray(formula(*size)), target, where)
                cases.append({"size": size, "target": target, "at": where, "out": out.size,
                              "sha256": hashlib.sha256(out.tobytes()).hexdigest()})
    return cases


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width, height, depth, colour, rows, before=b""):
    """A PNG of a kind that Pillow reads but does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = b"".join(b"\0" + row for row in rows)
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", zlib.compress(data, 9))
            + png_chunk(b"IEND", b""))


def whiten(image):
    """Lumina's conversion to RGB."""
    if image.mode == "RGB":
        return image
    rgba = np.array(image.convert("RGBA"))
    if not (rgba[:, :, 3] < 255).any():
        return image.convert("RGB")
    alpha = rgba[:, :, 3] / 255.0
    rgb = (1 - alpha[:, :, None]) * 255 + alpha[:, :, None] * rgba[:, :, :3]
    return Image.fromarray(rgb.astype("uint8"), "RGB")


def files():
    w, h = 13, 10
    rgb = formula(w, h)
    smooth = np.array(Image.fromarray(formula(4, 4)).resize((w * 2, h * 2), Image.BICUBIC))
    alpha = formula(w, h)[:, :, 1:2] // 3 * 3
    alpha[0] = 0
    alpha[1] = 255
    grey = rgb[:, :, 0]
    wide = np.stack([rgb.astype(np.uint16) * 257 ^ 0x5A, np.roll(rgb, 1, 1).astype(np.uint16) * 256 + 0xC0], 0)

    def save(name, image, **options):
        image.save(OUT / name, **options)

    save("grey1.png", Image.fromarray(grey).convert("1"))
    save("grey8.png", Image.fromarray(grey))
    save("grey_alpha.png", Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha[:, :, 0]))))
    save("rgb.png", Image.fromarray(rgb))
    save("rgba.png", Image.fromarray(np.concatenate([rgb, alpha], 2)))
    save("rgba_opaque.png", Image.fromarray(np.concatenate([rgb, np.full_like(alpha, 255)], 2)))
    palette = Image.fromarray(smooth).quantize(16)
    save("palette.png", palette)
    save("palette_transparent.png", palette, transparency=bytes(range(0, 256, 16)))
    save("rgb_colour_key.png", Image.fromarray(rgb), transparency=tuple(int(v) for v in rgb[3, 4]))
    save("grey_colour_key.png", Image.fromarray(grey), transparency=int(grey[3, 4]))
    (OUT / "grey2.png").write_bytes(raw_png(4, 3, 2, 0, [bytes([0b00011011]), bytes([0b11100100]), bytes([0x5A])]))
    (OUT / "grey4.png").write_bytes(raw_png(4, 2, 4, 0, [bytes([0x01, 0x7F]), bytes([0xA5, 0x3C])]))
    be = lambda a: [row.astype(">u2").tobytes() for row in a]
    (OUT / "rgb16.png").write_bytes(raw_png(w, h, 16, 2, be(wide[0])))
    (OUT / "rgba16.png").write_bytes(
        raw_png(w, h, 16, 6, be(np.concatenate([wide[1], alpha.astype(np.uint16) * 257], 2))))
    (OUT / "grey16.png").write_bytes(raw_png(w, h, 16, 0, be(wide[0][:, :, 0])))
    save("rgb.webp", Image.fromarray(rgb), lossless=True)
    save("rgba.webp", Image.fromarray(np.concatenate([rgb, alpha], 2)), lossless=True, exact=True)
    save("lossy.webp", Image.fromarray(smooth), quality=80)
    save("grey.jpg", Image.fromarray(smooth[:, :, 0]), quality=90)
    save("rgb.jpg", Image.fromarray(smooth), quality=90, subsampling=0)
    save("subsampled.jpg", Image.fromarray(smooth), quality=90, subsampling=2)
    save("progressive.jpg", Image.fromarray(smooth), quality=90, progressive=True)
    save("cmyk.jpg", Image.fromarray(smooth).convert("CMYK"), quality=95, subsampling=0)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"orientation{orientation}.png", Image.fromarray(rgb[:3, :5]), exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("orientation6.jpg", Image.fromarray(smooth), quality=90, subsampling=0, exif=exif)
    save("orientation6.webp", Image.fromarray(rgb), lossless=True, exif=exif)

    expected = []
    for path in sorted(OUT.iterdir()):
        if path.suffix == ".json":
            continue
        image = ImageOps.exif_transpose(Image.open(path))
        if image.mode == "I;16":
            # Pillow clips 16-bit grey at 255, which makes it white. The high byte is what it does for 16-bit colour.
            image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
        out = whiten(image)
        expected.append({"file": path.name, "size": out.size, "rgb": out.tobytes().hex(),
                         "exact": path.suffix != ".jpg"})
    return expected


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    golden = {"pillow": PIL.__version__, "files": files(), "fits": fits()}
    lines = json.dumps(golden).replace('{"file"', '\n{"file"').replace('{"size"', '\n{"size"')
    (OUT / "expected.json").write_text(lines + "\n")
    print(sum(p.stat().st_size for p in OUT.iterdir()), "bytes")
