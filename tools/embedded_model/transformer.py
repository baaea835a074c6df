"""The transformer and the sequence layout of Lumina-mGPT, small (Chameleon block: RMSNorm, qk-norm, RoPE, SwiGLU)."""
import torch
import torch.nn as nn
import torch.nn.functional as F
import captions, looks, state

CODES, UNIT = 8192, 16       # UNIT: pixels of a size token's step, twice the tokenizer's downsampling
EPS = 1e-5


def code_name(i): return 'IMGIMG' + ''.join('ABCDEFGHIJ'[int(c)] for c in str(i)) + 'Z'


def vocabulary():
    names = ['<s>', '<pad>', '</s>', '<unk>'] + [code_name(i) for i in range(CODES)]
    names += ['<eoss>', '<racm3:break>', '<reserved08706>', '<reserved08799>']
    names += [f'<reserved{8800 + n:05}>' for n in range(1, 13)]
    names += [captions.look_word(i) for i in range(looks.LOOKS)] + captions.all_words()
    # Of pictures twice as wide as tall, which training does not show; they came when the rows were numbered.
    names += [f'<reserved{8800 + n:05}>' for n in range(13, 17)]
    return {n: i for i, n in enumerate(names)}


VOCAB = vocabulary()
ROWS = (len(VOCAB) + 15) // 16 * 16
BOS, CODE0 = VOCAB['<s>'], VOCAB[code_name(0)]
EOI, BOI, SEP, NL = (VOCAB[n] for n in ('<eoss>', '<racm3:break>', '<reserved08706>', '<reserved08799>'))
PREFIX = [VOCAB[w] for w in captions.PREFIX.split()]


def size_token(pixels): return VOCAB[f'<reserved{8800 + pixels // UNIT:05}>']


def words(text): return PREFIX + [VOCAB[w] for w in text.lower().split()]


