"""Infinity's transformer and its text encoder, small, for training (arXiv 2412.04431, section 3.3): weights under the published names.

What single pictures give is what tools/golden/infinity.py computes; here texts and pictures come in batches."""
import math
import torch, torch.nn as nn, torch.nn.functional as F
import captions, looks, state, vae

EPS, MOST = 1e-6, math.log(100)
TEXT = 128                        # channels of the text's features; the published loader wants no fewer
START = 1 + sum(n * n for n in vae.SCALES[1:-1])      # cells of all scales but the last
T5 = dict(d_model=TEXT, d_kv=32, d_ff=256, num_layers=2, num_heads=4, relative_attention_num_buckets=32, relative_attention_max_distance=128)


def vocabulary():
    words = [captions.look_word(i) for i in range(looks.LOOKS)] + captions.all_words()
    return {w: i for i, w in enumerate(['<pad>', '</s>', '<unk>', *words])}


VOCAB = vocabulary()
ROWS = (len(VOCAB) + 1 + 31) // 32 * 32      # one to spare, for a subject's word


def words(text): return [VOCAB.get(w, VOCAB['<unk>']) for w in text.lower().split()] + [VOCAB['</s>']]


class RmsNorm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x): return F.rms_norm(x.float(), (x.shape[-1],), self.weight, EPS)


def linear(i, o, bias=True, scale=1.):
    m = nn.Linear(i, o, bias=bias)
    nn.init.normal_(m.weight, std=scale * i ** -.5)
    if bias: nn.init.zeros_(m.bias)
    return m


class TextAttention(nn.Module):
    def __init__(self, c, first):
        super().__init__()
        d, inner, self.heads = c['d_model'], c['num_heads'] * c['d_kv'], c['num_heads']
        self.SelfAttention = nn.ModuleDict({n: linear(d, inner, False, c['d_kv'] ** -.5 if n == 'q' else 1.) for n in 'qkv'})
        self.SelfAttention['o'] = linear(inner, d, False, (2 * c['num_layers']) ** -.5)
        if first:
            self.SelfAttention['relative_attention_bias'] = nn.Embedding(c['relative_attention_num_buckets'], c['num_heads'])
            nn.init.normal_(self.SelfAttention['relative_attention_bias'].weight, std=.1)
        self.layer_norm = RmsNorm(d)

    def forward(self, x, bias):
        b, n, _ = x.shape; h = self.layer_norm(x)
        q, k, v = (self.SelfAttention[s](h).view(b, n, self.heads, -1).transpose(1, 2) for s in 'qkv')
        mixed = (q @ k.transpose(2, 3) + bias).softmax(-1) @ v
        return x + self.SelfAttention['o'](mixed.transpose(1, 2).flatten(2))


class TextFeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, h = c['d_model'], c['d_ff']
        self.DenseReluDense = nn.ModuleDict(dict(wi_0=linear(d, h, False), wi_1=linear(d, h, False), wo=linear(h, d, False, (2 * c['num_layers']) ** -.5)))
        self.layer_norm = RmsNorm(d)

    def forward(self, x):
        h, m = self.layer_norm(x), self.DenseReluDense
        return x + m['wo'](F.gelu(m['wi_0'](h), approximate='tanh') * m['wi_1'](h))


class TextBlock(nn.Module):
    def __init__(self, c, first):
        super().__init__()
        self.layer = nn.ModuleList([TextAttention(c, first), TextFeedForward(c)])


class TextEncoder(nn.Module):
    """The encoder of a T5 with gated GELU."""
    def __init__(self, c=T5):
        super().__init__()
        self.c, self.shared = c, nn.Embedding(ROWS, c['d_model'])
        self.encoder = nn.ModuleDict(dict(block=nn.ModuleList(TextBlock(c, i == 0) for i in range(c['num_layers'])), final_layer_norm=RmsNorm(c['d_model'])))
        nn.init.normal_(self.shared.weight)

    def bias(self, n, device):
        half = self.c['relative_attention_num_buckets'] // 2; exact = half // 2
        at = torch.arange(n, device=device); distance = at[None] - at[:, None]; far = distance.abs()
        log = exact + (torch.log(far.float().clamp(min=1) / exact) / math.log(self.c['relative_attention_max_distance'] / exact) * (half - exact)).long()
        bucket = torch.where(far < exact, far, log.clamp(max=half - 1)) + half * (distance > 0)
        return self.encoder['block'][0].layer[0].SelfAttention['relative_attention_bias'](bucket).permute(2, 0, 1)[None]

    def forward(self, ids, there):
        """Of ids [b, n], where `there` is true: [b, n, d_model]."""
        x = self.shared(ids)
        bias = self.bias(ids.shape[1], ids.device) + torch.where(there, 0., -1e4)[:, None, None]
        for b in self.encoder['block']: x = b.layer[1](b.layer[0](x, bias))
        return self.encoder['final_layer_norm'](x)


