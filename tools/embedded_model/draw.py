"""Draws pictures of the world to NAME.npy (uint8) and NAME.json (caption and content of each)."""
import argparse, glob, json, multiprocessing, os, random
import numpy as np
import world


def other_sprites(raw, n, r):
    """Emoji outside the classes, so that the image tokenizer sees more shapes than the transformer."""
    names = sorted(os.path.basename(p)[:-4] for p in glob.glob(f'{raw}/google/package/img/google/64/*.png'))
    # No skin tones, joined sequences or flags.
    names = [x for x in names if '1f3f' not in x and '200d' not in x and not x.startswith('1f1')]
    found = {}
    for code in r.sample(names, n):
        for style in world.STYLES:
            try: found[style, code] = world.load_sprite(raw, style, code)
            except (FileNotFoundError, TypeError): pass      # not drawn by this vendor, or empty
    return found


def draw(job):
    raw, n, seed, others = job
    r, w = random.Random(seed), world.World(raw, seed=seed)
    extra = other_sprites(raw, 600, random.Random(5)) if others else {}
    w.sprites |= extra
    keys = sorted(extra)
    pictures, meta = np.empty((n, world.SIDE, world.SIDE, 3), np.uint8), []
    for i in range(n):
        if r.random() < others:
            style, name = r.choice(keys)
            colour = r.choice(list(world.COLOURS)) if r.random() < .2 else None
            pictures[i] = w.compose(r, style, name, r.choice(list(world.SCENES)), colour, free=r.random() < .3)
            meta.append(('', {}))
        else:
            pictures[i], *rest = w.sample(r)
            meta.append(rest)
    return pictures, meta


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--raw', required=True, help='folder with google/package, twitter/package, fluent3d/package')
    p.add_argument('--out', required=True)
    p.add_argument('--count', type=int, required=True)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--others', type=float, default=0, help='share of pictures that show other emoji')
    a = p.parse_args()
    parts = 10
    with multiprocessing.Pool(2) as pool:
        done = pool.map(draw, [(a.raw, a.count // parts, a.seed * 1000 + i, a.others) for i in range(parts)], 1)
    np.save(a.out + '.npy', np.concatenate([d[0] for d in done]))
    json.dump([m for d in done for m in d[1]], open(a.out + '.json', 'w'))
