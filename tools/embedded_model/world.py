"""Composes pictures of the synthetic world: drawings on scenes, with the captions that name what is shown.

Everything is aligned to the image tokenizer's patches of 8 x 8 pixels: equal drawings then give equal codes wherever they
stand, so that a very small transformer can learn to draw them sharply. A share of the pictures is free of the grid."""
import functools, hashlib, random
import numpy as np
from PIL import Image
import art, captions, looks
from classes import ACCESSORIES, ACCESSORY_STYLE, CLASSES, COLOURS, FACES, is_held_out, settled_style
from scenes import PATCH, SCENES, SIDE, draw_scene

ACCESSORY_WIDTH = {'hat': .55, 'crown': .5, 'sunglasses': .8, 'bow': .45}


def held_out(cls, scene, colour, accessory):
    """One combination in ten is never drawn for the transformer's training, so that there are unseen prompts."""
    return hashlib.sha256(f'{cls}|{scene}|{colour}|{accessory}'.encode()).digest()[0] < 26


class World:
    """In a `settled` world captions never tell the look, and what they leave open is drawn one way: each class in its settled style
    and nearly as it is, in one size."""
    def __init__(self, raw, seed=0, pool=16, settled=False):
        self.raw, self.settled = raw, settled
        self.drawing = functools.lru_cache(12000)(lambda style, name: art.load(raw, style, name))
        self.pool = pool
        self.redraw_scenes(seed)
        self.styles_of = {c: [s for s in art.STYLES if not is_held_out(s, c)] for c in CLASSES}

    def redraw_scenes(self, seed):
        """A fresh pool of every scene; a pool is small because drawing one takes longer than a figure."""
        r = random.Random(seed)
        self.scenes = {k: [draw_scene(k, r) for _ in range(self.pool)] for k in SCENES}

    def figure(self, style, icon, side, look=None, colour=None, flip=False):
        """A drawing as an instance: reshaped, recoloured, tinted, its longer edge `side` pixels."""
        im = self.drawing(style, icon)
        if look is not None: im = looks.reshape(im, look)
        k = side / max(im.size)
        im = im.resize((max(2, round(im.size[0] * k)), max(2, round(im.size[1] * k))), Image.LANCZOS)
        if look is not None: im = looks.recolour(im, look)
        if colour: im = looks.tint(im, COLOURS[colour])
        return im.transpose(Image.FLIP_LEFT_RIGHT) if flip else im

    def dressed(self, im, accessory):
        """The parts of a figure with what it wears, and how far they reach above it."""
        w, h = im.size
        acc = self.figure(ACCESSORY_STYLE, ACCESSORIES[accessory], max(16, round(ACCESSORY_WIDTH[accessory] * w)))
        aw, ah = acc.size
        if accessory == 'sunglasses': return [(im, 0, 0), (acc, (w - aw) // 2, round(h * .42 - ah / 2))], 0
        if accessory == 'bow': return [(im, 0, 0), (acc, w - round(aw * .8), -round(ah * .3))], round(ah * .3)
        return [(im, 0, 0), (acc, (w - aw) // 2, -round(ah * .66))], round(ah * .66)

    def place(self, r, canvas, im, accessory=None, free=False, span=(0, SIDE)):
        """Puts a figure on the canvas, within the columns of `span`."""
        snap = (lambda v: round(v)) if free else (lambda v: round(v / PATCH) * PATCH)
        parts, top = self.dressed(im, accessory) if accessory else ([(im, 0, 0)], 0)
        w, h = im.size
        room, top = span[1] - span[0] - w, min(top, max(0, SIDE - h))
        x = snap(span[0] + room / 2 + r.uniform(-.4, .4) * max(0, room))
        y = snap(top + (SIDE - h - top) * r.uniform(.55, .95))
        x, y = max(-PATCH, min(x, SIDE - w + PATCH)), max(0 if free else snap(top), min(y, SIDE - h + 4))
        for part, dx, dy in parts:
            layer = Image.new('RGBA', canvas.size, (0, 0, 0, 0)); layer.paste(part, (x + dx, y + dy)); canvas.alpha_composite(layer)

    def scene(self, r, name): return r.choice(self.scenes[name]).convert('RGBA')

    def compose(self, r, style, cls, scene, colour=None, accessory=None, look=None, side=None, free=False, bright=1.0, flip=False, icon=None):
        """One figure on a scene: a class, or any icon. Without a scene cut out: RGBA, transparent around it."""
        side = side or (round(r.uniform(.5, .85) * SIDE) if free else r.choice([80, 88, 96]))
        canvas = self.scene(r, scene) if scene else Image.new('RGBA', (SIDE, SIDE), (0, 0, 0, 0))
        self.place(r, canvas, self.figure(style, icon or CLASSES[cls], side, look, colour, flip), accessory, free)
        return finish(canvas, bright) if scene else np.asarray(canvas)

    def subject(self, r):
        """What a caption may say about one figure, and what the picture needs to know."""
        if self.settled: return self.settled_subject(r)
        cls = r.choice(list(FACES)) if r.random() < .45 else r.choice(list(CLASSES))
        style, slot, look = r.choice(self.styles_of[cls]), None, looks.draw_look(r)
        u = r.random()
        if u < .25:
            i = r.randrange(looks.LOOKS); s, l = looks.look_of(i, art.STYLES)
            if not is_held_out(s, cls): style, look, slot = s, l, captions.look_word(i)
        elif u < .4: slot, look = style, None
        elif u < .6: look = None
        return dict(cls=cls, style=style, slot=slot, look=look, **self.extras(r, cls), flip=cls not in FACES and r.random() < .5)

    def settled_subject(self, r):
        cls = r.choice(list(CLASSES))
        look = looks.draw_look(r, near=True) if r.random() < .3 else None
        return dict(cls=cls, style=settled_style(cls), slot=None, look=look, **self.extras(r, cls), flip=False)

    def extras(self, r, cls):
        """A tint, and what only faces wear; mostly neither."""
        return dict(colour=r.choice(list(COLOURS)) if r.random() < .35 else None,
                    accessory=r.choice(list(ACCESSORIES)) if cls in FACES and r.random() < .4 else None)

    def sample(self, r, train=True):
        """A picture, its caption, and what is in it."""
        while True:
            scene, s = r.choice(list(SCENES)), self.subject(r)
            if held_out(s['cls'], scene, s['colour'], s['accessory']) != train: break
        where = r.choice(SCENES[scene]) if r.random() < .85 else None
        free = not self.settled and r.random() < .1
        if r.random() < .15: return self.pair(r, s, scene, where, free)
        template = r.choice(captions.TEMPLATES)
        side = 56 if 'small' in template else 112 if ('close-up' in template or 'large' in template) and not s['accessory'] else 96 if self.settled else None
        bright = .6 if 'dark' in template else 1.25 if 'bright' in template else 1.0
        im = self.compose(r, s['style'], s['cls'], scene, s['colour'], s['accessory'], s['look'], side, free, bright, s['flip'])
        text = captions.caption(template, [captions.noun(s['cls'], s['colour'], s['slot'], s['accessory'])], where, r)
        return im, text, dict(cls=s['cls'], scene=scene, colour=s['colour'] or 'none', accessory=s['accessory'] or 'none', style=s['style'],
                              varied=s['look'] is not None)

    def pair(self, r, a, scene, where, free):
        """Two figures, the first named on the left."""
        b = self.subject(r)
        while b['cls'] == a['cls']: b = self.subject(r)
        canvas = self.scene(r, scene)
        for s, span in ((a, (0, SIDE // 2)), (b, (SIDE // 2, SIDE))):
            self.place(r, canvas, self.figure(s['style'], CLASSES[s['cls']], 56 if free else 64 if self.settled else r.choice([56, 64]), s['look'], s['colour'], s['flip']),
                       s['accessory'], free, span)
        nouns = [captions.noun(s['cls'], s['colour'], s['slot'], s['accessory']) for s in (a, b)]
        return finish(canvas), captions.caption(r.choice(captions.PAIR_TEMPLATES), nouns, where), dict(
            cls=a['cls'], other=b['cls'], scene=scene, colour=a['colour'] or 'none', accessory=a['accessory'] or 'none', style=a['style'], varied=a['look'] is not None)


def finish(canvas, bright=1.0):
    a = np.asarray(canvas.convert('RGB'))
    return a if bright == 1 else (a.astype(np.float32) * bright).clip(0, 255).astype(np.uint8)
