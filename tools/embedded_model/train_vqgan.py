"""Trains the image tokenizer: a continuous autoencoder first, then k-means of its latents becomes the codebook.

Loss: L1 on pixels, edges and reduced pictures; chroma (without it saturated colours are lost for long); squared error;
commitment; and a training-only head that reads a patch's mean colour from its code."""
import argparse, math, time
import numpy as np, torch, torch.nn.functional as F
import vqgan
from optimizers import Trainer


def kmeans(f, k, rounds=12):
    c = f[torch.randperm(len(f))[:k]].clone()
    for _ in range(rounds):
        i = torch.cat([(p.pow(2).sum(1, keepdim=True) - 2 * p @ c.t() + c.pow(2).sum(1)).argmin(1) for p in f.split(16384)])
        n = torch.zeros(k).index_add_(0, i, torch.ones(len(f)))
        s = torch.zeros_like(c).index_add_(0, i, f)
        c = torch.where(n[:, None] > 0, s / n[:, None].clamp_min(1), f[torch.randint(len(f), (k,))])
    return c


def picture_loss(y, x):
    e = y - x
    e2, e4 = F.avg_pool2d(e, 2), F.avg_pool2d(e, 4)
    edges = (e[..., 1:] - e[..., :-1]).abs().mean() + (e[..., 1:, :] - e[..., :-1, :]).abs().mean()
    chroma = lambda d: ((d[:, 0] - d[:, 1]).abs() + (d[:, 2] - .5 * (d[:, 0] + d[:, 1])).abs()).mean()
    l1 = e.abs().mean()
    return l1 + .5 * edges + .5 * (e2.abs().mean() + e4.abs().mean()) + .4 * (chroma(e2) + chroma(e4)) + 1.5 * e.pow(2).mean(), l1


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True); p.add_argument('--out', required=True)
    p.add_argument('--steps', type=int, default=1900); p.add_argument('--batch', type=int, default=16)
    p.add_argument('--lr', type=float, default=2.5e-3); p.add_argument('--continuous', type=float, default=.2)
    p.add_argument('--codes', type=int, default=1024)
    a = p.parse_args()
    torch.manual_seed(0); rng = np.random.default_rng(0)
    X = np.load(a.data, mmap_mode='r')
    m = vqgan.VQGAN(n_embed=a.codes).to(memory_format=torch.channels_last)
    m.colour = torch.nn.Conv2d(m.config['embed_dim'], 3, 1)
    print('parameters', sum(q.numel() for q in m.parameters()) / 1e6, 'M', flush=True)
    t = Trainer(m, lambda n: n in ('encoder.conv_in.weight', 'decoder.conv_out.weight', 'colour.weight'), (.9, .99))
    t0, latents, quantized = time.time(), [], False
    for step in range(a.steps):
        f = step / a.steps
        x = vqgan.to_tensor(X[np.sort(rng.integers(0, len(X), a.batch))]).contiguous(memory_format=torch.channels_last)
        z = m.latent(x).float()
        if f >= a.continuous and not quantized:
            quantized = True; m.set_codebook(kmeans(torch.cat(latents), a.codes)); print('quantizing from step', step, flush=True)
        commit, codes, q = 0., None, z
        if quantized:
            codes, book = m.quantize(z); m.move_codebook(z, codes)
            commit = F.mse_loss(z, book); q = z + (book - z).detach()
        else:
            latents = (latents + [z.detach().permute(0, 2, 3, 1).reshape(-1, z.shape[1])])[-40:]
        y = m.decoder(m.post_quant_conv(q)).float()
        loss, l1 = picture_loss(y, x)
        loss = loss + F.l1_loss(m.colour(q).float(), F.avg_pool2d(x, x.shape[2] // z.shape[2])) + .25 * commit
        loss.backward()
        t.step(a.lr * min(1, (step + 1) / 50) * (.03 + .97 * .5 * (1 + math.cos(math.pi * f))))
        if step % 20 == 0:
            used = 0 if codes is None else len(codes.unique())
            print(f'{time.time() - t0:.0f} s step {step} l1 {l1.item():.4f} loss {loss.item():.4f} codes {used}', flush=True)
        if step % 200 == 199: vqgan.save(m, a.out)
    vqgan.save(m, a.out)
