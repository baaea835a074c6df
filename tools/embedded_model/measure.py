"""Tables, as Markdown, of runs of `python -m sitter.dreambench` on the folder of subjects.py.

Runs lie at METHOD/SEED: the name of the folder above is the row. Pictures of the model without a subject are drawn here, into the
folder `untouched`. Numbers of pictures are means over the drawing seeds (of all training seeds), with the standard deviation between
the means of the seeds."""
import argparse, collections, glob, json, os
import numpy as np, torch
import classifier, evaluator
from matcher import Matcher

PLAIN = {'scene': 'none', 'colour': 'none', 'accessory': 'none'}


def spread(rows, value):
    """Mean over seeds of the mean over what has one, the spread between seeds, and the count."""
    by = collections.defaultdict(list)
    for w in rows:
        v = value(w)
        if v is not None: by[w['seed']].append(v)
    means = [np.mean(v) for v in by.values()]
    return (np.mean(means), np.std(means), sum(map(len, by.values()))) if means else None


def nearest_style(w): return min(w['errors'], key=w['errors'].get)


def variety(rows):
    """How many styles the pictures of a class show, mean over classes."""
    by = collections.defaultdict(set)
    for w in rows: by[w['class']].add(nearest_style(w))
    return np.mean([len(v) for v in by.values()])


def cell(s, digits=2): return '' if s is None else f'{s[0]:.{digits}f} ± {s[1]:.{digits}f}'


def table(heads, rows):
    lines = ['| ' + ' | '.join(heads) + ' |', '|' + '---|' * len(heads)]
    return '\n'.join(lines + ['| ' + ' | '.join(str(c) for c in r) + ' |' for r in rows])


def pictures(folder): return sorted(glob.glob(f'{folder}/*.png'), key=lambda f: (len(f), f))


def drawn(run, bench):
    """The pictures of a run, with what each was to show."""
    plan, group, made = plan_of(run), group_of(run), []
    for unit in plan['units']:
        cls = unit['subject']
        asked = [(f'pictures/{cls}/{n}', group, bench[cls]['draw'][int(n) - 1]) for n in unit['templates']]
        asked += [(f'class/{cls}', f'{group}: plain class word', PLAIN), (f'untouched/{cls}', 'untouched: plain class word', PLAIN)]
        for place, g, what in asked:
            made += [{'file': f, 'class': cls, 'group': g, 'seed': (plan['seed'], i), **what} for i, f in enumerate(pictures(f'{run}/{place}'))]
    return made


def drawn_untouched(folder, plan, bench):
    """The prompts of subjects with their classes alone, by the model as it is."""
    if not os.path.exists(f'{folder}/manifest.json'):
        wanted = []
        for unit in plan['units']:
            for n, text in unit['templates'].items():
                what = bench[unit['subject']]['draw'][int(n) - 1]
                wanted.append({'prompt': ' '.join(text.replace('{}', ' ').split()), 'class': unit['subject'], 'group': 'untouched', **what})
        evaluator.draw(wanted, folder, plan['model'], plan['per_prompt'], **plan['sample'])
    return [{**w, 'file': f'{folder}/{w["file"]}', 'seed': (0, w['seed'])} for w in json.load(open(f'{folder}/manifest.json'))]


def plan_of(run): return json.load(open(f'{run}/plan.json'))


def group_of(run): return os.path.basename(os.path.dirname(os.path.abspath(run)))


def scored(runs, bench, folder):
    """Nats of pictures of the subject and of its class, and seconds of training, a dict a subject and run."""
    import sitter
    plan, results, tokens = plan_of(runs[0]), [], {}
    model = sitter.Model.open(plan['model'])
    for cls in {unit['subject']: 0 for unit in plan['units']}:
        for k in ('held_out', 'known'): tokens[cls, k] = [(s['prompt'], model.encode(f'{folder}/{s["file"]}')) for s in bench[cls][k]]
    nats = lambda cls, k, noun, learned: float(np.mean([model.score(t.replace('{}', noun), x, subjects=learned) for t, x in tokens[cls, k]]))
    for run in [None, *runs]:
        plan = plan_of(run or runs[0])
        seconds = {} if run is None else {l['job']: l['seconds'] for l in map(json.loads, open(f'{run}/log.jsonl'))}
        for unit in plan['units']:
            cls = unit['subject']
            learned = [] if run is None else [sitter.Subject.load(f'{run}/subjects/{cls}.safetensors')]
            noun = f'{plan["identifier"]} {cls}' if learned else cls
            results.append({'group': group_of(run) if run else 'untouched', 'seconds': seconds.get(f'teach/{cls}'),
                            'held_out': nats(cls, 'held_out', noun, learned), 'held_out_class_word': nats(cls, 'held_out', cls, learned),
                            'known_class_word': nats(cls, 'known', cls, learned)})
    return results


