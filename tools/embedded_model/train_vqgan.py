"""Trains the image tokenizer: a continuous autoencoder first, then k-means of its latents becomes the codebook.

Loss: L1 on pixels, edges and reduced pictures; chroma (without it saturated colours are lost for long); squared error; the
distance of features (perceptual.py); commitment; and a training-only head that reads a patch's mean colour from its code.

The whole state is saved every `--save` steps, and the same command goes on from it. Beside the weights a moving average of them
is kept: the average is what is measured, exported and used, so that the rate need not fall before one can look. With `--seconds`
a run ends by itself, in pieces as long as a borrowed machine allows."""
import argparse, math, os, time
import numpy as np, torch, torch.nn.functional as F
import checkpoint, grow, state, vqgan, workers
from optimizers import Trainer
from perceptual import Perceptual
from shards import Shards

HEAD = 'colour'                  # only in training


def nearest(f, c):
    """Index of and squared distance to the nearest centre."""
    i, e = [], []
    for p in f.split(4096):
        d = torch.addmm(c.pow(2).sum(1)[None], p, c.t(), alpha=-2).min(1)
        i.append(d.indices); e.append((d.values + p.pow(2).sum(1)).clamp_min(0))
    return torch.cat(i), torch.cat(e)


def kmeans(f, k, rounds=8, most=60_000):
    """Centres start, and start anew when nothing is nearest to them, where the error is large: most patches are flat sky or
    wall, and centres drawn evenly would mostly be copies of those."""
    f = f[torch.randperm(len(f), device=f.device)[:most]]
    c = f[:k // 8]
    while len(c) < k: c = torch.cat([c, f[torch.multinomial(nearest(f, c)[1] + 1e-9, min(len(c), k - len(c)))]])
    for _ in range(rounds):
        i, e = nearest(f, c)
        n = torch.zeros(k, device=f.device).index_add_(0, i, torch.ones(len(f), device=f.device))
        s = torch.zeros_like(c).index_add_(0, i, f)
        c = torch.where(n[:, None] > 0, s / n[:, None].clamp_min(1), f[torch.multinomial(e + 1e-9, k)])
    return c


def lengthened(t, like):
    """A shorter codebook's values in the shape of a longer one. Entries that it lacks lie far from everything and are used by
    nothing, so that the next step gives them a place where the error is large."""
    return torch.cat([t, torch.full_like(like[len(t):], 1e3 if t.dim() > 1 else 0.)])


def picture_loss(y, x):
    e = y - x
    e2, e4 = F.avg_pool2d(e, 2), F.avg_pool2d(e, 4)
    edges = (e[..., 1:] - e[..., :-1]).abs().mean() + (e[..., 1:, :] - e[..., :-1, :]).abs().mean()
    chroma = lambda d: ((d[:, 0] - d[:, 1]).abs() + (d[:, 2] - .5 * (d[:, 0] + d[:, 1])).abs()).mean()
    l1 = e.abs().mean()
    return l1 + .5 * edges + .5 * (e2.abs().mean() + e4.abs().mean()) + .4 * (chroma(e2) + chroma(e4)) + 1.5 * e.pow(2).mean(), l1


class Run:
    """Everything that a stopped training needs to go on."""
    def __init__(self, a):
        self.a, self.step, self.quantized, self.elapsed = a, 0, False, 0.
        self.m = vqgan.VQGAN(n_embed=a.codes)
        self.m.colour = torch.nn.Conv2d(self.m.config['embed_dim'], 3, 1)
        if a.grow and not os.path.exists(a.out):
            import folder
            self.m.load_state_dict(grow.grown(folder.open_tokenizer(a.grow).state_dict(), self.m))
        if a.decoder:
            # What is told apart and what codes mean stays: a transformer may have learned it.
            whole = vqgan.load(a.decoder)
            self.m.load_state_dict(whole.state_dict(), strict=False); self.m.set_codebook(whole.codebook)
            for part in (self.m.encoder, self.m.quant_conv, self.m.colour): part.requires_grad_(False)
            self.quantized = True
        if a.start and not os.path.exists(a.out):
            _, self.step, self.quantized, weights, book, count = checkpoint.read(a.start)
            count = lengthened(count, self.m.count); self.m.load_state_dict(weights); self.m.set_codebook(lengthened(book, self.m.codebook))
            self.m.count.copy_(count); self.m.total.copy_(self.m.codebook * count[:, None])
        self.begun = self.step        # the optimizer warms up from here
        self.m.to(a.device, memory_format=torch.channels_last)
        self.t = Trainer(self.m, lambda n: n in ('encoder.conv_in.weight', 'decoder.conv_out.weight', 'colour.weight'), (.9, .99))
        self.mean = {k: v.float().clone() for k, v in self.m.state_dict().items()}
        self.mean_book = self.m.codebook.clone()
        if os.path.exists(a.out): self.restore(torch.load(a.out, weights_only=True, map_location=a.device))

    def restore(self, d):
        self.step, self.quantized, self.begun = d['step'], d['quantized'], d.get('begun', 0)
        self.t.restore(d['trainer'])
        if self.a.requantize and self.quantized: self.quantized = False; self.a.continuous = max(self.a.continuous, self.step + 40)
        for k in ('codebook', 'count', 'total'): getattr(self.m, k).copy_(lengthened(d[k], getattr(self.m, k)))
        for k, v in d['mean'].items(): self.mean[k].copy_(v)
        self.mean_book.copy_(lengthened(d['mean_book'], self.mean_book))

    def save(self):
        d = dict(step=self.step, begun=self.begun, quantized=self.quantized, trainer=self.t.state(), mean=self.mean, mean_book=self.mean_book, config=self.m.config,
                 codebook=self.m.codebook, count=self.m.count, total=self.m.total)
        state.write(d, self.a.out)
        vqgan.save(self.averaged(), self.a.out + '.mean')

    def average(self):
        k = state.follow(self.mean, self.m, self.step)
        self.mean_book.lerp_(self.m.codebook, 1 - k); self.mean_book[self.m.anew] = self.m.codebook[self.m.anew]

    def averaged(self):
        m = vqgan.VQGAN(**self.m.config)
        m.load_state_dict({k: v.cpu() for k, v in self.mean.items() if not k.startswith(HEAD)}); m.set_codebook(self.mean_book.cpu())
        return m.eval()

    def rate(self):
        """Constant after a warm-up, to zero over the last `--decay` steps before `--steps`, or the last `--fall` of `--seconds`."""
        fall = min(1, max(0, self.a.steps - self.step) / max(1, self.a.decay))
        if self.a.fall: fall = min(fall, max(0, self.a.seconds - self.elapsed) / self.a.fall)
        return self.a.lr * min(1, (self.step - self.begun + 1) / 50) * max(.02, fall)

    def train_step(self, x, perceptual, latents):
        m, a = self.m, self.a
        with torch.autocast(x.device.type, torch.bfloat16, enabled=not a.f32):
            # A decoder alone is to see the codes that the library finds, which computes in f32.
            with torch.set_grad_enabled(not a.decoder), torch.autocast(x.device.type, torch.bfloat16, enabled=not (a.f32 or a.decoder)): z = m.latent(x).float()
            commit, used, q = 0., 0, z
            if a.decoder: codes, q = m.quantize(z); used = len(codes.unique())
            elif self.quantized:
                codes, book = m.quantize(z); m.move_codebook(z, codes); used = len(codes.unique())
                commit = F.mse_loss(z, book); q = z + (book - z).detach()
            else: latents.append(z.detach().permute(0, 2, 3, 1).reshape(-1, z.shape[1])); del latents[:-a.reservoir]
            y = m.decoder(m.post_quant_conv(q)).float()
            loss, l1 = picture_loss(y, x)
            if not a.decoder: loss = loss + F.l1_loss(m.colour(q).float(), F.avg_pool2d(x, x.shape[2] // z.shape[2])) + .25 * commit
            seen = perceptual(y[:a.seen], x[:a.seen]) if a.perceptual else torch.zeros(())
            loss = loss + a.perceptual * seen
        loss.backward()
        workers.average_gradients(self.t.work)
        self.t.step(self.rate())
        self.step += 1; self.average()
        return l1.item(), seen.item(), loss.item(), used


def train(rank, a, meeting):
    torch.set_num_threads(a.threads); workers.start(rank, a.workers, meeting); torch.manual_seed(a.seed)
    say = (lambda *w: print(*w, flush=True)) if rank == 0 else (lambda *w: None)
    data, run = Shards(a.data), Run(a)
    perceptual = Perceptual().to(a.device, memory_format=torch.channels_last) if a.perceptual else None
    say('parameters', sum(q.numel() for q in run.m.parameters()) / 1e6, 'M; pictures', len(data), 'from step', run.step)
    t0, first, latents, row = time.time(), run.step, [], None
    while run.step < a.steps and (spent := workers.agreed(time.time() - t0)) < a.seconds:
        run.elapsed = spent
        # The same on all workers: a codebook must not come out differently. Pictures differ.
        torch.manual_seed(a.seed * 1_000_003 + run.step); rng = np.random.default_rng([a.seed, run.step, rank])
        if not run.quantized and run.step >= a.continuous and len(latents) >= min(a.reservoir, 40):
            run.quantized = True; run.m.set_codebook(kmeans(workers.gathered(torch.cat(latents)), a.codes)); run.mean_book.copy_(run.m.codebook); latents.clear()
            say('quantizing from step', run.step)
        whole = np.random.default_rng([a.seed, run.step]).random() < a.whole
        x = vqgan.to_tensor(data.take(rng, a.batch // a.workers, 0 if whole else a.window)).to(a.device).contiguous(memory_format=torch.channels_last)
        now = np.array(run.train_step(x, perceptual, latents)); row = now if row is None else .95 * row + .05 * now
        if run.step % 20 == 0:
            say(f'{time.time() - t0:.0f} s step {run.step} l1 {row[0]:.4f} features {row[1]:.4f} loss {row[2]:.4f} codes {row[3]:.0f}')
        if run.step % a.save == 0:
            data.refresh()
            if rank == 0: run.save()
    if rank == 0: run.save()
    say(f'{(time.time() - t0) / max(1, run.step - first):.2f} s a step')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True, help='folder of draw.py'); p.add_argument('--out', required=True, help='state; OUT.mean is the averaged tokenizer')
    p.add_argument('--steps', type=int, default=40000); p.add_argument('--decay', type=int, default=4000)
    p.add_argument('--batch', type=int, default=12, help='of all workers'); p.add_argument('--lr', type=float, default=1.5e-3)
    p.add_argument('--continuous', type=int, default=800, help='steps before there is a codebook'); p.add_argument('--codes', type=int, default=8192, help='a state with fewer is lengthened')
    p.add_argument('--window', type=int, default=0, help='train on the busiest windows of this side; whole pictures otherwise')
    p.add_argument('--whole', type=float, default=.25, help='share of the steps that see whole pictures in spite of --window')
    p.add_argument('--requantize', action='store_true', help='first a new codebook, by k-means of new latents')
    p.add_argument('--perceptual', type=float, default=.15); p.add_argument('--seen', type=int, default=3, help="pictures of a worker's batch that the perceptual loss sees")
    p.add_argument('--decoder', help='tokenizer whose decoder alone learns, against codes that stay as they are')
    p.add_argument('--start', help='file of checkpoint.py to go on from, where OUT does not exist yet')
    p.add_argument('--grow', help='model folder whose smaller tokenizer to start from'); p.add_argument('--save', type=int, default=200)
    p.add_argument('--device', default='cpu'); p.add_argument('--workers', type=int, default=2); p.add_argument('--threads', type=int, default=1, help='of each worker')
    p.add_argument('--f32', action='store_true'); p.add_argument('--seconds', type=float, default=math.inf); p.add_argument('--fall', type=float, default=0, help='seconds'); p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    a.reservoir = 800 * a.workers // a.batch
    if a.workers == 1: train(0, a, None)
    else: torch.multiprocessing.spawn(train, (a, workers.meeting_point()), a.workers)
