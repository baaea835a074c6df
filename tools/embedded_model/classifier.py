"""A small classifier of world pictures: class, scene, colour and accessory.

It learns from real renderings only; noise on all and a blur on half of them keep the image tokenizer's softness from
confusing it. Its own accuracy on renderings it has not seen is printed and stored with it."""
import argparse, glob, time
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
import classes, scenes, shards, state, vqgan

HEADS = {'cls': list(classes.CLASSES), 'scene': list(scenes.SCENES), 'colour': ['none', *classes.COLOURS], 'accessory': ['none', *classes.ACCESSORIES]}


class Classifier(nn.Module):
    def __init__(self, c=20):
        super().__init__()
        f = lambda i, o, s: nn.Sequential(nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(3, c, 4, 4), nn.BatchNorm2d(c), nn.ReLU(), f(c, 2 * c, 1), f(2 * c, 4 * c, 2),
                                  f(4 * c, 4 * c, 1), f(4 * c, 8 * c, 2), f(8 * c, 8 * c, 1))
        self.heads = nn.ModuleDict({k: nn.Linear(16 * c, len(v)) for k, v in HEADS.items()})

    def forward(self, x):
        h = self.body(x); h = torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1)
        return {k: f(h) for k, f in self.heads.items()}


@torch.inference_mode()
def judge(m, pictures):
    """What the classifier sees in each picture (uint8 [n, h, w, 3]): a dict a picture."""
    out = {k: [] for k in HEADS}
    for i in range(0, len(pictures), 100):
        for k, v in m(vqgan.to_tensor(np.asarray(pictures[i:i + 100]).copy())).items(): out[k] += [HEADS[k][j] for j in v.argmax(1)]
    return [dict(zip(out, row)) for row in zip(*out.values())]


def load(path):
    d = torch.load(path, weights_only=True); m = Classifier(); m.load_state_dict(d['state'])
    return m.eval(), d['accuracy']


def disturbed(x):
    """Half of the batch blurred, all of it shifted in brightness and noisy."""
    n = len(x) // 2
    x = torch.cat([F.avg_pool2d(F.pad(x[:n], (1, 1, 1, 1), 'replicate'), 3, 1), x[n:]])
    return x + .04 * torch.randn_like(x) + .03 * torch.randn(len(x), 3, 1, 1)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True, help='folder of draw.py'); p.add_argument('--out', required=True)
    p.add_argument('--steps', type=int, default=1500); p.add_argument('--batch', type=int, default=64); p.add_argument('--threads', type=int, default=1)
    p.add_argument('--fresh', type=int, default=1000, help='pictures kept out to measure the classifier itself')
    a = p.parse_args()
    torch.manual_seed(0); torch.set_num_threads(a.threads); rng = np.random.default_rng(0)
    names = sorted(f[:-4] for f in glob.glob(f'{a.data}/*.npy'))
    X, rows = [np.load(n + '.npy', mmap_mode='r') for n in names], []
    # Pictures of one figure: what is beside it in a pair has no label.
    for k, n in enumerate(names): rows += [(k, i, m[1]) for i, m in enumerate(shards.captions(n)) if m[1] and not m[1].get('other')]
    rng.shuffle(rows)
    take = lambda part: torch.cat([vqgan.to_tensor(X[k][i][None].copy()) for k, i, _ in part])
    label = lambda part, k: torch.tensor([HEADS[k].index(m[k]) for *_, m in part])
    fresh, rows = rows[:a.fresh], rows[a.fresh:]
    m = Classifier().to(memory_format=torch.channels_last)
    o = torch.optim.AdamW(m.parameters(), 3e-3, weight_decay=1e-3, foreach=True); t0 = time.time()
    s = torch.optim.lr_scheduler.OneCycleLR(o, 4e-3, a.steps, pct_start=.1)
    for step in range(a.steps):
        part = [rows[i] for i in rng.integers(0, len(rows), a.batch)]
        q = m(disturbed(take(part)).contiguous(memory_format=torch.channels_last))
        # An instance may be blue without the caption saying so: it says nothing about colour unless it is tinted.
        plain = torch.tensor([not x[2]['varied'] or x[2]['colour'] != 'none' for x in part])
        loss = sum(F.cross_entropy(q[k], label(part, k)) for k in ('cls', 'scene', 'accessory')) + F.cross_entropy(q['colour'][plain], label(part, 'colour')[plain])
        o.zero_grad(); loss.backward(); o.step(); s.step()
        if step % 100 == 99: print(f'{time.time() - t0:.0f} s step {step + 1} loss {loss.item():.3f}', flush=True)
    m.eval()
    seen = judge(m, [X[k][i] for k, i, _ in fresh])
    ok = lambda k, part: round(sum(j[k] == x[2][k] for x, j in part) / len(part), 3)
    both = list(zip(fresh, seen)); plain = [(x, j) for x, j in both if not x[2]['varied']]
    accuracy = {k: ok(k, plain) for k in HEADS} | {'cls of varied instances': ok('cls', [(x, j) for x, j in both if x[2]['varied']]), 'pictures': len(plain)}
    print(accuracy)
    state.write(dict(state=m.state_dict(), accuracy=accuracy), a.out)
