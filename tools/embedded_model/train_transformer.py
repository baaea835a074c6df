"""Pretrains a transformer: Muon for the hidden matrices, AdamW for embeddings, head and norms; a tenth of the samples
without their prompt, as the unguided branch sees them. Constant rate, then a linear fall over the last `--decay` steps.

The whole state is saved every `--save` steps and at the end, and the same command goes on from it; before the fall it can be
lengthened at will. With `--settled`, half of every batch comes from there, the other half from those of `--codes` whose captions
tell the look. `--seconds` ends a run after that time, for machines lent in pieces:

    python train_transformer.py --codes FOLDER --tokenizer vq.pt.mean --out lm.pt --device cuda --batch 256 --seconds 540

With `--tokenizer`, shards of pictures that draw.py is adding to the folder meanwhile are encoded when they appear."""
import argparse, collections, glob, math, os, time
import numpy as np, torch
import captions, encode, folder, infinity, shards, state, transformer as tf, vae, vqgan, workers
from optimizers import Trainer

HELD = 512      # pictures of a folder, its first, that are never trained on


class Lumina:
    """Captions and codes, token after token."""
    kind, plain = 'codes', staticmethod(lambda n: 'embed' in n or 'head' in n)      # names that AdamW should take

    def __init__(self, a):
        self.m = folder.open_folder(a.start)[0] if a.start else tf.Transformer(d=a.width, layers=a.layers, heads=a.heads, ff=a.ff)
        if a.codebook and not a.start: self.m.lay_codes(vqgan.load(a.codebook).codebook)
        self.longest = tf.longest_sequence()      # one length for all batches, so that there is one shape

    words = staticmethod(tf.words)

    def loss(self, prompts, codes, kept, rng):
        """Of texts (those not `kept` are dropped) and numpy codes."""
        pairs = [tf.sequence(p if k else None, tf.block(c)) for p, c, k in zip(prompts, codes, kept)]
        return self.m.loss(*(x.to(self.m.cos.device) for x in tf.batch(pairs, self.longest)))

    def compile(self):
        for l in self.m.layers: l.compile(dynamic=False)
        tf.HeadLoss.slopes = staticmethod(torch.compile(tf.slopes))


class Infinity:
    """Captions and bits, scale after scale, a share of the bits turned over."""
    kind = 'scales'
    plain = staticmethod(lambda n: any(k in n for k in ('embed', 'head', 'shared', 'ada', 'mat_q', 'cfg_uncond', 'bias', 'pos_start')))

    def __init__(self, a):
        self.m = folder.open_infinity(a.start) if a.start else infinity.Infinity(a.width, a.layers, a.heads, a.ff)
        # A token of a coarse scale stands for more of the picture, as upstream weighs them.
        weight = torch.cat([torch.full((n * n,), 1. / n) for n in vae.SCALES])
        self.weights = weight / weight.sum()
        self.flip = a.flip

    words = staticmethod(infinity.words)

    def loss(self, prompts, codes, kept, rng):
        device, longest = self.m.cos.device, captions.LONGEST + 1
        ids = torch.tensor([p + [0] * (longest - len(p)) for p in prompts], device=device)
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        flips = infinity.flips_of(len(codes), self.flip, torch.Generator().manual_seed(int(rng.integers(2 ** 62))))
        with torch.autocast(device.type, enabled=False):
            labels, inputs = infinity.picture(torch.from_numpy(np.stack(codes).astype(np.int64)).to(device), [f.to(device) for f in flips])
        logits = self.m(*self.m.features(ids, lengths, ~torch.tensor(kept, device=device)), inputs)
        return infinity.loss(logits, labels, self.weights.to(device))

    def compile(self):
        for chunk in self.m.block_chunks:
            for block in chunk.module: block.compile(dynamic=False)


class Pictures:
    """Prompts and codes of every encoded shard, or of those pictures whose caption tells the look; new shards are found by `refresh`."""
    def __init__(self, folder, kind, words, tokenizer, device, balance, told=False):
        self.told, self.folder, self.kind, self.words, self.tokenizer, self.device = told, folder, kind, words, tokenizer, device
        self.balance = balance
        self.seen, self.codes, self.prompts, self.classes = set(), [], [], []
        self.read, self.held = 0, 0      # pictures with captions; how many of ours are never trained on
        self.refresh()

    def refresh(self):
        if self.tokenizer:
            for _ in encode.encode_pending(self.folder, {self.kind: self.tokenizer}, self.device, keep=False): pass
        for file in sorted(glob.glob(f'{self.folder}/*.{self.kind}')):
            if file in self.seen: continue
            self.seen.add(file)
            for codes, (text, content) in zip(np.load(file), shards.captions(file.rsplit('.', 1)[0])):
                if not text: continue
                self.read += 1
                if self.told and not captions.tells_look(text, 2 if 'other' in content else 1): continue
                self.codes.append(codes); self.prompts.append(self.words(text)); self.classes.append(content['cls'])
                self.held += self.read <= HELD
        weight = {c: n ** -self.balance for c, n in collections.Counter(self.classes[self.held:]).items()}
        weights = np.cumsum([weight[c] for c in self.classes[self.held:]])
        self.below = weights / weights[-1]

    def draw(self, r, n): return self.held + np.searchsorted(self.below, r.random(n), 'right')

    def __len__(self): return len(self.codes) - self.held

    def take(self, at): return [self.prompts[i] for i in at], [self.codes[i] for i in at]


