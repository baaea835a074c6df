"""The synthetic world of the embedded model: emoji sprites on drawn scenes, and the captions that name what is shown.

Everything is aligned to the image tokenizer's patches of 8 x 8 pixels: equal sprites then give equal codes wherever they
stand, so that a very small transformer can learn to draw them sharply. One picture in ten is free of the grid.
"""
import functools, hashlib, random
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

SIDE, PATCH = 96, 8

FACES = {
    'fox': '1f98a', 'cat': '1f431', 'dog': '1f436', 'panda': '1f43c', 'koala': '1f428', 'lion': '1f981',
    'tiger': '1f42f', 'bear': '1f43b', 'rabbit': '1f430', 'mouse': '1f42d', 'frog': '1f438', 'pig': '1f437',
    'cow': '1f42e', 'monkey': '1f435', 'unicorn': '1f984', 'wolf': '1f43a', 'hamster': '1f439',
    'penguin': '1f427', 'owl': '1f989', 'octopus': '1f419', 'robot': '1f916', 'ghost': '1f47b',
    'pumpkin': '1f383', 'chick': '1f425'}
THINGS = {
    'duck': '1f986', 'fish': '1f41f', 'whale': '1f433', 'crab': '1f980', 'turtle': '1f422', 'butterfly': '1f98b',
    'ladybug': '1f41e', 'elephant': '1f418', 'dinosaur': '1f996', 'car': '1f697', 'bus': '1f68c', 'rocket': '1f680',
    'sailboat': '26f5', 'apple': '1f34e', 'strawberry': '1f353', 'pizza': '1f355', 'burger': '1f354',
    'cake': '1f382', 'guitar': '1f3b8', 'balloon': '1f388', 'teapot': '1fad6', 'house': '1f3e0',
    'mushroom': '1f344', 'cactus': '1f335'}
CLASSES = {**FACES, **THINGS}
ACCESSORIES = {'hat': '1f3a9', 'crown': '1f451', 'sunglasses': '1f576-fe0f', 'bow': '1f380'}
COLOURS = {'red': (225, 45, 40), 'blue': (45, 105, 235), 'green': (50, 175, 60), 'yellow': (245, 205, 35),
           'purple': (150, 70, 210), 'pink': (250, 125, 185)}
STYLES = {'google': 'shaded', 'twitter': 'flat'}
HELD_OUT_STYLE = 'fluent'
SCENES = {
    'beach': ['on the beach', 'at the beach'], 'snow': ['in the snow'], 'meadow': ['in the meadow', 'on the grass'],
    'night': ['at night', 'under the night sky'], 'city': ['in the city'], 'floor': ['on a wooden floor'],
    'desert': ['in the desert'], 'water': ['underwater', 'under the sea'], 'brick': ['in front of a brick wall'],
    'forest': ['in the forest'], 'sunset': ['at sunset'], 'white': ['on a white background'], 'room': ['in a room'],
    'mountain': ['in the mountains']}
LOOKS = 64

# The templates of Textual Inversion; the plain ones weigh more. Size and light are drawn as they say.
TEMPLATES = ['a photo of a {}'] * 14 + ['a {}'] * 4 + [
    'a rendering of a {}', 'a cropped photo of the {}', 'the photo of a {}', 'a photo of a clean {}',
    'a photo of a dirty {}', 'a dark photo of the {}', 'a photo of my {}', 'a photo of the cool {}',
    'a close-up photo of a {}', 'a bright photo of the {}', 'a cropped photo of a {}', 'a photo of the {}',
    'a good photo of the {}', 'a photo of one {}', 'a close-up photo of the {}', 'a rendition of the {}',
    'a photo of the clean {}', 'a rendition of a {}', 'a photo of a nice {}', 'a good photo of a {}',
    'a photo of the nice {}', 'a photo of the small {}', 'a photo of the weird {}', 'a photo of the large {}',
    'a photo of a cool {}', 'a photo of a small {}', 'a photo of a large {}', 'a picture of a {}', 'an image of a {}']
PREFIX = f'generate an image of {SIDE}x{SIDE} according to the following prompt:'


