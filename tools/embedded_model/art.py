"""Drawings from the npm art packages, as RGBA pictures cropped to what they show.

Fluent 3D comes as WebP files named by code point, everything else as SVG in Iconify's JSON, named by icon. The colour
version of the Fluent gradient set is nearly the 3D drawing and is not used, so that a drawing held out in 3D stays unknown."""
import functools, io, json, os
import numpy as np
from PIL import Image, ImageDraw

SIDE = 192       # of a loaded drawing's longer edge

# The word that names the style in captions: the package's folder.
STYLES = {'rendered': 'fluent-emoji-3d', 'flat': 'fluent-emoji-flat', 'inked': 'fluent-emoji-high-contrast', 'shaded': 'noto',
          'classic': 'noto-v1', 'bold': 'twemoji', 'smooth': 'emojione'}
UNSEEN = 'outlined'                      # the transformer never sees this one
PACKAGES = {**STYLES, UNSEEN: 'fxemoji'}
# Icons whose name differs from the common one.
OTHER_NAMES = {
    'emojione': {'robot': 'robot-face'},
    'fxemoji': {'cat-face': 'cat', 'dog-face': 'dog', 'fox': 'foxsmiling', 'panda': 'pandaface', 'tiger-face': 'tiger',
                'rabbit-face': 'bunny', 'mouse-face': 'mouse', 'pig-face': 'pig', 'cow-face': 'cowface', 'monkey-face': 'monkeyface',
                'wolf': 'wolfface', 'hamster': 'hampster', 'jack-o-lantern': 'jackolantern', 'front-facing-baby-chick': 'frontfacingchick',
                'horse-face': 'horseface', 'dragon-face': 'dragonhead'}}


@functools.lru_cache(None)
def icons(raw, package):
    with open(f'{raw}/{package}/package/icons.json') as f: return json.load(f)


@functools.lru_cache(None)
def code_points(raw):
    """Icon name to Fluent 3D file, through the code points that the Noto package lists."""
    with open(f'{raw}/noto/package/chars.json') as f: chars = json.load(f)
    plain = lambda c: c.replace('-fe0f', '')
    files = {plain(f[:-5]): f for f in sorted(os.listdir(f'{raw}/fluent-emoji-3d/package/assets'))}
    return {name: files[plain(code)] for code, name in chars.items() if plain(code) in files}


def names(raw, style):
    """Every drawing of a style."""
    if style == 'rendered': return sorted(code_points(raw))
    return sorted(icons(raw, PACKAGES[style])['icons'])


def _svg(raw, package, name):
    d = icons(raw, package)
    name = OTHER_NAMES.get(package, {}).get(name, name)
    while name not in d['icons']: name = d['aliases'][name]['parent']
    i = d['icons'][name]
    w, h = i.get('width', d.get('width', 16)), i.get('height', d.get('height', 16))
    k = 256 / max(w, h)
    body = i['body'].replace('currentColor', '#26221f')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{w * k}" height="{h * k}" '
            f'viewBox="{i.get("left", d.get("left", 0))} {i.get("top", d.get("top", 0))} {w} {h}">{body}</svg>')


def _on_paper(im):
    """An ink drawing is holes and lines: what its outline encloses becomes white."""
    alpha = im.getchannel('A')
    wide = Image.new('L', (im.width + 2, im.height + 2), 0); wide.paste(alpha, (1, 1))
    mask = wide.point(lambda a: 255 if a > 100 else 0)
    ImageDraw.floodfill(mask, (0, 0), 128)
    inside = mask.point(lambda a: 0 if a == 128 else 255).crop((1, 1, im.width + 1, im.height + 1))
    paper = Image.new('RGBA', im.size, (250, 248, 244, 0)); paper.putalpha(inside)
    paper.alpha_composite(im)
    return paper


def load(raw, style, name):
    """One drawing, or KeyError where the style lacks it. A folder `drawings` of `keep` is enough where the packages are not."""
    kept = f'{raw}/drawings/{style}/{name}.png'
    return Image.open(kept).convert('RGBA') if os.path.exists(kept) else _load(raw, style, name)


def _load(raw, style, name):
    package = PACKAGES[style]
    if style == 'rendered':
        im = Image.open(f'{raw}/{package}/package/assets/{code_points(raw)[name]}').convert('RGBA')
    else:
        import resvg_py
        im = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=_svg(raw, package, name))))).convert('RGBA')
    box = im.getchannel('A').point(lambda a: 255 if a > 8 else 0).getbbox()
    if box is None: raise KeyError(name)
    im = im.crop(box)
    if style == 'inked': im = _on_paper(im)
    k = SIDE / max(im.size)
    return im.resize((max(1, round(im.size[0] * k)), max(1, round(im.size[1] * k))), Image.LANCZOS)


def keep(raw, icons_of):
    """Renders drawings to files, for machines without the packages and to save time: {style: icon names}."""
    for style, wanted in icons_of.items():
        os.makedirs(f'{raw}/drawings/{style}', exist_ok=True)
        for name in wanted: _load(raw, style, name).save(f'{raw}/drawings/{style}/{name}.png')
