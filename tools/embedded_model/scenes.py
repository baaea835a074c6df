"""Drawn scenes. Everything lies on the grid of the image tokenizer's patches, so that equal things give equal codes."""
import numpy as np
from PIL import Image, ImageDraw

SIDE, PATCH = 128, 8
N = SIDE // PATCH
SCENES = {
    'beach': ['on the beach', 'at the beach'], 'snow': ['in the snow'], 'meadow': ['in the meadow', 'on the grass'],
    'night': ['at night', 'under the night sky'], 'city': ['in the city'], 'floor': ['on a wooden floor'],
    'desert': ['in the desert'], 'water': ['underwater', 'under the sea'], 'brick': ['in front of a brick wall'],
    'forest': ['in the forest'], 'sunset': ['at sunset'], 'white': ['on a white background'], 'room': ['in a room'],
    'mountain': ['in the mountains'], 'space': ['in space'], 'road': ['on the road'], 'field': ['in a field'],
    'rain': ['in the rain'], 'stage': ['on a stage'], 'library': ['in a library'], 'castle': ['in front of a castle'],
    'cave': ['in a cave'], 'autumn': ['in autumn'], 'bathroom': ['in a bathroom'], 'lake': ['by the lake'],
    'garden': ['in a garden']}


def _sky(r, top, bottom):
    n = 2 * SIDE
    j = lambda v: np.array([x + r.uniform(-6, 6) for x in v], np.float32)
    t = np.linspace(0, 1, n, dtype=np.float32)[:, None, None]
    return Image.fromarray(np.repeat(j(top) * (1 - t) + j(bottom) * t, n, 1).clip(0, 255).astype(np.uint8))


