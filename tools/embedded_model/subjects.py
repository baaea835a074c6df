"""Reference pictures of subjects in the held-out style (Fluent 3D), which no training picture shows.

Each subject gets a folder of pictures 1.png, 2.png, ... on different scenes; manifest.json lists what they show."""
import argparse, json, os, random
from PIL import Image
import world

BENCHMARK = ['fox', 'dog', 'robot', 'cat', 'owl', 'penguin', 'unicorn', 'frog', 'koala', 'pumpkin', 'car', 'teapot']
SCENES = ['floor', 'room', 'white', 'meadow', 'beach', 'brick']     # the other scenes stay new to the subject


def references(w, cls, count, seed):
    """Pictures of one subject with what they show; the sides vary, so that size is not tied to the subject."""
    r, made = random.Random(f'{seed} {cls}'), []
    for i in range(count):
        scene = SCENES[i % len(SCENES)]
        a = w.compose(r, world.HELD_OUT_STYLE, cls, scene, side=[72, 64, 72, 64][i % 4])
        made.append((a, {'class': cls, 'scene': scene, 'colour': 'none', 'accessory': 'none', 'group': 'reference'}))
    return made


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--raw', required=True); p.add_argument('--out', required=True)
    p.add_argument('--subjects', default=','.join(BENCHMARK)); p.add_argument('--count', type=int, default=4)
    p.add_argument('--seed', type=int, default=0); p.add_argument('--no-manifest', action='store_true')
    a = p.parse_args()
    w, manifest = world.World(a.raw, (world.HELD_OUT_STYLE,), seed=77, pool=8), []
    for cls in a.subjects.split(','):
        os.makedirs(f'{a.out}/{cls}', exist_ok=True)
        for i, (pixels, shown) in enumerate(references(w, cls, a.count, a.seed), 1):
            Image.fromarray(pixels).save(f'{a.out}/{cls}/{i}.png', optimize=True)
            manifest.append({'file': f'{cls}/{i}.png', **shown})
    if not a.no_manifest:
        with open(f'{a.out}/manifest.json', 'w') as f: json.dump(manifest, f, indent=1)
