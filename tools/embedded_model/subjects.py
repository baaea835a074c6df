"""Subjects: drawings that training never shows (classes.HELD_OUT), in the form that `python -m sitter.dreambench` reads.

Each subject gets a folder of references 1.png, 2.png, ..., cut out or with `--on-scenes` on different scenes, and a line in prompts_and_classes.txt. subjects.json
says, for each: `style`; `held_out`, more pictures of it in scenes that no reference shows, and `known`, pictures of its class in the
styles of the training, each with the prompt it is scored under, in which {} stands for the subject; `draw`, what the prompts ask for, in
their order. A folder holds one subject a class: the unseen style, whose classes are held out in other styles too, gets one of its
own."""
import argparse, json, os, random
import numpy as np
from PIL import Image
import art, classes, scenes, world

SCENES = ['floor', 'room', 'white', 'meadow', 'beach', 'brick']     # the other scenes stay new to the subject
NEW_SCENES = ['snow', 'night', 'city', 'desert', 'sunset', 'water']
# Of a figure, in pixels. One for all: of another size it gives other codes, and so small a model does not see that both are the same.
SIZE = 96
# Prompt, scene, colour, accessory.
DRAW = [('a photo of a {}', None, None, None), ('a photo of a {} in the snow', 'snow', None, None),
        ('a photo of a {} at night', 'night', None, None), ('a photo of a {} in the forest', 'forest', None, None),
        ('a photo of a blue {}', None, 'blue', None), ('a photo of a red {} in the city', 'city', 'red', None),
        ('a photo of a {} wearing a hat', None, None, 'hat'), ('a photo of a {} wearing a crown underwater', 'water', None, 'crown')]
# Not every class has worn an accessory in training.
DRAW_THING = DRAW[:6] + [('a photo of a green {} on the beach', 'beach', 'green', None), ('a photo of a {} at sunset', 'sunset', None, None)]


def prompt_of(text): return text.replace('{}', '{0} {1}')


def style_of(cls, unseen=False):
    """The style in which a class is held out."""
    return next(s for s, c in classes.pairs() if c == cls and (s == art.UNSEEN) == unseen)


def references(w, style, cls, count, seed, on_scenes=False):
    """Pictures of one subject, no two of them alike."""
    r, found = random.Random(f'{seed} {cls}'), []
    while len(found) < count:
        x = w.compose(r, style, cls, SCENES[len(found) % len(SCENES)] if on_scenes else None, side=SIZE)
        if not any(np.array_equal(x, y) for y in found): found.append(x)
    return found


def in_new_scenes(w, styles, cls):
    """Pictures of a class in some styles, with the prompts that describe them."""
    r = random.Random(f'held out {cls}')
    for i, scene in enumerate(NEW_SCENES):
        yield w.compose(r, styles[i % len(styles)], cls, scene, side=SIZE), f'a photo of a {{}} {scenes.SCENES[scene][0]}'


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--raw', required=True); p.add_argument('--out', required=True)
    p.add_argument('--unseen', action='store_true', help='subjects in the style that the transformer never sees')
    p.add_argument('--subjects', help='classes, comma between; all held-out ones otherwise'); p.add_argument('--count', type=int, default=4)
    p.add_argument('--seed', type=int, default=0); p.add_argument('--references-only', action='store_true')
    p.add_argument('--on-scenes', action='store_true', help='references that show a scene around the subject')
    a = p.parse_args()
    w, every = world.World(a.raw, seed=77, pool=8), {}
    chosen = a.subjects.split(',') if a.subjects else [c for s, c in classes.pairs() if (s == art.UNSEEN) == a.unseen]

    def save(pixels, name):
        Image.fromarray(pixels).save(f'{a.out}/{name}', optimize=True)
        return name

    for cls in chosen:
        os.makedirs(f'{a.out}/{cls}', exist_ok=True)
        style = style_of(cls, a.unseen)
        for i, x in enumerate(references(w, style, cls, a.count, a.seed, a.on_scenes), 1): save(x, f'{cls}/{i}.png')
        if a.references_only: continue
        os.makedirs(f'{a.out}/scored/{cls}', exist_ok=True)
        scored = {k: [{'file': save(x, f'scored/{cls}/{k}_{i}.png'), 'prompt': prompt} for i, (x, prompt) in enumerate(in_new_scenes(w, s, cls), 1)]
                  for k, s in (('held_out', [style]), ('known', w.styles_of[cls]))}
        draw = [{'scene': s or 'none', 'colour': k or 'none', 'accessory': x or 'none'} for _, s, k, x in (DRAW if cls in classes.FACES else DRAW_THING)]
        every[cls] = {'style': style, **scored, 'draw': draw}
    if every:
        with open(f'{a.out}/subjects.json', 'w') as f: json.dump(every, f, indent=1)
        with open(f'{a.out}/prompts_and_classes.txt', 'w') as f:
            for cls in every: f.write(f'{cls},{cls},{"live" if cls in classes.FACES else "object"}\n')
            for kind, draw in (('Object', DRAW_THING), ('Live Subject', DRAW)):
                f.write(f'\n{kind} Prompts\n\n' + ''.join(f"'{prompt_of(t)}',\n" for t, *_ in draw))
