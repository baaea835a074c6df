"""Evaluates pictures, those that the embedded model drew above all.

  prompts   writes the held-out prompts as JSON
  draw      draws them with the library (the Python package `sitter`) into a folder
  folder    scores a folder of PNGs with manifest.json: a list of {file, class, scene, colour, accessory, group}
  styles    the same folder: which style's drawing of its class each picture matches best, and how well
"""
import argparse, collections, json, os, random
import numpy as np, torch
from PIL import Image
import captions, classes, classifier, scenes, world

FIELDS = {'class': 'cls', 'scene': 'scene', 'colour': 'colour', 'accessory': 'accessory'}


def prompt_of(cls, scene, colour, accessory, phrase=0):
    return f'a photo of a {captions.noun(cls, colour, None, accessory)} {scenes.SCENES[scene][phrase]}'


def held_out_prompts(count=400, seed=0):
    """Combinations that training never showed, in four equal groups."""
    r, per, made = random.Random(seed), count // 4, []
    for group, with_colour, with_accessory in (('plain', 0, 0), ('tinted', 1, 0), ('accessory', 0, 1), ('both', 1, 1)):
        every = [(c, s, k, x) for c in (classes.FACES if with_accessory else classes.CLASSES) for s in scenes.SCENES
                 for k in (classes.COLOURS if with_colour else [None]) for x in (classes.ACCESSORIES if with_accessory else [None])]
        unseen = [e for e in every if world.held_out(*e)]
        r.shuffle(unseen)
        # Fewer plain combinations exist than are asked for: they come again, with another seed of the drawing.
        for i in range(per):
            c, s, k, x = unseen[i % len(unseen)]
            made.append({'prompt': prompt_of(c, s, k, x), 'class': c, 'scene': s, 'colour': k or 'none', 'accessory': x or 'none', 'group': group})
    return made


def draw(wanted, folder, model='embedded:', each=1, **how):
    """Draws pictures of prompts into a folder, with a manifest.json that says what each should show."""
    import sitter
    m, made = sitter.Model.open(model), []
    os.makedirs(folder, exist_ok=True)
    for i, w in enumerate(wanted):
        for j, sample in enumerate(m.sample(w['prompt'], count=each, seed=i * each, **how)):
            file = f'{i:04}_{j}.png'
            sample.save(f'{folder}/{file}'); made.append({**w, 'file': file, 'seed': j})
    with open(f'{folder}/manifest.json', 'w') as f: json.dump(made, f, indent=1)


def score(pictures, wanted, judge_path):
    m, own = classifier.load(judge_path)
    rows = collections.defaultdict(lambda: collections.defaultdict(list))
    for w, seen in zip(wanted, classifier.judge(m, pictures)):
        for k, v in FIELDS.items():
            if w.get(k): rows[w.get('group', 'all')][k].append(seen[v] == w[k])
    groups = {g: {'pictures': len(next(iter(d.values()))), **{k: round(float(np.mean(v)), 3) for k, v in d.items()}} for g, d in rows.items()}
    return {'classifier': own, 'groups': groups}


def pixels(path): return np.asarray(Image.open(path).convert('RGB'))


def read(folder):
    wanted = json.load(open(f'{folder}/manifest.json'))
    return [pixels(f'{folder}/{w["file"]}') for w in wanted], wanted


def styles(folder, raw):
    from matcher import STYLES, Matcher
    pictures, wanted = read(folder)
    jobs = collections.defaultdict(list)
    for i, w in enumerate(wanted): jobs[w['class'], w.get('colour', 'none') != 'none'].append(i)
    errors = [None] * len(wanted)
    for (cls, grey), at in jobs.items():
        for i, e in zip(at, Matcher(raw, cls, grey)([pictures[i] for i in at])): errors[i] = e
    rows = collections.defaultdict(list)
    for w, e in zip(wanted, errors): rows[w.get('group', 'all')].append((min(e, key=e.get), e, w.get('colour', 'none') != 'none'))
    out = {}
    for g, v in rows.items():
        plain = [e for _, e, grey in v if not grey]
        out[g] = {'pictures': len(v), **{f'nearest {s}': round(sum(n == s for n, *_ in v) / len(v), 3) for s in STYLES},
                  **({f'error {s}': round(float(np.mean([e[s] for e in plain])), 4) for s in STYLES} if plain else {})}
    return {'groups': out, 'pictures': [{'file': w['file'], **e} for w, e in zip(wanted, errors)]}


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['prompts', 'draw', 'folder', 'styles'])
    p.add_argument('--path', help='folder of pictures'); p.add_argument('--judge', help='file of classifier.py')
    p.add_argument('--prompts', help='file of prompts, for draw'); p.add_argument('--model', default='embedded:')
    p.add_argument('--raw', help='art packs, for styles'); p.add_argument('--out'); p.add_argument('--count', type=int, default=400)
    p.add_argument('--seed', type=int, default=0); p.add_argument('--threads', type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    if a.what == 'draw': draw(json.load(open(a.prompts)), a.path, a.model); raise SystemExit
    if a.what == 'prompts': result = held_out_prompts(a.count, a.seed)
    elif a.what == 'folder': result = score(*read(a.path), a.judge)
    else: result = styles(a.path, a.raw)
    text = json.dumps(result, indent=1)
    if a.out: open(a.out, 'w').write(text + '\n')
    else: print(text)