def see_and_match(wanted, judge, raw, bench):
    """Adds to each picture what the classifier sees, the matching errors and the subject's style; gives the classifier's own accuracy."""
    m, own = classifier.load(judge)
    pixels = [evaluator.pixels(w['file']) for w in wanted]
    for w, seen in zip(wanted, classifier.judge(m, pixels)): w['seen'] = seen
    jobs = collections.defaultdict(list)
    for i, w in enumerate(wanted): jobs[w['class'], w['colour'] != 'none'].append(i)
    for (cls, grey), at in jobs.items():
        for i, e in zip(at, Matcher(raw, cls, grey)([pixels[i] for i in at])): wanted[i] |= {'errors': e, 'grey': grey, 'own': bench[cls]['style']}
    return own


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--runs', required=True, nargs='+', help='folders METHOD/SEED of sitter.dreambench'); p.add_argument('--subjects', required=True, help='folder of subjects.py')
    p.add_argument('--untouched', required=True, help='folder for pictures of the model as it is'); p.add_argument('--judge', required=True); p.add_argument('--raw', required=True)
    p.add_argument('--threads', type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    bench = json.load(open(f'{a.subjects}/subjects.json'))
    wanted = drawn_untouched(a.untouched, plan_of(a.runs[0]), bench)
    for run in a.runs: wanted += drawn(run, bench)
    # Each run draws the same of the plain class word without a subject.
    wanted = list({(w['group'], w['class'], w['seed'], w['file'] if 'plain' not in w['group'] else ''): w for w in wanted}.values())
    own, results = see_and_match(wanted, a.judge, a.raw, bench), scored(a.runs, bench, a.subjects)
    groups = list(dict.fromkeys(w['group'] for w in wanted))
    nearest = lambda w: float(nearest_style(w) == w['own'])
    bare = lambda w: not w['grey'] and w['accessory'] == 'none'
    right = lambda k: lambda w: float(w['seen'][k] == w[k]) if w.get(k, 'none') != 'none' else None
    mean = lambda g, k: (lambda v: f'{np.mean(v):.3f}' if v else '')([x[k] for x in results if x['group'] == g and k in x])
    print(f'{len({w["class"] for w in wanted})} subjects, {len(wanted)} pictures. The classifier itself: {own}\n')
    rows = []
    for g in groups:
        if g.endswith('plain class word'): continue
        part = [w for w in wanted if w['group'] == g]
        rows.append([g, cell(spread([w for w in part if not w['grey']], nearest)), cell(spread(part, lambda w: w['errors'][w['own']] if bare(w) else None), 4), mean(g, 'held_out'),
                     *(cell(spread(part, right(k))) for k in ('scene', 'colour', 'accessory')), cell(spread(part, lambda w: float(w['seen']['cls'] == w['class']))), len(part)])
    print(table(['', 'nearest instance is the subject', 'matching error', 'held-out pictures, nats', 'scene', 'colour', 'accessory', 'class', 'pictures'], rows) + '\n')
    rows = []
    for g in groups:
        if not g.endswith('plain class word'): continue
        part, name = [w for w in wanted if w['group'] == g], g.split(':')[0]
        rows.append([name, f'{np.mean([nearest(w) for w in part]):.2f}', f'{np.mean([w["errors"][w["own"]] for w in part]):.4f}',
                     mean(name, 'held_out_class_word'), mean(name, 'known_class_word'), f'{variety(part):.2f}', len(part)])
    print(table(['the plain class word with', 'nearest instance is the subject', 'matching error', 'subject\'s pictures, nats', 'pictures of the known styles, nats', 'styles that a class shows', 'pictures'], rows) + '\n')
    seconds = collections.defaultdict(list)
    for x in results:
        if x['seconds']: seconds[x['group']].append(x['seconds'])
    print('Seconds of training, mean: ' + ', '.join(f'{k} {np.mean(v):.1f}' for k, v in seconds.items()))
