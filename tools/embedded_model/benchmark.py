"""Teaches subjects of the held-out style by several recipes, and draws each in eight scenes with three seeds.

The PyTorch twin of `examples/benchmark.rs subjects`: the same stages, losses, prompts and recipe file on the same 16-bit model
folder, quicker because it draws in large batches. OUT gets the pictures, manifest.json for `evaluator.py` and results.json;
both are written anew after each subject, and subjects that are in them already are left out."""
import argparse, json, os, random, time
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from PIL import Image
import folder, transformer as tf, vqgan, world

LEARNED = tf.VOCAB['<unk>']      # the place of the learned vector in a sequence
TEMPLATES = list(dict.fromkeys(t for t in world.TEMPLATES if 'photo' in t or 'rend' in t))     # the 27 of Textual Inversion
PROMPTS = [('a photo of a {}', None, None, None), ('a photo of a {} in the snow', 'snow', None, None),
           ('a photo of a {} at night', 'night', None, None), ('a photo of a {} in the forest', 'forest', None, None),
           ('a photo of a blue {}', None, 'blue', None), ('a photo of a red {} in the city', 'city', 'red', None),
           ('a photo of a {} wearing a hat', None, None, 'hat'), ('a photo of a {} wearing a crown underwater', 'water', None, 'crown')]
# Not every class has worn an accessory in training.
THING_PROMPTS = PROMPTS[:6] + [('a photo of a green {} on the beach', 'beach', 'green', None), ('a photo of a {} at sunset', 'sunset', None, None)]
HELD_OUT = ['snow', 'night', 'city', 'desert', 'sunset', 'water']     # none is a scene of the references


class Embedding(nn.Module):
    """The model's embedding, with the learned vector where its place is."""
    def __init__(self, weight): super().__init__(); self.weight, self.vector = weight, None

    def forward(self, ids):
        x = F.embedding(ids, self.weight)
        return x if self.vector is None else torch.where((ids == LEARNED)[..., None], self.vector, x)


def words(text): return tf.PREFIX + [LEARNED if w == '[V]' else tf.VOCAB[w] for w in text.split()]


def moved(picture, zoom, dx, dy):
    """Zoomed about its centre and shifted by pixels, edges repeated."""
    x, n = vqgan.to_tensor(picture[None]), len(picture)
    at = torch.arange(n) + .5 - n / 2
    grid = torch.stack(torch.meshgrid((at - dy) / zoom, (at - dx) / zoom, indexing='ij')[::-1], -1) / (n / 2)
    return vqgan.to_pictures(F.grid_sample(x, grid[None], 'bicubic', 'border', align_corners=False))[0]


class Bench:
    def __init__(self, model, raw):
        self.m, self.vq, self.setting = folder.open_folder(model)
        self.m.requires_grad_(False)
        self.m.embed_tokens = self.table = Embedding(self.m.embed_tokens.weight)
        self.original = {n: p.clone() for n, p in self.m.named_parameters()}
        self.art = {k: world.World(raw, v, seed=77, pool=8) for k, v in (('held-out', (world.HELD_OUT_STYLE,)), ('known', tuple(world.STYLES)))}

    def put_back(self):
        for n, p in self.m.named_parameters(): p.data.copy_(self.original[n])

    @torch.no_grad()
    def encode(self, pictures): return list(self.vq.encode(vqgan.to_tensor(np.stack(pictures))))

    def pictures(self, cls, art):
        """Six pictures of a class in new scenes, in the held-out style or in those of the training."""
        w, r = self.art[art], random.Random(f'held out {cls}')
        return self.encode([w.compose(r, w.styles[i % len(w.styles)], cls, s, side=(72, 64)[i % 2]) for i, s in enumerate(HELD_OUT)])

    @torch.no_grad()
    def score(self, noun, codes):
        """Nats per token of pictures under prompts that name their scenes."""
        prompts = [f'a photo of a {noun} {world.SCENES[s][0]}' for s in HELD_OUT]
        return self.m.loss(*tf.batch([tf.sequence(words(p), tf.block(c)) for p, c in zip(prompts, codes)])).item()

    def first(self, o, seed):
        if not o.get('initial_word'): return torch.randn(self.table.weight.shape[1], generator=torch.Generator().manual_seed(seed)) * .105
        return self.table.weight[[tf.VOCAB[w] for w in o['initial_word'].split()]].mean(0).clone()

    def augmented(self, pictures, o, seed):
        """`augment_aligned` moves by whole patches of the image tokenizer and does not zoom."""
        r, out = random.Random(seed), []
        for p in pictures:
            out.append(p)
            for _ in range(o['augment']):
                dx, dy, zoom = r.uniform(-12, 12), r.uniform(-12, 12), r.uniform(.8, 1.12)
                out.append(moved(p, 1, round(dx / 8) * 8, round(dy / 8) * 8) if o.get('augment_aligned') else moved(p, zoom, dx, dy))
        return self.encode(out)

    def teach(self, cls, pictures, o, seed=0):
        """Both stages; leaves the model changed. -> vector, seconds of each stage on the process's clock."""
        codes, vector, r, seconds = self.augmented(pictures, o, seed), self.first(o, seed), random.Random(seed), []
        for layers in (False, True):
            t = time.process_time()
            kinds = {'qkv': ('q_proj', 'k_proj', 'v_proj'), 'attention': ('q_proj', 'k_proj', 'v_proj', 'o_proj'), 'mlp': ('gate', 'up_proj', 'down'), 'all': ('',)}
            weights = [p for n, p in self.m.named_parameters() if layers and n.startswith('layers.') and any(k in n for k in kinds[o['trainable']])]
            learns = not layers or o.get('train_embedding_in_layer_stage', False)
            vector = vector.detach().requires_grad_(learns)
            groups = [{'params': weights, 'lr': o['layer_learning_rate']}, {'params': [vector] if learns else [], 'lr': o.get('embedding_learning_rate', .01)}]
            every = [p.requires_grad_(True) for g in groups for p in g['params']]
            if every: opt = torch.optim.AdamW([g for g in groups if g['params']], betas=(.9, .95), weight_decay=o.get('weight_decay', 0))
            for _ in range(o['layer_steps' if layers else 'embedding_steps']):
                self.table.vector = vector
                drop = o.get('guidance_dropout', .1) if layers else 0
                batch = [tf.sequence(None if r.random() < drop else words(r.choice(TEMPLATES).format('[V] ' + cls)), tf.block(r.choice(codes))) for _ in range(o['batch_size'])]
                loss = self.m.loss(*tf.batch(batch))
                opt.zero_grad(); loss.backward()
                nn.utils.clip_grad_norm_(every, o.get('clip_norm', 1.)); opt.step()
            for p in weights: p.requires_grad_(False)
            seconds.append(round(time.process_time() - t, 1))
        self.table.vector = vector = vector.detach()
        return vector, seconds

    @torch.inference_mode()
    def draw(self, texts, seed):
        """As `transformer.generate`; texts may contain [V]."""
        generator, ids, done = torch.Generator().manual_seed(seed), [words(t) for t in texts], [None] * len(texts)
        keep = {k: self.setting[k] for k in ('guidance', 'top_k', 'temperature') if k in self.setting}
        for n in sorted({len(i) for i in ids}):
            at = [j for j in range(len(ids)) if len(ids[j]) == n]
            pictures = vqgan.to_pictures(self.vq.decode(tf.sample(self.m, [ids[j] for j in at], generator=generator, **keep)))
            for j, p in zip(at, pictures): done[j] = p
        return done