def draw_scene(kind, r):
    """One random scene, drawn at twice the size; q is a patch."""
    n, q = 2 * SIDE, 2 * PATCH
    j = lambda v, k=6: tuple(int(np.clip(x + r.uniform(-k, k), 0, 255)) for x in v)
    cell = lambda k=N: r.randrange(k) * q + q // 2
    hz = r.randrange(N // 2 - 2, N // 2 + 2) * q
    picture = DRAWN[kind](r, n, q, j, cell, hz)
    return picture.resize((SIDE, SIDE), Image.BOX)


def _start(r, top, bottom):
    p = _sky(r, top, bottom); d = ImageDraw.Draw(p)
    return p, d, lambda x, y, s, c: d.ellipse([x - s, y - s, x + s, y + s], fill=c)


def beach(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (120, 195, 245), (200, 232, 250))
    d.rectangle([0, hz, n, n], fill=j((40, 150, 200)))
    s = hz + r.choice([1, 2]) * q
    d.rectangle([0, s - 4, n, s], fill=(235, 245, 250)); d.rectangle([0, s, n, n], fill=j((240, 215, 155)))
    return p


def snow(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (165, 188, 215), (212, 224, 238))
    c = r.uniform(-.2, 1.2) * n
    d.ellipse([c - n * 1.3, hz, c + n * 1.3, hz + 2 * n], fill=(246, 249, 253))
    for _ in range(26): dot(cell(), cell(10), 3, (255, 255, 255))
    return p


def meadow(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (110, 190, 250), (190, 225, 250))
    d.rectangle([0, hz, n, n], fill=j((100, 185, 68)))
    for _ in range(14): dot(cell(), r.randrange(hz // q + 1, N) * q + 8, 4, r.choice([(255, 255, 255), (255, 220, 60), (255, 130, 150)]))
    return p


def night(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (10, 14, 45), (40, 45, 100))
    for _ in range(24): dot(cell(), cell(N - 1), 2.4, (255, 250, 220))
    dot(r.randrange(1, N) * q, q, 13, (250, 240, 190))
    return p


def city(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (150, 200, 235), (220, 230, 235))
    g, x = (N - 3) * q, 0
    while x < N:
        w, h = r.choice([2, 3]), r.randrange(5, 12)
        d.rectangle([x * q, g - h * q, (x + w) * q - 1, g], fill=r.choice([(130, 140, 155), (160, 150, 145), (105, 115, 135), (175, 165, 160)]))
        for yy in range(h):
            for xx in range(w): d.rectangle([(x + xx) * q + 5, g - (h - yy) * q + 4, (x + xx) * q + 10, g - (h - yy) * q + 11], fill=(250, 235, 160))
        x += w
    d.rectangle([0, g, n, n], fill=j((75, 75, 82)))
    return p


def floor(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (235, 225, 205), (225, 213, 190))
    c, k = np.array(j((175, 115, 65))), 0
    for y in range(hz, n, q):
        d.rectangle([0, y, n, y + q], fill=tuple(int(v) for v in c + (8, -8)[k % 2])); d.line([0, y, n, y], fill=(110, 68, 38), width=2)
        for x in range((k % 2) * 2 * q, n, 4 * q): d.line([x, y, x, y + q], fill=(110, 68, 38), width=2)
        k += 1
    return p


def desert(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (250, 200, 120), (255, 235, 190)); ph = r.uniform(0, 6.28)
    for k, col in enumerate([(225, 165, 90), (236, 182, 102), (215, 150, 75)]):
        pts = [(x, hz + k * 2.5 * q + q * .8 * np.sin(ph + k + x / n * 4.2)) for x in range(0, n + 4, 4)]
        d.polygon(pts + [(n, n), (0, n)], fill=j(col, 4))
    return p


def water(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (70, 185, 225), (10, 70, 140))
    d.rectangle([0, (N - 1) * q, n, n], fill=j((190, 180, 130)))
    for _ in range(12):
        x, y = cell(), cell(N - 2)
        d.ellipse([x - 5, y - 5, x + 5, y + 5], outline=(200, 240, 255), width=2)
    return p


def brick(r, n, q, j, cell, hz):
    p = Image.new('RGB', (n, n), j((205, 190, 175))); d = ImageDraw.Draw(p); c = np.array(j((170, 75, 55)))
    for k in range(N):
        for x in range(-q * (k % 2), n, 2 * q):
            d.rectangle([x + 2, k * q + 2, x + 2 * q - 2, k * q + q - 2], fill=tuple(int(v) for v in c + r.choice([-10, 0, 10])))
    return p


def forest(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (60, 110, 60), (110, 150, 85)); g = (N - 3) * q
    d.rectangle([0, g, n, n], fill=j((75, 95, 45)))
    for x in r.sample(range(N), 7): d.rectangle([x * q + 3, 0, x * q + 12, g], fill=j((85, 58, 38), 4))
    for x in range(-1, N + 1, 2):
        y = r.choice([0, 8, 16]); d.ellipse([x * q - 20, y - 26, x * q + 20, y + 18], fill=j((35, 95, 45), 5))
    return p


def sunset(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (95, 60, 130), (255, 150, 70))
    dot(r.randrange(2, N - 1) * q, hz + q, 28, (255, 235, 140)); d.rectangle([0, hz + q, n, n], fill=j((60, 40, 75)))
    return p


def white(r, n, q, j, cell, hz):
    v = r.randint(246, 254)
    return Image.new('RGB', (n, n), (v, v, v))


def room(r, n, q, j, cell, hz):
    p = Image.new('RGB', (n, n), j(r.choice([(200, 215, 225), (220, 205, 215), (205, 220, 200)]), 3)); d = ImageDraw.Draw(p)
    y = r.choice([N - 4, N - 3]) * q
    d.rectangle([0, y, n, n], fill=j((150, 125, 110))); d.rectangle([0, y - 5, n, y], fill=(245, 245, 245))
    x = r.choice([1, N - 6]) * q
    d.rectangle([x, q, x + 5 * q, 6 * q], fill=(165, 215, 250), outline=(250, 250, 250), width=5)
    d.line([x + 2.5 * q, q, x + 2.5 * q, 6 * q], fill=(250, 250, 250), width=4)
    return p


def mountain(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (130, 185, 240), (220, 235, 245)); g = (N - 3) * q
    for x in r.sample(range(1, N, 2), 3):
        x, h, w = x * q, r.choice([6, 8, 9]) * q, 6 * q
        d.polygon([(x - w, g), (x, g - h), (x + w, g)], fill=j((120, 120, 135), 4))
        d.polygon([(x - w * .3, g - h * .7), (x, g - h), (x + w * .3, g - h * .7)], fill=(248, 250, 255))
    d.rectangle([0, g, n, n], fill=j((115, 145, 90)))
    return p


def space(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (8, 6, 22), (26, 14, 44))
    for _ in range(30): dot(cell(), cell(), r.choice([1.5, 2.4]), r.choice([(255, 255, 255), (190, 210, 255), (255, 225, 190)]))
    x, y, s = r.randrange(2, N - 1) * q, r.choice([2, 3]) * q, r.choice([20, 28])
    dot(x, y, s, j(r.choice([(215, 130, 80), (120, 160, 220), (150, 200, 140)])))
    d.ellipse([x - s * 1.7, y - 5, x + s * 1.7, y + 5], outline=(230, 215, 180), width=3)
    return p


def road(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (140, 200, 245), (215, 232, 245)); m = r.choice([7, 8, 9]) * q
    d.rectangle([0, hz, n, n], fill=j((120, 170, 85)))
    d.polygon([(m - q, hz), (m + q, hz), (n + 2 * q, n), (-2 * q, n)], fill=j((90, 90, 98)))
    for k in range(4):
        y0 = hz + (n - hz) * (k / 4) ** 1.4; y1 = y0 + 4 + 4 * k
        d.polygon([(m - 1 - k, y0), (m + 1 + k, y0), (m + 2 + k, y1), (m - 2 - k, y1)], fill=(245, 240, 210))
    return p


def field(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (150, 205, 245), (230, 240, 240)); g = hz + q
    d.rectangle([0, g, n, n], fill=j((225, 190, 85)))
    for x in range(0, n, q):
        for y in range(g + (x // q % 2) * q // 2, n, q): d.line([x + 8, y, x + 8, y + 9], fill=(190, 150, 55), width=3)
    x = r.choice([2, N - 4]) * q
    d.rectangle([x, g - 2 * q, x + 2 * q, g], fill=(190, 60, 50)); d.polygon([(x - 6, g - 2 * q), (x + q, g - 3 * q), (x + 2 * q + 6, g - 2 * q)], fill=(120, 40, 40))
    return p


def rain(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (105, 118, 138), (150, 160, 172))
    d.rectangle([0, (N - 3) * q, n, n], fill=j((88, 98, 112)))
    for _ in range(46):
        x, y = cell(), cell(); d.line([x + 3, y - 6, x - 3, y + 6], fill=(200, 215, 232), width=2)
    for x in range(0, N, 2): dot(x * q + r.choice([0, 8]), 0, 22, (80, 90, 108))
    return p


def stage(r, n, q, j, cell, hz):
    c = np.array(j(r.choice([(150, 25, 40), (95, 30, 110), (30, 60, 120)])))
    p = Image.new('RGB', (n, n)); d = ImageDraw.Draw(p); g = (N - 3) * q
    for k in range(N): d.rectangle([k * q, 0, (k + 1) * q, g], fill=tuple(int(v) for v in (c + (14, -14)[k % 2]).clip(0, 255)))
    d.rectangle([0, g, n, n], fill=j((160, 112, 70))); d.rectangle([0, g, n, g + 4], fill=(235, 205, 120))
    d.rectangle([0, 0, n, q], fill=(210, 170, 75))
    return p


def library(r, n, q, j, cell, hz):
    p = Image.new('RGB', (n, n), j((105, 70, 45))); d = ImageDraw.Draw(p)
    for shelf in range(0, N - 2, 3):
        for x in range(0, 2 * N):
            top = shelf * q + r.choice([6, 12, 16])
            d.rectangle([x * q // 2 + 1, top, x * q // 2 + q // 2 - 2, shelf * q + 2 * q + 10], fill=r.choice([(150, 45, 45), (40, 85, 120), (60, 110, 70), (200, 165, 90), (90, 60, 105)]))
        d.rectangle([0, shelf * q + 2 * q + 10, n, shelf * q + 3 * q], fill=(140, 98, 62))
    d.rectangle([0, (N - 2) * q, n, n], fill=j((120, 45, 50)))
    return p


def castle(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (160, 205, 240), (225, 235, 245)); g, s = (N - 3) * q, j((165, 165, 175))
    d.rectangle([2 * q, g - 6 * q, (N - 2) * q, g], fill=s)
    for x in range(2, N - 2, 2): d.rectangle([x * q, g - 7 * q, x * q + q, g - 6 * q], fill=s)
    for x in (1, N - 4):
        d.rectangle([x * q, g - 10 * q, (x + 3) * q, g], fill=tuple(v - 18 for v in s))
        d.polygon([(x * q - 8, g - 10 * q), (x * q + 24, g - 12 * q - 8), ((x + 3) * q + 8, g - 10 * q)], fill=j((190, 70, 70)))
        d.rectangle([x * q + 18, g - 8 * q, x * q + 30, g - 7 * q + 4], fill=(70, 60, 75))
    d.rectangle([0, g, n, n], fill=j((105, 165, 80)))
    return p


def cave(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (52, 44, 48), (92, 78, 74)); c = j((38, 32, 36))
    for x in range(0, N + 1):
        h = r.choice([1, 2, 3, 4]) * q; d.polygon([(x * q - q, 0), (x * q, h), (x * q + q, 0)], fill=c)
    d.rectangle([0, (N - 3) * q, n, n], fill=j((70, 58, 56)))
    for _ in range(8):
        x, y = cell(), r.randrange(N - 3, N) * q + 8; d.polygon([(x - 7, y + 6), (x, y - 7), (x + 7, y + 6)], fill=j((110, 190, 215)))
    return p


def autumn(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (225, 215, 195), (240, 228, 205)); leaf = [(215, 95, 35), (235, 160, 45), (180, 55, 35), (205, 130, 60)]
    d.rectangle([0, hz + q, n, n], fill=j((165, 120, 70)))
    for x in r.sample(range(1, N), 4):
        d.rectangle([x * q - 5, 2 * q, x * q + 4, hz + q], fill=(105, 72, 50)); c = r.choice(leaf)
        d.ellipse([x * q - 34, -20, x * q + 34, 3 * q], fill=c)
    for _ in range(30): dot(cell(), r.randrange(hz // q + 1, N) * q + 8, 5, r.choice(leaf))
    return p


def bathroom(r, n, q, j, cell, hz):
    p = Image.new('RGB', (n, n), (232, 238, 240)); d = ImageDraw.Draw(p); c = np.array(j(r.choice([(150, 205, 215), (175, 215, 180), (205, 185, 215)])))
    for y in range(0, N, 2):
        for x in range(0, N, 2): d.rectangle([x * q + 2, y * q + 2, (x + 2) * q - 2, (y + 2) * q - 2], fill=tuple(int(v) for v in c + r.choice([-5, 0, 5])))
    g = (N - 3) * q
    d.rectangle([0, g, n, n], fill=(245, 247, 248)); d.rectangle([0, g, n, g + 5], fill=(200, 208, 212))
    return p


def lake(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (150, 205, 240), (235, 240, 230))
    for x in range(0, N + 1, 2):
        h = r.choice([2, 3, 4]) * q; d.polygon([(x * q - q, hz), (x * q, hz - h), (x * q + q, hz)], fill=j((45, 105, 70), 4))
    d.rectangle([0, hz, n, n], fill=j((90, 160, 195)))
    for _ in range(14):
        x, y = cell(), r.randrange(hz // q, N - 3) * q + 8; d.line([x - 7, y, x + 7, y], fill=(170, 215, 232), width=2)
    d.rectangle([0, (N - 2) * q, n, n], fill=j((130, 160, 95)))
    return p


def garden(r, n, q, j, cell, hz):
    p, d, dot = _start(r, (155, 210, 245), (215, 236, 240)); g = (N - 4) * q
    for x in range(0, N):
        d.rectangle([x * q + 3, hz - q, x * q + 13, g], fill=(240, 236, 226)); d.polygon([(x * q + 3, hz - q), (x * q + 8, hz - q - 7), (x * q + 13, hz - q)], fill=(240, 236, 226))
    d.rectangle([0, hz + q, n, hz + q + 8], fill=(225, 220, 208)); d.rectangle([0, g, n, n], fill=j((95, 165, 75)))
    for _ in range(16):
        x, y = cell(), r.randrange(N - 4, N) * q + 8; dot(x, y, 6, r.choice([(230, 70, 95), (245, 200, 70), (170, 90, 200)])); dot(x, y, 2, (255, 250, 210))
    return p


DRAWN = {k: globals()[k] for k in SCENES}