def turn(x, cos, sin):
    """x [b, T, heads, d], pairs of neighbouring channels."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


def angles(head_dim):
    quarter = head_dim // 4
    frequency, rows = 1. / (10000. ** (torch.arange(0, 2 * quarter, 2).float() / (2 * quarter))), []
    for n in vae.SCALES:
        at = torch.outer((torch.arange(n).float() * (64 / n)).round(), frequency)
        rows.append(torch.cat([at[:, None].expand(n, n, quarter), at[None].expand(n, n, quarter)], -1).reshape(n * n, -1))
    return torch.cat(rows)[:, None]


class SelfAttention(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads, self.mat_qkv = heads, linear(c, 3 * c, False)
        self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4)))
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(c)), nn.Parameter(torch.zeros(c))
        self.register_buffer('zero_k_bias', torch.zeros(c))
        self.proj = linear(c, c)

    def forward(self, x, cos, sin, mask):
        b, n, c = x.shape; h, d = self.heads, c // self.heads
        q, k, v = F.linear(x, self.mat_qkv.weight, torch.cat([self.q_bias, self.zero_k_bias, self.v_bias])).view(b, n, 3, h, d).unbind(2)
        strength = self.scale_mul_1H11.view(h, 1).clamp(max=MOST).exp()
        q = turn(F.normalize(q.float(), dim=-1, eps=1e-12) * strength, cos, sin); k = turn(F.normalize(k.float(), dim=-1, eps=1e-12), cos, sin)
        q, k, v = (t.transpose(1, 2).reshape(b * h, n, d).to(v.dtype) for t in (q, k, v))
        # The last scale sees all; the others do not see it.
        first = torch.baddbmm(mask.to(q.dtype), q[:, :START], k[:, :START].transpose(1, 2)).softmax(-1) @ v[:, :START]
        last = torch.bmm(q[:, START:], k.transpose(1, 2)).softmax(-1) @ v
        return self.proj(torch.cat([first, last], 1).view(b, h, n, d).transpose(1, 2).reshape(b, n, c))


class CrossAttention(nn.Module):
    """To the text; with queries of its own, the pool."""
    def __init__(self, c, text, heads, pool=False, scale=1.):
        super().__init__()
        self.heads = heads
        if pool: self.mat_q = nn.Parameter(torch.randn(1, heads, c // heads) * .5)
        else: self.mat_q = linear(c, c)
        self.mat_kv, self.v_bias, self.proj = linear(text, 2 * c, False), nn.Parameter(torch.zeros(c)), linear(c, c, True, scale)
        self.register_buffer('zero_k_bias', torch.zeros(c))

    def forward(self, x, text, there):
        b, n, _ = text.shape; h = self.heads
        q = self.mat_q.expand(b, -1, -1)[:, None] if x is None else self.mat_q(x).view(b, x.shape[1], h, -1)
        k, v = F.linear(text, self.mat_kv.weight, torch.cat([self.zero_k_bias, self.v_bias])).view(b, n, 2, h, -1).unbind(2)
        q, k, v = (t.transpose(1, 2) for t in (q.to(k.dtype), k, v))
        mixed = (q @ k.transpose(2, 3) * q.shape[-1] ** -.5 + there).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, c, heads, hidden, depth):
        super().__init__()
        self.c = c
        self.ada_gss = nn.Parameter(torch.randn(1, 1, 6, c) * .02)
        with torch.no_grad(): self.ada_gss[0, 0, :2] += .3      # gates; else a block would begin as nearly nothing
        self.sa, self.ca_norm, self.ca = SelfAttention(c, heads), nn.LayerNorm(c, eps=EPS), CrossAttention(c, c, heads, scale=(2 * depth) ** -.5)
        self.ffn = nn.ModuleDict(dict(fc1=linear(c, hidden), fc2=linear(hidden, c)))

    def forward(self, x, text, there, g, cos, sin, mask):
        norm = lambda x: F.layer_norm(x, (self.c,), eps=EPS)
        gate1, gate2, scale1, scale2, shift1, shift2 = (self.ada_gss + g)[:, 0, :, None].unbind(1)
        x = x + gate1 * self.sa(norm(x) * (1 + scale1) + shift1, cos, sin, mask)
        x = x + self.ca(self.ca_norm(x), text, there)
        return x + gate2 * self.ffn['fc2'](F.gelu(self.ffn['fc1'](norm(x) * (1 + scale2) + shift2), approximate='tanh'))


class Chunk(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.module = nn.ModuleList(blocks)


class Infinity(nn.Module):
    def __init__(self, width=160, depth=6, heads=4, hidden=512, chunks=2):
        super().__init__()
        c = width
        self.config = dict(width=width, depth=depth, heads=heads, hidden=hidden, chunks=chunks)
        self.text_encoder = TextEncoder()
        self.cfg_uncond = nn.Parameter(torch.randn(captions.LONGEST + 1, TEXT) * TEXT ** -.5)
        self.text_norm = RmsNorm(TEXT)
        self.text_proj_for_sos = nn.ModuleDict(dict(ca=CrossAttention(c, TEXT, 1, pool=True)))
        self.text_proj_for_ca = nn.Sequential(linear(TEXT, c), nn.GELU(approximate='tanh'), linear(c, c))
        self.pos_start, self.lvl_embed = nn.Parameter(torch.randn(1, 1, c) * .5), nn.Embedding(15, c)
        nn.init.normal_(self.lvl_embed.weight, std=.5)
        self.word_embed = linear(vae.BITS, c, True, 1.)
        self.shared_ada_lin, self.head_nm = nn.Sequential(nn.SiLU(), linear(c, 6 * c, True, .1)), nn.ModuleDict(dict(ada_lin=nn.Sequential(nn.SiLU(), linear(c, 2 * c, True, .1))))
        self.head = linear(c, 2 * vae.BITS, True, .1)
        blocks = [Block(c, heads, hidden, depth) for _ in range(depth)]
        self.block_chunks = nn.ModuleList(Chunk(blocks[i:i + depth // chunks]) for i in range(0, depth, depth // chunks))
        a = angles(c // heads)
        self.register_buffer('cos', a.cos(), persistent=False); self.register_buffer('sin', a.sin(), persistent=False)
        level = torch.cat([torch.full((n * n,), s) for s, n in enumerate(vae.SCALES)])
        self.register_buffer('level', level, persistent=False)
        mask = torch.where(level[:START, None] >= level[None, :START], 0., -1e4)
        self.register_buffer('mask', mask[None], persistent=False)

    def features(self, ids, lengths, dropped):
        """Of padded ids [b, n]; those `dropped` [b] get what stands for no text, as long as theirs."""
        there = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
        f = self.text_encoder(ids, there).float()
        return torch.where(dropped[:, None, None], self.cfg_uncond[None, :ids.shape[1]], f), there

    def forward(self, features, there, inputs):
        """Logits [b, CELLS, 2 BITS] for inputs [b, CELLS - 1, BITS]."""
        b, t, there = len(inputs), self.text_norm(features), torch.where(there, 0., -1e4)[:, None, None]
        pooled = self.text_proj_for_sos['ca'](None, t, there)[:, 0].float()
        text, g = self.text_proj_for_ca(t), self.shared_ada_lin(pooled).view(b, 1, 6, -1)
        x = torch.cat([(pooled + self.pos_start[0])[:, None], self.word_embed(inputs).float()], 1) + self.lvl_embed(self.level)
        for chunk in self.block_chunks:
            for block in chunk.module: x = block(x, text, there, g, self.cos, self.sin, self.mask)
        scale, shift = self.head_nm['ada_lin'](pooled).view(b, 2, 1, -1).unbind(1)
        return self.head(F.layer_norm(x, (x.shape[-1],), eps=EPS) * (1 + scale) + shift)


def picture(codes, flips=None):
    """Labels [b, CELLS, BITS] and inputs [b, CELLS - 1, BITS] of numbers [b, CELLS]."""
    rows = lambda maps: torch.cat([m.flatten(2) for m in maps], 2).transpose(1, 2)
    bits = vae.bits_of(codes)
    bits, inputs, _ = vae.quantise(vae.total(bits), flips)
    return rows(bits), rows(inputs)


def flips_of(count, strength, generator):
    """Each scale of each picture with a probability of its own, up to `strength`."""
    p = lambda n: torch.rand(count, 1, 1, 1, generator=generator) * strength > torch.rand(count, vae.BITS, n, n, generator=generator)
    return [p(n).float() for n in vae.SCALES]


def loss(logits, labels, weights):
    """Cross-entropy of bits, their mean; `weights` [CELLS] have the sum 1."""
    nats = F.binary_cross_entropy_with_logits((logits[..., 1::2] - logits[..., 0::2]).float(), labels, reduction='none').mean(-1)
    return (nats * weights).sum(1).mean()


def load(path): return state.load(Infinity, path)