def all_words():
    texts = [PREFIX, *TEMPLATES, *CLASSES, *ACCESSORIES, *COLOURS, *STYLES.values(), 'wearing a an on at in',
             *(p for v in SCENES.values() for p in v)]
    return sorted({w for t in texts for w in t.replace('{}', '').lower().split()})


def held_out(cls, scene, colour, accessory):
    """One combination in ten is never drawn for training."""
    key = f'{cls}|{scene}|{colour}|{accessory}'.encode()
    return hashlib.sha256(key).digest()[0] < 26


# ------------------------------------------------------------------------------------------------ sprites
def load_sprite(raw, vendor, code):
    path = f'{raw}/fluent3d/package/assets/{code}.webp' if vendor == 'fluent' else f'{raw}/{vendor}/package/img/{vendor}/64/{code}.png'
    im = Image.open(path).convert('RGBA')
    im = im.crop(im.getchannel('A').point(lambda a: 255 if a > 8 else 0).getbbox())
    k = 144 / max(im.size)
    return im.resize((max(1, round(im.size[0] * k)), max(1, round(im.size[1] * k))), Image.LANCZOS)


def _luminance(a):
    y = (a[..., :3] @ np.array([.299, .587, .114], np.float32)) / 255
    m = a[..., 3] > 128
    if m.any():
        lo, hi = np.percentile(y[m], [3, 97])
        y = np.clip((y - lo) / max(hi - lo, .15), 0, 1)
    return y


def _ramp(y, colour):
    """Black, colour, white: works on grey and white sprites as well."""
    c, t = np.array(colour, np.float32), (y * .85 + .08)[..., None]
    return np.where(t < .5, c * (t / .5) ** .8, c + (255 - c) * ((t - .5).clip(0) / .5) ** 1.6 * .75)


def tint(im, colour, strength=.85):
    a = np.asarray(im).astype(np.float32)
    a[..., :3] = a[..., :3] * (1 - strength) + _ramp(_luminance(a), colour) * strength
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


def look_of(i):
    """The fixed parameters of instance word i: a point in a smooth space of appearances."""
    r = random.Random(9000 + i)
    return dict(vendor=r.choice(list(STYLES)), hue=r.uniform(-180, 180) if r.random() < .55 else r.uniform(-25, 25),
                saturation=r.uniform(.55, 1.35), light=r.uniform(-.16, .2), contrast=r.uniform(.75, 1.2),
                shade=r.random() ** 1.5, aspect=r.choice([.875, 1, 1, 1.125]), wash=r.choice([0, 0, .45]),
                wash_colour=tuple(r.randrange(30, 256) for _ in range(3)))


def apply_look(im, look):
    a = np.asarray(im).astype(np.float32)
    t = np.deg2rad(look['hue'])
    # Rotation about the grey axis.
    u = np.full((3, 3), 1 / 3)
    k = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    m = np.cos(t) * np.eye(3) + np.sin(t) * k + (1 - np.cos(t)) * u
    y = (a[..., :3] @ np.array([.299, .587, .114]))[..., None]
    rgb = y + (a[..., :3] @ m.T - y) * look['saturation']
    rgb = (rgb - 128) * look['contrast'] + 128 + 255 * look['light']
    if look['wash']:
        rgb = rgb * (1 - look['wash']) + _ramp(_luminance(a), look['wash_colour']) * look['wash']
    # Soft light from the upper left, shadow at the lower right, as rendered art has it.
    h, w = a.shape[:2]
    yy, xx = np.mgrid[0:h, 0:w]
    d = np.hypot((xx / w - .38) / .75, (yy / h - .3) / .8)[..., None]
    rgb = rgb + look['shade'] * (70 * np.exp(-(d / .45) ** 2) - 80 * np.clip(d - .55, 0, 1))
    a[..., :3] = rgb
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


# ------------------------------------------------------------------------------------------------ scenes
def _gradient(n, top, bottom):
    t = np.linspace(0, 1, n)[:, None, None]
    return np.repeat(np.array(top)[None, None] * (1 - t) + np.array(bottom)[None, None] * t, n, 1)