def train(rank, a, meeting):
    torch.set_num_threads(a.threads); workers.start(rank, a.workers, meeting); torch.manual_seed(a.seed)
    say = (lambda *w: print(*w, flush=True)) if rank == 0 else (lambda *w: None)
    device, way = torch.device(a.device), {'lumina': Lumina, 'infinity': Infinity}[a.family](a)
    tokenizer = encode.KINDS[way.kind].load(a.tokenizer).to(device, memory_format=torch.channels_last) if a.tokenizer else None
    pictures = lambda folder, **how: Pictures(folder, way.kind, way.words, tokenizer, device, a.balance, **how)
    sources = [pictures(a.codes, told=True), pictures(a.settled)] if a.settled else [pictures(a.codes)]
    count = lambda: ' + '.join(str(len(s)) for s in sources)
    m = way.m.to(device)
    t = Trainer(m, way.plain, (.9, .98))
    step = 0
    if os.path.exists(a.out):
        d = torch.load(a.out, weights_only=True, map_location=device); t.restore(d['trainer']); step = d['step']
    say('parameters', sum(q.numel() for q in m.parameters()) / 1e6, 'M; pictures', count(), 'from step', step)
    if a.compile: way.compile()

    def loss_of(taken, kept, rng):
        """Of (prompts, codes) of one source or more."""
        prompts, codes = (sum(part, []) for part in zip(*taken))
        with torch.autocast(device.type, torch.bfloat16, enabled=not a.f32): return way.loss(prompts, codes, kept, rng)

    def held_out(source):
        return np.mean([loss_of([source.take(range(k, k + 32))], np.ones(32, bool), np.random.default_rng(k)).item() for k in range(0, 128, 32)])

    def save(name): state.save(m, name, trainer=t.state(), step=step)

    t0, first, mean, end, decay_at = time.time(), step, None, a.steps, a.steps - a.decay
    while step < end and workers.agreed(time.time() - t0) < a.seconds:
        if step == decay_at and rank == 0 and a.decay: save(a.out + '.before_decay')      # a longer run can go on from here
        # Which pictures depends on the step and the worker alone, and on how many there are.
        r = np.random.default_rng([a.seed, step, rank])
        each = a.batch // a.workers // len(sources)
        taken = [s.take(s.draw(r, each)) for s in sources]
        loss = loss_of(taken, r.random(each * len(sources)) >= a.drop, r); loss.backward(); workers.average_gradients(t.work)
        fall = 1 if step < decay_at else 1 - (step - decay_at) / a.decay      # the same when the run is resumed within it
        t.step(a.lr * min(1, (step + 1) / 60) * max(.01, fall))
        step += 1
        if step % 10 == 0: mean = loss.item() if mean is None else .8 * mean + .2 * loss.item()
        if step % 50 == 0: say(f'{time.time() - t0:.0f} s step {step} loss {mean:.4f} pictures {count()}')
        if step % a.save == 0 or step == end:
            if a.workers == 1 or not tokenizer:
                for s in sources: s.refresh()
            if rank == 0:
                with torch.no_grad(): v = ' and '.join(f'{held_out(s):.4f}' for s in sources)
                say(f'{time.time() - t0:.0f} s step {step} held out {v}'); save(a.out)
    if rank == 0: save(a.out)
    say(f'{(time.time() - t0) / max(1, step - first):.3f} s a step')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--codes', required=True, help='folder of encode.py'); p.add_argument('--out', required=True)
    p.add_argument('--settled', help='folder of encoded pictures that draw.py --settled drew')
    p.add_argument('--family', choices=['lumina', 'infinity'], default='lumina')
    p.add_argument('--tokenizer', help="the family's; also encode pictures that appear in the folder, then delete them")
    p.add_argument('--codebook', help='vqgan.py tokenizer whose codebook the rows of codes start from')
    p.add_argument('--start', help='model folder whose weights a new training starts from, as assets/embedded')
    p.add_argument('--flip', type=float, default=.3, help='infinity: the largest share of bits turned over in a scale')
    p.add_argument('--steps', type=int, default=60000); p.add_argument('--decay', type=int, default=6000)
    p.add_argument('--batch', type=int, default=32, help='of all workers'); p.add_argument('--lr', type=float, default=3e-3)
    p.add_argument('--width', type=int, default=256); p.add_argument('--layers', type=int, default=6); p.add_argument('--heads', type=int, default=4)
    p.add_argument('--ff', type=int, default=512); p.add_argument('--drop', type=float, default=.1, help='share of samples without their prompt')
    p.add_argument('--balance', type=float, default=0, help='0 takes all pictures equally often, 1 all classes')
    p.add_argument('--device', default='cpu'); p.add_argument('--workers', type=int, default=1); p.add_argument('--threads', type=int, default=1, help='of each worker')
    p.add_argument('--f32', action='store_true', help='no bf16 autocast'); p.add_argument('--compile', action='store_true', help='let torch fuse the layers; about a minute of compiling')
    p.add_argument('--seconds', type=float, default=math.inf); p.add_argument('--save', type=int, default=200); p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    if a.workers == 1: train(0, a, None)
    else: torch.multiprocessing.spawn(train, (a, workers.meeting_point()), a.workers)
