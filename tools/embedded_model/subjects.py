"""Subjects in the held-out style (Fluent 3D), which no training picture shows: their reference pictures, and what
`benchmark.rs subjects` does with them.

Each subject gets a folder of references 1.png, 2.png, ... on different scenes. subjects.json says, for each: `learned`, the
references; `held_out`, more pictures of it in scenes that no reference shows, and `known`, pictures of its class in the styles of
the training, each with the prompt it is scored under; `draw`, the prompts it is drawn by and what they ask for. In prompts {}
stands for the subject."""
import argparse, json, os, random
from PIL import Image
import world

BENCHMARK = ['fox', 'dog', 'robot', 'cat', 'owl', 'penguin', 'unicorn', 'frog', 'koala', 'pumpkin', 'car', 'teapot']
SCENES = ['floor', 'room', 'white', 'meadow', 'beach', 'brick']     # the other scenes stay new to the subject
NEW_SCENES = ['snow', 'night', 'city', 'desert', 'sunset', 'water']
# Prompt, scene, colour, accessory.
DRAW = [('a photo of a {}', None, None, None), ('a photo of a {} in the snow', 'snow', None, None),
        ('a photo of a {} at night', 'night', None, None), ('a photo of a {} in the forest', 'forest', None, None),
        ('a photo of a blue {}', None, 'blue', None), ('a photo of a red {} in the city', 'city', 'red', None),
        ('a photo of a {} wearing a hat', None, None, 'hat'), ('a photo of a {} wearing a crown underwater', 'water', None, 'crown')]
# Not every class has worn an accessory in training.
DRAW_THING = DRAW[:6] + [('a photo of a green {} on the beach', 'beach', 'green', None), ('a photo of a {} at sunset', 'sunset', None, None)]


def references(w, cls, count, seed):
    """Pictures of one subject; the sides vary, so that size is not tied to the subject."""
    r = random.Random(f'{seed} {cls}')
    return [w.compose(r, world.HELD_OUT_STYLE, cls, SCENES[i % len(SCENES)], side=[72, 64, 72, 64][i % 4]) for i in range(count)]


def in_new_scenes(w, cls):
    """Pictures of a class in the styles of `w`, with the prompts that describe them."""
    r = random.Random(f'held out {cls}')
    for i, scene in enumerate(NEW_SCENES):
        yield w.compose(r, w.styles[i % len(w.styles)], cls, scene, side=(72, 64)[i % 2]), f'a photo of a {{}} {world.SCENES[scene][0]}'


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--raw', required=True); p.add_argument('--out', required=True)
    p.add_argument('--subjects', default=','.join(BENCHMARK)); p.add_argument('--count', type=int, default=4)
    p.add_argument('--seed', type=int, default=0); p.add_argument('--references-only', action='store_true')
    a = p.parse_args()
    own, known = (world.World(a.raw, s, seed=77, pool=8) for s in ((world.HELD_OUT_STYLE,), tuple(world.STYLES)))
    every = {}

    def save(pixels, name):
        Image.fromarray(pixels).save(f'{a.out}/{name}', optimize=True)
        return name

    for cls in a.subjects.split(','):
        os.makedirs(f'{a.out}/{cls}', exist_ok=True)
        learned = [save(x, f'{cls}/{i}.png') for i, x in enumerate(references(own, cls, a.count, a.seed), 1)]
        if a.references_only: continue
        scored = {k: [{'file': save(x, f'{cls}/{k}_{i}.png'), 'prompt': prompt} for i, (x, prompt) in enumerate(in_new_scenes(w, cls), 1)]
                  for k, w in (('held_out', own), ('known', known))}
        draw = [{'prompt': t, **({'scene': s} if s else {}), 'colour': k or 'none', 'accessory': x or 'none'} for t, s, k, x in (DRAW if cls in world.FACES else DRAW_THING)]
        every[cls] = {'learned': learned, **scored, 'draw': draw}
    if every:
        with open(f'{a.out}/subjects.json', 'w') as f: json.dump(every, f, indent=1)
