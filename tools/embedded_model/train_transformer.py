"""Pretrains the transformer: Muon for the hidden matrices, AdamW for embeddings, head and norms; a tenth of the samples
without their prompt, as the unguided branch sees them. Constant rate, then a linear fall over the last `--decay` steps.

The whole state is saved every `--save` steps and at the end, and the same command goes on from it; before the fall it can be
lengthened at will. `--seconds` ends a run after that time, for machines lent in pieces:

    python train_transformer.py --codes FOLDER --vqgan vq.pt.mean --out lm.pt --device cuda --batch 256 --seconds 540

With `--vqgan`, shards of pictures that draw.py is adding to the folder meanwhile are encoded when they appear."""
import argparse, glob, math, os, time
import numpy as np, torch
import encode, shards, transformer as tf, vqgan, workers
from optimizers import Trainer

HELD = 512      # pictures of the first shard that are never trained on


class Codes:
    """Prompts and codes of every encoded shard; new shards are found by `refresh`."""
    def __init__(self, folder, tokenizer, device):
        self.folder, self.tokenizer, self.device = folder, tokenizer, device
        self.seen, self.codes, self.prompts = set(), [], []
        self.refresh()

    def refresh(self):
        if self.tokenizer:
            for _ in encode.encode_pending(self.folder, self.tokenizer, self.device, keep=False): pass
        for name in sorted(f[:-6] for f in glob.glob(f'{self.folder}/*.codes')):
            if name in self.seen: continue
            self.seen.add(name)
            for grid, (text, *_) in zip(np.load(name + '.codes'), shards.captions(name)):
                if text: self.codes.append(grid); self.prompts.append(tf.words(text))

    def __len__(self): return len(self.codes) - HELD

    def pair(self, i, with_prompt=True):
        return tf.sequence(self.prompts[i] if with_prompt else None, tf.block(self.codes[i]))


def train(rank, a, meeting):
    torch.set_num_threads(a.threads); workers.start(rank, a.workers, meeting); torch.manual_seed(a.seed)
    say = (lambda *w: print(*w, flush=True)) if rank == 0 else (lambda *w: None)
    device = torch.device(a.device)
    tokenizer = vqgan.load(a.vqgan).to(device, memory_format=torch.channels_last) if a.vqgan else None
    data = Codes(a.codes, tokenizer, device)
    m = tf.Transformer(d=a.width, layers=a.layers, heads=a.heads, ff=a.ff).to(device)
    if a.codebook: m.lay_codes(vqgan.load(a.codebook).codebook)
    t = Trainer(m, lambda n: 'embed' in n or 'head' in n, (.9, .98))
    step = 0
    if os.path.exists(a.out):
        d = torch.load(a.out, weights_only=True, map_location=device); t.restore(d['trainer']); step = d['step']
    say('parameters', sum(q.numel() for q in m.parameters()) / 1e6, 'M; pictures', len(data), 'from step', step)
    if a.compile:
        for l in m.layers: l.forward = torch.compile(l.forward, dynamic=False)
    longest = tf.longest_sequence()      # one length for all batches, so that there is one shape

    def loss_of(pairs):
        ids, labels = (x.to(device) for x in tf.batch(pairs, longest))
        with torch.autocast(device.type, torch.bfloat16, enabled=not a.f32): return m.loss(ids, labels)

    def save(name): tf.save(m, name, trainer=t.state(), step=step)

    t0, first, mean, end, decay_at = time.time(), step, None, a.steps, max(step, a.steps - a.decay)
    while step < end and workers.agreed(time.time() - t0) < a.seconds:
        if step == decay_at and rank == 0 and a.decay: save(a.out + '.before_decay')      # a longer run can go on from here
        # Which pictures depends on the step and the worker alone, and on how many there are.
        r = np.random.default_rng([a.seed, step, rank])
        part = [data.pair(HELD + int(i), r.random() >= a.drop) for i in r.integers(0, len(data), a.batch // a.workers)]
        loss = loss_of(part); loss.backward(); workers.average_gradients(t.work)
        fall = 1 if step < decay_at else 1 - (step - decay_at) / a.decay
        t.step(a.lr * min(1, (step + 1) / 60) * max(.01, fall))
        step += 1
        if step % 10 == 0: mean = loss.item() if mean is None else .8 * mean + .2 * loss.item()
        if step % 50 == 0: say(f'{time.time() - t0:.0f} s step {step} loss {mean:.4f} pictures {len(data)}')
        if step % a.save == 0 or step == end:
            if a.workers == 1 or not tokenizer: data.refresh()
            if rank == 0:
                with torch.no_grad(): v = np.mean([loss_of([data.pair(i) for i in range(k, k + 32)]).item() for k in range(0, 128, 32)])
                say(f'{time.time() - t0:.0f} s step {step} held out {v:.4f}'); save(a.out)
    if rank == 0: save(a.out)
    say(f'{(time.time() - t0) / max(1, step - first):.3f} s a step')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--codes', required=True, help='folder of encode.py'); p.add_argument('--out', required=True)
    p.add_argument('--vqgan', help='also encode pictures that appear in the folder, then delete them')
    p.add_argument('--codebook', help='tokenizer whose codebook the rows of codes start from')
    p.add_argument('--steps', type=int, default=60000); p.add_argument('--decay', type=int, default=6000)
    p.add_argument('--batch', type=int, default=32, help='of all workers'); p.add_argument('--lr', type=float, default=3e-3)
    p.add_argument('--width', type=int, default=256); p.add_argument('--layers', type=int, default=6); p.add_argument('--heads', type=int, default=4)
    p.add_argument('--ff', type=int, default=512); p.add_argument('--drop', type=float, default=.1, help='share of samples without their prompt')
    p.add_argument('--device', default='cpu'); p.add_argument('--workers', type=int, default=1); p.add_argument('--threads', type=int, default=1, help='of each worker')
    p.add_argument('--f32', action='store_true', help='no bf16 autocast'); p.add_argument('--compile', action='store_true', help='let torch fuse the layers; about a minute of compiling')
    p.add_argument('--seconds', type=float, default=math.inf); p.add_argument('--save', type=int, default=200); p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    if a.workers == 1: train(0, a, None)
    else: torch.multiprocessing.spawn(train, (a, workers.meeting_point()), a.workers)
