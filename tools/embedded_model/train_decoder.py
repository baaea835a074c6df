"""Trains the tokenizer's decoder on, against codes that stay as they are, so that a transformer already trained on these
codes is not affected. Pictures get sharper; codebook and encoder are untouched."""
import argparse, glob, math, os, time
import numpy as np, torch
import vqgan
from optimizers import Trainer
from train_vqgan import picture_loss

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True, help='folder of draw.py whose pictures encode.py kept')
    p.add_argument('--vqgan', required=True); p.add_argument('--out', required=True)
    p.add_argument('--steps', type=int, default=600); p.add_argument('--batch', type=int, default=24); p.add_argument('--lr', type=float, default=1.2e-3)
    p.add_argument('--until', type=float, default=float('inf'), help='Unix time: the learning rate falls so as to be zero by then')
    a = p.parse_args()
    torch.manual_seed(0); rng = np.random.default_rng(0)
    names = sorted(f[:-6] for f in glob.glob(f'{a.data}/*.codes') if os.path.exists(f[:-6] + '.npy'))
    X, C = [np.load(n + '.npy', mmap_mode='r') for n in names], [np.load(n + '.codes') for n in names]
    m = vqgan.load(a.vqgan).to(memory_format=torch.channels_last).train()
    m.encoder.requires_grad_(False); m.quant_conv.requires_grad_(False)
    t, t0, mean = Trainer(m, lambda n: n == 'decoder.conv_out.weight', (.9, .99)), time.time(), None
    step = 0
    while step < a.steps and time.time() < a.until:
        f = max(step / a.steps, (time.time() - t0) / (a.until - t0))
        at = [(k := rng.integers(len(X)), rng.integers(len(X[k]))) for _ in range(a.batch)]
        x = vqgan.to_tensor(np.stack([X[k][i] for k, i in at])).contiguous(memory_format=torch.channels_last)
        loss, l1 = picture_loss(m.decode(torch.from_numpy(np.stack([C[k][i] for k, i in at]).astype(np.int64))).float(), x)
        loss.backward()
        t.step(a.lr * min(1, (step + 1) / 30) * .5 * (1 + math.cos(math.pi * f)))
        step += 1; mean = l1.item() if mean is None else .98 * mean + .02 * l1.item()
        if step % 20 == 0: print(f'{time.time() - t0:.0f} s step {step} l1 {mean:.4f} loss {loss.item():.4f}', flush=True)
        if step % 100 == 0: vqgan.save(m, a.out)
    vqgan.save(m, a.out)
