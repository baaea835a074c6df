"""Pretrains the transformer: Muon for the hidden matrices, AdamW for embeddings, head and norms; a tenth of the samples
without their prompt. Constant learning rate, then a linear fall over the last `--decay` steps; checkpoints hold the whole
state, so that a run can be resumed, and lengthened before its decay."""
import argparse, json, os, random, time
import numpy as np, torch
import transformer as tf
from optimizers import Trainer

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--codes', required=True, nargs='+', help='NAME.npy of codes; captions in NAME.json'); p.add_argument('--out', required=True)
    p.add_argument('--steps', type=int, required=True); p.add_argument('--decay', type=int, required=True)
    p.add_argument('--batch', type=int, default=32); p.add_argument('--lr', type=float, default=3e-3)
    p.add_argument('--layers', type=int, default=5); p.add_argument('--drop', type=float, default=.1)
    p.add_argument('--compile', action='store_true', help='let torch fuse the layers; about a minute of compiling')
    p.add_argument('--until', type=float, default=float('inf'), help='Unix time by which the decay must be over: it begins sooner if need be')
    a = p.parse_args()
    torch.manual_seed(0)
    C = np.concatenate([np.load(c) for c in a.codes])
    meta = [m for c in a.codes for m in json.load(open(c[:-4] + '.json'))]
    # Pictures of other emoji, which only the image tokenizer learns from, have no caption.
    pairs = [(tf.block(x), tf.words(m[0])) for x, m in zip(C, meta) if m[0]]
    blocks, prompts = [b for b, _ in pairs], [p for _, p in pairs]
    held = 256
    m = tf.Transformer(layers=a.layers)
    t = Trainer(m, lambda n: 'embed' in n or 'head' in n, (.9, .98))
    step, decay_at = 0, a.steps - a.decay
    if os.path.exists(a.out):
        d = torch.load(a.out, weights_only=True); t.restore(d['trainer']); step = d['step']; decay_at = max(decay_at, step)
    print('parameters', sum(q.numel() for q in m.parameters()) / 1e6, 'M; pictures', len(blocks) - held, 'from step', step, flush=True)
    if a.compile:
        for l in m.layers: l.forward = torch.compile(l.forward, dynamic=False)
    longest = max(len(p) + len(b) for p, b in pairs) + 3     # one length for all batches, so that there is one thing to compile
    longest = (longest + 7) // 8 * 8 + 1
    loss_of = lambda idx, r: m.loss(*tf.batch([tf.sequence(None if r and r.random() < a.drop else prompts[i], blocks[i]) for i in idx], longest if a.compile else 0))
    t0, first, mean, end = time.time(), step, None, a.steps
    while step < end:
        # The order depends on the step alone, so a resumed run sees the same batches.
        per = (len(blocks) - held) // a.batch
        if step % per == 0 or step == first:
            order = list(range(held, len(blocks))); random.Random(step // per).shuffle(order)
        r = random.Random(1_000_000 + step); k = step % per * a.batch
        if step < decay_at:
            pace = (time.time() - t0) / max(1, step - first)
            if step > first + 20 and time.time() + pace * a.decay >= a.until: decay_at, end = step, step + a.decay; print('decay from step', step, flush=True)
        if step == decay_at: tf.save(m, a.out + '.before_decay', trainer=t.state(), step=step)      # a longer run can go on from here
        l = loss_of(order[k:k + a.batch], r); l.backward()
        fall = 1 if step < decay_at else 1 - (step - decay_at) / a.decay
        t.step(a.lr * min(1, (step + 1) / 60) * max(.01, fall))
        step += 1; mean = l.item() if mean is None else .98 * mean + .02 * l.item()
        if step % 50 == 0:
            print(f'{time.time() - t0:.0f} s step {step} loss {mean:.4f}', flush=True)
        if step % 200 == 0 or step == end:
            with torch.no_grad(): v = loss_of(range(128), None).item()
            print(f'{time.time() - t0:.0f} s step {step} held out {v:.4f}', flush=True)
            tf.save(m, a.out, trainer=t.state(), step=step)
