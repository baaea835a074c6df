"""Trains Infinity's image tokenizer from the VQ-GAN's weights: the same pictures, losses and optimizer as train_vqgan.py. Latents are
replaced by the sum of their scales' codes, straight through, and drawn towards it.

The whole state is saved every `--save` steps, and the same command goes on from it. OUT.mean is the moving average, to be used."""
import argparse, math, os, time
import numpy as np, torch, torch.nn.functional as F
import state, vae, vqgan, workers
from optimizers import Trainer
from perceptual import Perceptual
from shards import Shards
from train_vqgan import picture_loss


def train(rank, a, meeting):
    torch.set_num_threads(a.threads); workers.start(rank, a.workers, meeting); torch.manual_seed(a.seed)
    say = (lambda *w: print(*w, flush=True)) if rank == 0 else (lambda *w: None)
    data, m, step = Shards(a.data), vae.Vae(), 0
    if not os.path.exists(a.out):
        m.start_from(vqgan.load(a.vqgan), vqgan.to_tensor(data.take(np.random.default_rng(a.seed), 96)))
    m.to(a.device, memory_format=torch.channels_last)
    t, seen = Trainer(m, lambda n: n in ('encoder.conv_in.weight', 'decoder.conv_out.weight'), (.9, .99)), Perceptual().to(a.device, memory_format=torch.channels_last)
    mean = {k: v.float().clone() for k, v in m.state_dict().items()}
    if os.path.exists(a.out):
        d = torch.load(a.out, weights_only=True, map_location=a.device)
        step, mean = d['step'], d['mean']; t.restore(d['trainer'])
    say('parameters', sum(q.numel() for q in m.parameters()) / 1e6, 'M; pictures', len(data), 'from step', step)
    begun, t0, row = step, time.time(), None

    def save():
        state.write(dict(step=step, mean=mean, trainer=t.state()), a.out)
        average = vae.Vae(); average.load_state_dict(mean); state.save(average, a.out + '.mean')

    while step < a.steps and workers.agreed(time.time() - t0) < a.seconds:
        rng = np.random.default_rng([a.seed, step, rank])
        x = vqgan.to_tensor(data.take(rng, a.batch // a.workers)).to(a.device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(a.device, torch.bfloat16, enabled=not a.f32):
            z = m.encoder(x).float()
            bits, _, q = vae.quantise(z.detach())
            y = m.decoder(z + (q - z).detach()).float()
            commit = F.mse_loss(z, q)
            loss, l1 = picture_loss(y, x)
            features = seen(y[:a.seen], x[:a.seen])
            loss = loss + a.commit * commit + a.perceptual * features
        loss.backward(); workers.average_gradients(t.work)
        fall = min(1, max(0, a.steps - step) / max(1, a.decay))
        t.step(a.lr * min(1, (step - begun + 1) / 50) * max(.02, fall))
        step += 1
        state.follow(mean, m, step)
        new = np.array([l1.item(), features.item(), commit.item(), loss.item(), bits[-1].mean((0, 2, 3)).sub(.5).abs().max().item()])
        row = new if row is None else .95 * row + .05 * new
        if step % 20 == 0: say(f'{time.time() - t0:.0f} s step {step} l1 {row[0]:.4f} features {row[1]:.4f} commit {row[2]:.4f} loss {row[3]:.4f} bias of bits {row[4]:.2f}')
        if step % a.save == 0:
            data.refresh()
            if rank == 0: save()
    if rank == 0: save()


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True, help='folder of draw.py'); p.add_argument('--vqgan', required=True, help='tokenizer to start from')
    p.add_argument('--out', required=True); p.add_argument('--steps', type=int, default=10000); p.add_argument('--decay', type=int, default=4000)
    p.add_argument('--batch', type=int, default=12, help='of all workers'); p.add_argument('--lr', type=float, default=1.5e-3)
    p.add_argument('--commit', type=float, default=4, help='at .25 the latents run away from the codes'); p.add_argument('--perceptual', type=float, default=.15); p.add_argument('--seen', type=int, default=3)
    p.add_argument('--device', default='cpu'); p.add_argument('--workers', type=int, default=2); p.add_argument('--threads', type=int, default=1)
    p.add_argument('--f32', action='store_true'); p.add_argument('--save', type=int, default=200); p.add_argument('--seconds', type=float, default=math.inf); p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    if a.workers == 1: train(0, a, None)
    else: torch.multiprocessing.spawn(train, (a, workers.meeting_point()), a.workers)