def run(bench, cls, refs, recipes, seeds, draws, save):
    """One subject by every recipe. `save(picture, entry)` keeps a picture."""
    held, known = bench.pictures(cls, 'held-out'), bench.pictures(cls, 'known')
    prompts = PROMPTS if cls in world.FACES else THING_PROMPTS

    def show(group, noun):
        texts = [t.format(noun) for t, *_ in prompts for _ in range(seeds)] + [f'a photo of a {cls}'] * draws
        pictures = bench.draw(texts, 0)
        for i, (t, scene, colour, accessory) in enumerate(prompts):
            for k in range(seeds):
                entry = {'class': cls, 'group': group, 'prompt': t, 'seed': k, 'colour': colour or 'none', 'accessory': accessory or 'none'}
                save(pictures[i * seeds + k], {**entry, **({'scene': scene} if scene else {})})
        for k, p in enumerate(pictures[len(prompts) * seeds:]):
            save(p, {'class': cls, 'group': f'{group}: plain class word', 'prompt': 'a photo of a {}', 'seed': k, 'colour': 'none', 'accessory': 'none'})
        return {'class': cls, 'group': group, 'held_out': bench.score(noun, held), 'held_out_class_word': bench.score(cls, held), 'known_class_word': bench.score(cls, known)}

    bench.table.vector = None
    results = [show('untouched', cls)]
    for name, o in recipes.items():
        vector, seconds = bench.teach(cls, refs, o)
        results.append({**show(name, f'[V] {cls}'), 'seconds': seconds})
        bench.put_back()
        if o['layer_steps']: results.append(show(f'{name}, layers put back', f'[V] {cls}'))
    for x in results: print({k: round(v, 3) if isinstance(v, float) else v for k, v in x.items()}, flush=True)
    return results


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', required=True); p.add_argument('--raw', required=True, help='art packs'); p.add_argument('--subjects', required=True, help='folder of subjects.py')
    p.add_argument('--recipes', required=True, help='{name: {options that differ from the recommended ones}}'); p.add_argument('--out', required=True)
    p.add_argument('--only', help='classes, with commas'); p.add_argument('--seeds', type=int, default=3); p.add_argument('--draws', type=int, default=6, help='pictures of the plain class word')
    p.add_argument('--threads', type=int, default=1); p.add_argument('--until', type=float, default=float('inf'), help='Unix time after which no subject is begun')
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    os.makedirs(a.out, exist_ok=True)
    read = lambda f, default: json.load(open(f)) if os.path.exists(f) else default
    manifest, results = (read(f'{a.out}/{f}', []) for f in ('manifest.json', 'results.json'))
    bench, common = Bench(a.model, a.raw), {'train_embedding_in_layer_stage': False, **json.load(open(f'{a.model}/sitter.json'))['train']}
    recipes = {k: {**common, **v} for k, v in json.load(open(a.recipes)).items()}
    for cls in a.only.split(',') if a.only else sorted(d for d in os.listdir(a.subjects) if os.path.isdir(f'{a.subjects}/{d}')):
        if any(x['class'] == cls for x in results) or time.time() > a.until: continue
        refs = [np.asarray(Image.open(f'{a.subjects}/{cls}/{i}.png').convert('RGB')) for i in range(1, 5)]

        def save(picture, entry):
            entry['file'] = f'{len(manifest):05}.png'
            Image.fromarray(picture).save(f'{a.out}/{entry["file"]}'); manifest.append(entry)

        results += run(bench, cls, refs, recipes, a.seeds, a.draws, save)
        for name, data in (('manifest', manifest), ('results', results)):
            with open(f'{a.out}/{name}.json.part', 'w') as f: json.dump(data, f)
            os.replace(f'{a.out}/{name}.json.part', f'{a.out}/{name}.json')
