"""Draws pictures of the world into shards: FOLDER/00000.npy (uint8 pictures) and FOLDER/00000.json (caption and content of
each). Shard i depends on the seed and i alone; shards that exist are left alone, so a stopped run goes on where it was, and a
training that reads the folder may start with the first ones."""
import argparse, json, os, random
import numpy as np
import art, classes, looks, world

SHARD = 1000


def other_icons(raw):
    """Everything that the packages draw, style by style: the image tokenizer sees more shapes than the transformer does.
    Left out: skin tones, flags, held-out drawings and their siblings."""
    skip = lambda n: any(k in n for k in ('skin-tone', 'flag', 'keycap', 'button'))
    return {s: [n for n in art.names(raw, s) if not skip(n) and not classes.shows_held_out(s, n)] for s in art.PACKAGES}


def draw_other(w, r, icons):
    """Any drawing, mostly as an instance of itself, half of the time off the grid."""
    while True:
        style = r.choice(list(icons)); icon = r.choice(icons[style])
        try: w.drawing(style, icon); break
        except (KeyError, ValueError, TypeError): icons[style].remove(icon)      # empty, or not drawable
    look = looks.draw_look(r) if r.random() < .7 else None
    colour = r.choice(list(classes.COLOURS)) if r.random() < .12 else None
    return w.compose(r, style, None, r.choice(list(world.SCENES)), colour, look=look, icon=icon, free=r.random() < .5,
                     side=r.choice([None, None, 64, 104, 112]), flip=r.random() < .5)


def draw_shard(w, seed, others, icons):
    r = random.Random(seed)
    w.redraw_scenes(seed)
    pictures, meta = np.empty((SHARD, world.SIDE, world.SIDE, 3), np.uint8), []
    for i in range(SHARD):
        if r.random() < others: pictures[i], rest = draw_other(w, r, icons), ('', {})
        else: pictures[i], *rest = w.sample(r)
        meta.append(rest)
    return pictures, meta


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--raw', required=True, help='folder of the unpacked art packages, see README.md')
    p.add_argument('--out', required=True, help="folder of the shards; `drawings` renders the classes' drawings into RAW/drawings instead")
    p.add_argument('--shards', type=int, default=0, help=f'of {SHARD} pictures'); p.add_argument('--first', type=int, default=0)
    p.add_argument('--every', type=int, default=1, help='draw every n-th shard only, so that several processes share the work')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--others', type=float, default=0, help='share of pictures that show anything the packages hold; they have no caption')
    p.add_argument('--settled', action='store_true', help='pictures whose captions leave the look open, and drawn one way')
    a = p.parse_args()
    if a.out == 'drawings':
        every = {*classes.CLASSES.values(), *classes.ACCESSORIES.values()}
        raise SystemExit(art.keep(a.raw, {s: every for s in art.STYLES}))
    os.makedirs(a.out, exist_ok=True)
    w, icons = world.World(a.raw, settled=a.settled), other_icons(a.raw) if a.others else {}
    for i in range(a.first, a.shards, a.every):
        name = f'{a.out}/{i:05}'
        if any(os.path.exists(f'{name}.{kind}') for kind in ('npy', 'codes', 'scales')): continue
        pictures, meta = draw_shard(w, a.seed * 100_000 + i, a.others, {s: list(v) for s, v in icons.items()})
        with open(name + '.json', 'w') as f: json.dump(meta, f)
        with open(name + '.part', 'wb') as f: np.save(f, pictures)
        os.replace(name + '.part', name + '.npy')
        print('shard', i, flush=True)
