"""Tables, as Markdown, of the pictures of `benchmark.rs subjects`.

Numbers of pictures are means over the drawing seeds (of all training seeds), with the standard deviation between the means of the
seeds."""
import argparse, collections, json
import numpy as np, torch
import classifier, evaluator
from matcher import Matcher


def spread(rows, value):
    """Mean over seeds of the mean over what has one, the spread between seeds, and the count."""
    by = collections.defaultdict(list)
    for w in rows:
        v = value(w)
        if v is not None: by[w['seed']].append(v)
    means = [np.mean(v) for v in by.values()]
    return (np.mean(means), np.std(means), sum(map(len, by.values()))) if means else None


def cell(s, digits=2): return '' if s is None else f'{s[0]:.{digits}f} ± {s[1]:.{digits}f}'


def table(heads, rows):
    lines = ['| ' + ' | '.join(heads) + ' |', '|' + '---|' * len(heads)]
    return '\n'.join(lines + ['| ' + ' | '.join(str(c) for c in r) + ' |' for r in rows])


def seen_and_matched(folder, judge, raw, style_of):
    """The manifest's entries with what the classifier sees, the matching errors and the subject's style."""
    pictures, wanted = evaluator.read(folder)
    m, own = classifier.load(judge)
    for w, seen in zip(wanted, classifier.judge(m, pictures)): w['seen'] = seen
    jobs = collections.defaultdict(list)
    for i, w in enumerate(wanted): jobs[w['class'], w['colour'] != 'none'].append(i)
    for (cls, grey), at in jobs.items():
        for i, e in zip(at, Matcher(raw, cls, grey)([pictures[i] for i in at])): wanted[i] |= {'errors': e, 'grey': grey, 'own': style_of[cls]}
    return wanted, own


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--path', required=True, nargs='+', help='folders of benchmarks of different subjects'); p.add_argument('--judge', required=True); p.add_argument('--raw', required=True)
    p.add_argument('--subjects', required=True, nargs='+', help='folders of subjects.py')
    p.add_argument('--threads', type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    wanted, results = [], []
    for path in a.path:
        part, own = seen_and_matched(path, a.judge, a.raw, {k: v['style'] for s in a.subjects for k, v in json.load(open(f'{s}/subjects.json')).items()})
        wanted += part; results += json.load(open(f'{path}/results.json'))
    groups = list(dict.fromkeys(w['group'] for w in wanted))
    nearest = lambda w: float(min(w['errors'], key=w['errors'].get) == w['own'])
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
                     mean(name, 'held_out_class_word'), mean(name, 'known_class_word'), len(part)])
    print(table(['the plain class word with', 'nearest instance is the subject', 'matching error', 'subject\'s pictures, nats', 'pictures of the known styles, nats', 'pictures'], rows) + '\n')
    seconds = collections.defaultdict(list)
    for x in results:
        if x['seconds']: seconds[x['group']].append(x['seconds'])
    print('Seconds of training, mean: ' + ', '.join(f'{k} {np.mean(v):.1f}' for k, v in seconds.items()))