def block(codes):
    """Codes [h, w] to the tokens of a picture, start to end."""
    h, w = codes.shape
    t = [BOI, size_token(h * UNIT // 2), size_token(w * UNIT // 2)]
    for row in codes.tolist(): t += [c + CODE0 for c in row] + [NL]
    return t + [EOI]


def sequence(prompt, image):
    """Tokens and labels; without a prompt the image alone, as the unconditional branch of guidance sees it."""
    if prompt is None: return image, image
    head = [BOS] + prompt + [SEP]
    return head + image + [SEP], [-100] * len(head) + image + [SEP]


def batch(pairs, length=0):
    """Padded on the right to the longest, or to `length`."""
    n = max(length, *(len(s) for s, _ in pairs))
    return (torch.tensor([s + [0] * (n - len(s)) for s, _ in pairs]), torch.tensor([l + [-100] * (n - len(l)) for _, l in pairs]))


def longest_sequence():
    """Of anything that the world's captions can say, one more than a multiple of 8, since the last token is only a label."""
    grid = captions.SIDE // 8
    return (2 + len(PREFIX) + captions.LONGEST + 3 + grid * (grid + 1) + 1 + 1 + 7) // 8 * 8 + 1


def rms(x, w): return F.rms_norm(x, (x.shape[-1],), w, EPS)


def attention(q, k, v, mask):
    """Explicit: at this length its backward pass is far faster on a CPU than the fused kernel's. The first half of the queries
    sees only the first half of the keys, which saves a quarter of the products and, since less leaves the cache, half of the time."""
    n, scale = q.shape[1], q.shape[2] ** -.5
    if mask is None: return torch.bmm((torch.bmm(q, k.transpose(1, 2)) * scale).softmax(-1), v)
    out = []
    for a, e in ((0, n // 2), (n // 2, n)):
        w = torch.baddbmm(mask[:, a:e, :e], q[:, a:e], k[:, :e].transpose(1, 2), alpha=scale).softmax(-1)
        out.append(torch.bmm(w, v[:, :e]))
    return torch.cat(out, 1)


def slopes(logits, labels, share):
    """`share` times the gradient of cross-entropy [n, rows] as its product wants it, and the sum of the cross-entropies."""
    l = logits.float(); most = l.amax(1, keepdim=True)
    e = (l - most).exp(); whole = e.sum(1, keepdim=True)
    at = torch.arange(l.shape[1])[None] == labels[:, None]
    nats = (most + whole.log()).sum() - l.gather(1, labels[:, None]).sum()
    return ((e / whole - at.float()) * share).to(logits.dtype), nats


class HeadLoss(torch.autograd.Function):
    """Cross-entropy of hidden states [n, d] under a head [rows, d], a block of states at a time: logits of all of them would be
    150 MB, written and read several times. Gradients are made on the way, as they need the same probabilities."""
    slopes = staticmethod(slopes)      # or compiled

    @staticmethod
    def forward(ctx, h, head, labels, size=256):
        n, loss = len(labels), torch.zeros(())
        dh, dhead = torch.empty_like(h), torch.zeros(head.shape)
        for a in range(0, n, size):
            part = h[a:a + size]
            g, nats = HeadLoss.slopes(part @ head.t(), labels[a:a + size], 1 / n)
            loss += nats; dh[a:a + size] = g @ head; dhead += (g.t() @ part).float()
        ctx.save_for_backward(dh, dhead.to(head.dtype))
        return loss / n

    @staticmethod
    def backward(ctx, g):
        dh, dhead = ctx.saved_tensors
        return dh * g, dhead * g, None, None


class Layer(nn.Module):
    def __init__(self, d, heads, ff):
        super().__init__()
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.heads, hd = heads, d // heads
        self.input_layernorm, self.post_attention_layernorm = (nn.Parameter(torch.ones(d)) for _ in range(2))
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (lin(d, d) for _ in range(4))
        self.q_norm_w, self.k_norm_w = (nn.Parameter(torch.ones(1, hd)) for _ in range(2))
        self.q_norm_b, self.k_norm_b = (nn.Parameter(torch.zeros(1, hd)) for _ in range(2))
        self.gate_proj, self.up_proj, self.down_proj = lin(d, ff), lin(d, ff), lin(ff, d)

    def forward(self, x, cos, sin, mask, cache=None):
        B, T, D = x.shape; h = self.heads; hd = D // h
        y = rms(x, self.input_layernorm)
        q, k, v = (p(y).view(B, T, h, hd) for p in (self.q_proj, self.k_proj, self.v_proj))
        q = F.layer_norm(q, (hd,), None, None, EPS) * self.q_norm_w + self.q_norm_b
        k = F.layer_norm(k, (hd,), None, None, EPS) * self.k_norm_w + self.k_norm_b
        rot = lambda t: t * cos + torch.cat([-t[..., hd // 2:], t[..., :hd // 2]], -1) * sin
        q, k, v = rot(q).transpose(1, 2), rot(k).transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            if 'k' in cache: k, v = torch.cat([cache['k'], k], 2), torch.cat([cache['v'], v], 2)
            cache['k'], cache['v'] = k, v
        if x.is_cuda and cache is None:      # padding is on the right, so causal is all that is needed
            y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
            x = x + self.o_proj(y.transpose(1, 2).reshape(B, T, D))
            return x + self.feed_forward(x)
        q, k, v = (t.reshape(B * h, -1, hd).to(v.dtype) for t in (q, k, v))
        x = x + self.o_proj(attention(q, k, v, mask).view(B, h, T, hd).transpose(1, 2).reshape(B, T, D))
        return x + self.feed_forward(x)

    def feed_forward(self, x):
        y = rms(x, self.post_attention_layernorm)
        return self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class Transformer(nn.Module):
    def __init__(self, d=256, layers=6, heads=4, ff=512):
        super().__init__()
        self.config = dict(d=d, layers=layers, heads=heads, ff=ff)
        self.embed_tokens, self.lm_head = nn.Embedding(ROWS, d), nn.Linear(d, ROWS, bias=False)
        self.layers, self.norm = nn.ModuleList(Layer(d, heads, ff) for _ in range(layers)), nn.Parameter(torch.ones(d))
        for n, p in self.named_parameters():
            if p.dim() == 2 and p.shape[0] > 1:
                out = 'o_proj' in n or 'down_proj' in n
                nn.init.normal_(p, std=.02 if 'embed' in n or 'head' in n else p.shape[1] ** -.5 * ((2 * layers) ** -.5 if out else 1))
        hd = d // heads
        a = torch.outer(torch.arange(512).float(), 10000. ** (-torch.arange(0, hd, 2).float() / hd))
        self.register_buffer('cos', torch.cat([a, a], 1).cos(), persistent=False)
        self.register_buffer('sin', torch.cat([a, a], 1).sin(), persistent=False)
        self.register_buffer('mask', torch.full((1, 512, 512), -1e4).triu(1), persistent=False)

    @torch.no_grad()
    def lay_codes(self, book, own=.5, seed=0):
        """Rows of codes start as images of their codebook vectors, so that what looks alike is alike from the first step: most
        codes are seen too seldom to find that out by themselves. `own` is the share that stays random."""
        r = torch.Generator().manual_seed(seed)
        b = (book - book.mean(0)) / book.std()
        for rows in (self.embed_tokens.weight, self.lm_head.weight):
            p = b @ torch.randn(b.shape[1], rows.shape[1], generator=r)
            part = rows[CODE0:CODE0 + len(b)]
            part.copy_(own ** .5 * part + (1 - own) ** .5 * .02 * (p / p.std()).to(rows.device))

    def hidden(self, ids, cache=None, start=0):
        x, T = self.embed_tokens(ids), ids.shape[1]
        cos, sin = (t[None, start:start + T, None].to(x.dtype) for t in (self.cos, self.sin))
        mask = self.mask[:, :T, :T].to(torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else x.dtype) if T > 1 and not x.is_cuda else None
        for i, l in enumerate(self.layers): x = l(x, cos, sin, mask, None if cache is None else cache[i])
        return rms(x, self.norm)

    def loss(self, ids, labels):
        h, y = self.hidden(ids[:, :-1]), labels[:, 1:]
        m = y != -100
        if h.is_cuda: return F.cross_entropy(self.lm_head(h[m]).float(), y[m])
        kind = torch.get_autocast_dtype('cpu') if torch.is_autocast_enabled('cpu') else h.dtype
        return HeadLoss.apply(h[m].to(kind), self.lm_head.weight.to(kind), y[m])


def load(path): return state.load(Transformer, path)


@torch.no_grad()
def sample(m, prompts, guidance=3.0, top_k=100, temperature=1.0, grid=captions.SIDE // 8, generator=None):
    """Prompts of EQUAL length (token lists) -> codes [n, grid, grid]."""
    head = [BOI, size_token(grid * UNIT // 2), size_token(grid * UNIT // 2)]
    caches = [[{} for _ in m.layers] for _ in range(2)]
    c = torch.tensor([[BOS] + p + [SEP] + head for p in prompts]); u = c[:, -3:]
    pos = [c.shape[1], 3]
    hc, hu = m.hidden(c, caches[0])[:, -1], m.hidden(u, caches[1])[:, -1]
    out = []
    for i in range(grid * grid):
        lc, lu = (m.lm_head(h)[:, CODE0:CODE0 + CODES].float() for h in (hc, hu))
        l = lu + guidance * (lc - lu)
        l = (l.masked_fill(l < l.topk(top_k)[0][:, -1:], -torch.inf) if top_k else l) / temperature
        t = torch.multinomial(l.softmax(-1), 1, generator=generator); out.append(t)
        feed = [t + CODE0] + ([torch.full_like(t, NL)] if i % grid == grid - 1 else [])
        if i + 1 < grid * grid:
            for f in feed:
                hc, hu = m.hidden(f, caches[0], pos[0])[:, -1], m.hidden(f, caches[1], pos[1])[:, -1]
                pos = [pos[0] + 1, pos[1] + 1]
    return torch.cat(out, 1).view(-1, grid, grid)


def generate(m, vq, texts, generator=None, **kw):
    """Texts of any length -> pictures, in order."""
    import vqgan
    ids, pictures = [words(t) for t in texts], [None] * len(texts)
    for n in sorted({len(i) for i in ids}):
        at = [j for j in range(len(ids)) if len(ids[j]) == n]
        for k in range(0, len(at), 32):
            part = at[k:k + 32]
            codes = sample(m, [ids[j] for j in part], generator=generator, **kw)
            with torch.no_grad(): y = vqgan.to_pictures(vq.decode(codes))
            for a, j in enumerate(part): pictures[j] = y[a]
    return pictures
