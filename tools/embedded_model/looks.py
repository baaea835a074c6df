"""How one drawing becomes hundreds of instances: shape, orientation, colours of its parts, light; and tints."""
import random
import numpy as np
from PIL import Image

LOOKS = 64       # instance words, each a fixed style and look


def luminance(a):
    """Stretched over the drawing's own range."""
    y = (a[..., :3] @ np.array([.299, .587, .114], np.float32)) / 255
    m = a[..., 3] > 128
    if m.any():
        lo, hi = np.percentile(y[m], [3, 97])
        y = np.clip((y - lo) / max(hi - lo, .15), 0, 1)
    return y


def ramp(y, colour):
    """Black, colour, white: works on grey and white drawings as well."""
    c, t = np.array(colour, np.float32), (y * .85 + .08)[..., None]
    return np.where(t < .5, c * (t / .5) ** .8, c + (255 - c) * ((t - .5).clip(0) / .5) ** 1.6 * .75)


def tint(im, colour, strength=.85):
    a = np.asarray(im).astype(np.float32)
    a[..., :3] = a[..., :3] * (1 - strength) + ramp(luminance(a), colour) * strength
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


def draw_look(r, near=None):
    """A random point in the space of appearances. A third stays close to the drawing as it is, or all that are to be `near`."""
    if near is None: near = r.random() < .35
    u = (lambda k: r.uniform(-k, k) * (.3 if near else 1))
    return dict(hue=u(25) if near or r.random() < .35 else r.uniform(-180, 180), parts=u(70), parts_at=r.uniform(0, 360),
                saturation=1 + u(.45), light=u(.16), contrast=1 + u(.22), shade=r.random() ** 2 * (.3 if near else 1),
                aspect=1 + u(.16), lean=u(.12), bulge=u(.16), taper=u(.14), turn=u(9), wash=0 if near or r.random() < .75 else .45,
                wash_colour=tuple(r.randrange(30, 256) for _ in range(3)))


def look_of(i, styles):
    """The style and the look of instance word i."""
    r = random.Random(9000 + i)
    return r.choice(list(styles)), draw_look(r)


def reshape(im, look):
    """Bulge, taper, lean and turn, as a mesh of 4 x 4 pieces; the picture grows so that nothing is cut."""
    w, h = im.size
    pad = round(.14 * max(w, h))
    wide = Image.new('RGBA', (w + 2 * pad, h + 2 * pad), (0, 0, 0, 0)); wide.paste(im, (pad, pad))
    w, h = wide.size
    t = np.deg2rad(look['turn']); c, s = np.cos(t), np.sin(t)

    def source(x, y):
        """Where the pixel that ends at (x, y) comes from."""
        u, v = 2 * x / w - 1, 2 * y / h - 1
        u, v = c * u - s * v, s * u + c * v
        k = 1 + look['bulge'] * (.5 - u * u - v * v) * .5
        return ((u * (k + look['taper'] * v) + look['lean'] * v) + 1) * w / 2, (v * k + 1) * h / 2

    n, pieces = 4, []
    for i in range(n):
        for j in range(n):
            x0, x1, y0, y1 = w * i // n, w * (i + 1) // n, h * j // n, h * (j + 1) // n
            corners = [source(x0, y0), source(x0, y1), source(x1, y1), source(x1, y0)]
            pieces.append(((x0, y0, x1, y1), [v for p in corners for v in p]))
    # Colours of transparent pixels must not bleed in: blend with alpha already multiplied.
    wide = wide.convert('RGBa').transform((w, h), Image.MESH, pieces, Image.BILINEAR).convert('RGBA')
    box = wide.getchannel('A').point(lambda a: 255 if a > 8 else 0).getbbox()
    wide = wide.crop(box)
    k = look['aspect'] ** .5
    return wide.resize((max(2, round(wide.width * k)), max(2, round(wide.height / k))), Image.BILINEAR)


def recolour(im, look):
    a = np.asarray(im).astype(np.float32)
    rgb = a[..., :3]
    y = (rgb @ np.array([.299, .587, .114], np.float32))[..., None]
    # Two chroma axes at right angles: hue is an angle there. Parts of different hue turn by different amounts.
    p, q = rgb[..., 0] - y[..., 0], rgb[..., 2] - y[..., 0]
    angle = np.arctan2(q, p)
    turn = np.deg2rad(look['hue'] + look['parts'] * np.cos(angle - np.deg2rad(look['parts_at'])))
    c, s = np.cos(turn), np.sin(turn)
    red, blue = c * p - s * q, s * p + c * q
    green = -(.299 * red + .114 * blue) / .587
    rgb = y + np.stack([red, green, blue], -1) * look['saturation']
    rgb = (rgb - 128) * look['contrast'] + 128 + 255 * look['light']
    if look['wash']: rgb = rgb * (1 - look['wash']) + ramp(luminance(a), look['wash_colour']) * look['wash']
    # Soft light from the upper left, shadow at the lower right, as rendered art has it.
    h, w = a.shape[:2]
    yy, xx = np.mgrid[0:h, 0:w].astype(np.float32)
    d = np.hypot((xx / w - .38) / .75, (yy / h - .3) / .8)[..., None]
    a[..., :3] = rgb + look['shade'] * (70 * np.exp(-(d / .45) ** 2) - 80 * np.clip(d - .55, 0, 1))
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


def apply(im, look): return recolour(reshape(im, look), look)