def draw_scene(kind, r):
    """One random scene, drawn at twice the size; q is a patch."""
    n, q = 2 * SIDE, 2 * PATCH
    j = lambda v, k=6: tuple(int(np.clip(x + r.uniform(-k, k), 0, 255)) for x in v)
    sky = lambda top, bottom: Image.fromarray(_gradient(n, j(top), j(bottom)).clip(0, 255).astype(np.uint8))
    dot = lambda x, y, s, c: d.ellipse([x - s, y - s, x + s, y + s], fill=c)
    hz = r.choice([5, 6, 7]) * q
    if kind == 'beach':
        p = sky((120, 195, 245), (200, 232, 250)); d = ImageDraw.Draw(p)
        d.rectangle([0, hz, n, n], fill=j((40, 150, 200)))
        s = hz + r.choice([1, 2]) * q
        d.rectangle([0, s - 4, n, s], fill=(235, 245, 250)); d.rectangle([0, s, n, n], fill=j((240, 215, 155)))
    elif kind == 'snow':
        p = sky((165, 188, 215), (212, 224, 238)); d = ImageDraw.Draw(p)
        c = r.uniform(-.2, 1.2) * n
        d.ellipse([c - n * 1.3, hz, c + n * 1.3, hz + 2 * n], fill=(246, 249, 253))
        for _ in range(18): dot(r.randrange(12) * q + 8, r.randrange(7) * q + 8, 3, (255, 255, 255))
    elif kind == 'meadow':
        p = sky((110, 190, 250), (190, 225, 250)); d = ImageDraw.Draw(p)
        d.rectangle([0, hz, n, n], fill=j((100, 185, 68)))
        for _ in range(9): dot(r.randrange(12) * q + 8, r.randrange(hz // q + 1, 12) * q + 8, 4, r.choice([(255, 255, 255), (255, 220, 60), (255, 130, 150)]))
    elif kind == 'night':
        p = sky((10, 14, 45), (40, 45, 100)); d = ImageDraw.Draw(p)
        for _ in range(16): dot(r.randrange(12) * q + 8, r.randrange(11) * q + 8, 2.4, (255, 250, 220))
        dot(r.randrange(1, 12) * q, q, 13, (250, 240, 190))
    elif kind == 'city':
        p = sky((150, 200, 235), (220, 230, 235)); d = ImageDraw.Draw(p); g, x = 9 * q, 0
        while x < 12:
            w, h = r.choice([2, 3]), r.randrange(4, 9)
            d.rectangle([x * q, g - h * q, (x + w) * q - 1, g], fill=r.choice([(130, 140, 155), (160, 150, 145), (105, 115, 135), (175, 165, 160)]))
            for yy in range(h):
                for xx in range(w): d.rectangle([(x + xx) * q + 5, g - (h - yy) * q + 4, (x + xx) * q + 10, g - (h - yy) * q + 11], fill=(250, 235, 160))
            x += w
        d.rectangle([0, g, n, n], fill=j((75, 75, 82)))
    elif kind == 'floor':
        p = sky((235, 225, 205), (225, 213, 190)); d = ImageDraw.Draw(p); c = np.array(j((175, 115, 65))); k = 0
        for y in range(hz, n, q):
            d.rectangle([0, y, n, y + q], fill=tuple(int(v) for v in c + (8, -8)[k % 2])); d.line([0, y, n, y], fill=(110, 68, 38), width=2)
            for x in range((k % 2) * 2 * q, n, 4 * q): d.line([x, y, x, y + q], fill=(110, 68, 38), width=2)
            k += 1
    elif kind == 'desert':
        p = sky((250, 200, 120), (255, 235, 190)); d = ImageDraw.Draw(p); ph = r.uniform(0, 6.28)
        for k, col in enumerate([(225, 165, 90), (236, 182, 102), (215, 150, 75)]):
            pts = [(x, hz + k * 2 * q + q * .8 * np.sin(ph + k + x / n * 4.2)) for x in range(0, n + 4, 4)]
            d.polygon(pts + [(n, n), (0, n)], fill=j(col, 4))
    elif kind == 'water':
        p = sky((70, 185, 225), (10, 70, 140)); d = ImageDraw.Draw(p)
        d.rectangle([0, 11 * q, n, n], fill=j((190, 180, 130)))
        for _ in range(8):
            x, y = r.randrange(12) * q + 8, r.randrange(10) * q + 8
            d.ellipse([x - 5, y - 5, x + 5, y + 5], outline=(200, 240, 255), width=2)
    elif kind == 'brick':
        p = Image.new('RGB', (n, n), j((205, 190, 175))); d = ImageDraw.Draw(p); c = np.array(j((170, 75, 55)))
        for k in range(12):
            for x in range(-q * (k % 2), n, 2 * q): d.rectangle([x + 2, k * q + 2, x + 2 * q - 2, k * q + q - 2], fill=tuple(int(v) for v in c + r.choice([-10, 0, 10])))
    elif kind == 'forest':
        p = sky((60, 110, 60), (110, 150, 85)); d = ImageDraw.Draw(p)
        d.rectangle([0, 10 * q, n, n], fill=j((75, 95, 45)))
        for x in r.sample(range(12), 5): d.rectangle([x * q + 3, 0, x * q + 12, 10 * q], fill=j((85, 58, 38), 4))
        for x in range(-1, 13, 2):
            y = r.choice([0, 8, 16]); d.ellipse([x * q - 20, y - 26, x * q + 20, y + 18], fill=j((35, 95, 45), 5))
    elif kind == 'sunset':
        p = sky((95, 60, 130), (255, 150, 70)); d = ImageDraw.Draw(p)
        dot(r.randrange(2, 11) * q, hz + q, 22, (255, 235, 140)); d.rectangle([0, hz + q, n, n], fill=j((60, 40, 75)))
    elif kind == 'white':
        v = r.randint(246, 254); p = Image.new('RGB', (n, n), (v, v, v))
    elif kind == 'room':
        p = Image.new('RGB', (n, n), j(r.choice([(200, 215, 225), (220, 205, 215), (205, 220, 200)]), 3)); d = ImageDraw.Draw(p)
        y = r.choice([9, 10]) * q
        d.rectangle([0, y, n, n], fill=j((150, 125, 110))); d.rectangle([0, y - 5, n, y], fill=(245, 245, 245))
        x = r.choice([1, 7]) * q
        d.rectangle([x, q, x + 4 * q, 5 * q], fill=(165, 215, 250), outline=(250, 250, 250), width=5)
        d.line([x + 2 * q, q, x + 2 * q, 5 * q], fill=(250, 250, 250), width=4)
    elif kind == 'mountain':
        p = sky((130, 185, 240), (220, 235, 245)); d = ImageDraw.Draw(p); g = 10 * q
        for x in r.sample([1, 3, 5, 7, 9, 11], 3):
            x, h, w = x * q, r.choice([5, 6, 7]) * q, 5 * q
            d.polygon([(x - w, g), (x, g - h), (x + w, g)], fill=j((120, 120, 135), 4))
            d.polygon([(x - w * .3, g - h * .7), (x, g - h), (x + w * .3, g - h * .7)], fill=(248, 250, 255))
        d.rectangle([0, g, n, n], fill=j((115, 145, 90)))
    return p.resize((SIDE, SIDE), Image.BOX)


# ------------------------------------------------------------------------------------------------ composition
class World:
    """Draws pictures. `styles` are the sprite sets that may appear."""

    def __init__(self, raw, styles=tuple(STYLES), seed=0, pool=60):
        self.styles = styles
        names = {**CLASSES, **ACCESSORIES}
        self.sprites = {(v, k): load_sprite(raw, v, c) for v in styles for k, c in names.items()}
        if 'google' not in styles:
            self.sprites |= {('google', k): load_sprite(raw, 'google', c) for k, c in ACCESSORIES.items()}
        r = random.Random(seed)
        self.scenes = {k: [draw_scene(k, r) for _ in range(pool)] for k in SCENES}
        self.sized = functools.lru_cache(6000)(self._sized)

    def _sized(self, style, name, side, colour, look, flip):
        im = self.sprites[style, name]
        if look is not None: im = apply_look(im, look_of(look))
        if colour: im = tint(im, COLOURS[colour])
        aspect = look_of(look)['aspect'] if look is not None else 1
        k = side / max(im.size)
        im = im.resize((max(2, round(im.size[0] * k * min(1, aspect))), max(2, round(im.size[1] * k * min(1, 1 / aspect)))), Image.LANCZOS)
        return im.transpose(Image.FLIP_LEFT_RIGHT) if flip else im

    def compose(self, r, style, cls, scene, colour=None, accessory=None, look=None, side=None, free=False, bright=1.0):
        side = side or r.choice([64, 72])
        if free: side = round(r.uniform(.55, .85) * SIDE)
        flip = cls in THINGS and r.random() < .5
        im = self.sized(style, cls, side, colour, look, flip)
        w, h = im.size
        snap = (lambda v: round(v)) if free else (lambda v: round(v / PATCH) * PATCH)
        parts, top = [(im, 0, 0)], 0
        if accessory:
            aw = {'hat': .55, 'crown': .5, 'sunglasses': .8, 'bow': .45}[accessory] * w
            acc = self.sized('google', accessory, max(16, round(aw)), None, None, False)
            aw, ah = acc.size
            if accessory in ('hat', 'crown'):
                top = min(SIDE - h, snap(ah * .66)) if h < SIDE else 0
                parts.append((acc, (w - aw) // 2, -min(top, round(ah * .66))))
            elif accessory == 'sunglasses':
                parts.append((acc, (w - aw) // 2, round(h * .42 - ah / 2)))
            else:
                top = snap(ah * .3)
                parts.append((acc, w - round(aw * .8), -top))
        spread = max(0, SIDE - w)
        x = snap((SIDE - w) / 2 + r.uniform(-.4, .4) * spread)
        y = snap(top + (SIDE - h - top) * r.uniform(.55, .95))
        x, y = max(-8, min(x, SIDE - w + 8)), max(top, min(y, SIDE - h + 4))
        out = r.choice(self.scenes[scene]).convert('RGBA')
        for part, dx, dy in parts:
            layer = Image.new('RGBA', out.size, (0, 0, 0, 0)); layer.paste(part, (x + dx, y + dy)); out.alpha_composite(layer)
        a = np.asarray(out.convert('RGB'))
        return a if bright == 1 else (a.astype(np.float32) * bright).clip(0, 255).astype(np.uint8)

    def sample(self, r, train=True):
        """A picture, its caption, and what is in it."""
        while True:
            cls = r.choice(list(FACES)) if r.random() < .55 else r.choice(list(THINGS))
            scene = r.choice(list(SCENES))
            colour = r.choice(list(COLOURS)) if r.random() < .4 else None
            accessory = r.choice(list(ACCESSORIES)) if cls in FACES and r.random() < .5 else None
            if held_out(cls, scene, colour, accessory) != train: break
        style, look, slot = r.choice(self.styles), None, None
        u = r.random()
        if u < .28:
            look = r.randrange(LOOKS); style = look_of(look)['vendor']; slot = f'<look{look:02}>'
        elif u < .45: slot = STYLES[style]
        template = r.choice(TEMPLATES)
        noun = ' '.join(w for w in (colour, slot, cls) if w)
        if accessory: noun += ' wearing sunglasses' if accessory == 'sunglasses' else f' wearing a {accessory}'
        if r.random() < .85: noun += ' ' + r.choice(SCENES[scene])
        side = 48 if 'small' in template else 88 if ('close-up' in template or 'large' in template) and not accessory else None
        bright = .6 if 'dark' in template else 1.25 if 'bright' in template else 1.0
        im = self.compose(r, style, cls, scene, colour, accessory, look, side, r.random() < .1, bright)
        caption = template.format(noun)
        return im, caption, dict(cls=cls, scene=scene, colour=colour or 'none', accessory=accessory or 'none', style=style, look=look)
