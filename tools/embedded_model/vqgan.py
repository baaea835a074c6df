"""The image tokenizer: the network of taming-transformers / Chameleon, small."""
import torch
import torch.nn as nn
import torch.nn.functional as F
import state, workers

CONFIG = dict(ch=16, ch_mult=[1, 2, 4, 6], num_res_blocks=1, z_channels=64, embed_dim=16, n_embed=8192, num_groups=8, attention=True)


class Norm(nn.GroupNorm):
    """Always in f32: the backward pass of torch's CPU kernel for bf16 input takes longer than the convolutions."""
    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False): return super().forward(x.float())


def norm(c, c_): return Norm(c_['num_groups'], c, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, i, o, c):
        super().__init__()
        self.norm1, self.conv1 = norm(i, c), nn.Conv2d(i, o, 3, 1, 1)
        self.norm2, self.conv2 = norm(o, c), nn.Conv2d(o, o, 3, 1, 1)
        self.nin_shortcut = nn.Conv2d(i, o, 1) if i != o else None

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    def __init__(self, n, c):
        super().__init__()
        self.norm = norm(n, c)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(n, n, 1) for _ in range(4))

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (f(y).reshape(b, c, h * w).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.proj_out(y.transpose(1, 2).reshape(b, c, h, w))


def middle(n, c):
    attention = dict(attn_1=AttnBlock(n, c)) if c['attention'] else {}
    return nn.ModuleDict(dict(block_1=ResBlock(n, n, c), **attention, block_2=ResBlock(n, n, c)))


def through(mid, h):
    h = mid['block_1'](h)
    return mid['block_2'](mid['attn_1'](h) if 'attn_1' in mid else h)


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv_in, n = nn.Conv2d(3, c['ch'], 3, 1, 1), c['ch']
        self.down = nn.ModuleList()
        for level, m in enumerate(c['ch_mult']):
            block = nn.ModuleList()
            for _ in range(c['num_res_blocks']):
                block.append(ResBlock(n, c['ch'] * m, c)); n = c['ch'] * m
            d = nn.ModuleDict(dict(block=block))
            if level + 1 < len(c['ch_mult']): d['downsample'] = nn.ModuleDict(dict(conv=nn.Conv2d(n, n, 3, 2, 0)))
            self.down.append(d)
        self.mid, self.norm_out, self.conv_out = middle(n, c), norm(n, c), nn.Conv2d(n, c['z_channels'], 3, 1, 1)

    def forward(self, x):
        h = self.conv_in(x)
        for d in self.down:
            for b in d['block']: h = b(h)
            if 'downsample' in d: h = d['downsample']['conv'](F.pad(h, (0, 1, 0, 1)))
        return self.conv_out(F.silu(self.norm_out(through(self.mid, h))))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        n = c['ch'] * c['ch_mult'][-1]
        self.conv_in, self.mid, up = nn.Conv2d(c['z_channels'], n, 3, 1, 1), middle(n, c), []
        for level in reversed(range(len(c['ch_mult']))):
            block = nn.ModuleList()
            for _ in range(c['num_res_blocks'] + 1):
                block.append(ResBlock(n, c['ch'] * c['ch_mult'][level], c)); n = c['ch'] * c['ch_mult'][level]
            u = nn.ModuleDict(dict(block=block))
            if level: u['upsample'] = nn.ModuleDict(dict(conv=nn.Conv2d(n, n, 3, 1, 1)))
            up.insert(0, u)
        self.up, self.norm_out, self.conv_out = nn.ModuleList(up), norm(n, c), nn.Conv2d(n, 3, 3, 1, 1)

    def forward(self, z):
        h = through(self.mid, self.conv_in(z))
        for u in reversed(self.up):
            for b in u['block']: h = b(h)
            if 'upsample' in u: h = u['upsample']['conv'](F.interpolate(h, scale_factor=2.0, mode='nearest'))
        return self.conv_out(F.silu(self.norm_out(h)))


class VQGAN(nn.Module):
    """The codebook is kept by exponential moving averages of what is assigned to each entry."""
    def __init__(self, **config):
        super().__init__()
        c = self.config = {**CONFIG, **config}
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.quant_conv = nn.Conv2d(c['z_channels'], c['embed_dim'], 1)
        self.post_quant_conv = nn.Conv2d(c['embed_dim'], c['z_channels'], 1)
        # Codebook and averages stay f32; convolutions may be rounded to bf16 in training.
        self.register_buffer('codebook', torch.zeros(c['n_embed'], c['embed_dim']), persistent=False)
        self.register_buffer('count', torch.ones(c['n_embed']), persistent=False)
        self.register_buffer('total', torch.zeros(c['n_embed'], c['embed_dim']), persistent=False)
        self.anew = torch.zeros(0, dtype=torch.long)      # entries that the last step gave a new place

    def latent(self, x): return self.quant_conv(self.encoder(x))

    def nearest(self, f):
        # In f32: rounded to bf16 the products err by more than neighbours in the codebook differ.
        with torch.autocast(f.device.type, enabled=False):
            size, turned = self.codebook.pow(2).sum(1)[None], self.codebook.t().contiguous()
            return torch.cat([torch.addmm(size, p, turned, alpha=-2).argmin(1) for p in f.float().split(128)])

    def quantize(self, z):
        """Latents [b, c, h, w] -> codes [b, h, w] and the codebook's vectors in their place."""
        b, c, h, w = z.shape
        i = self.nearest(z.float().permute(0, 2, 3, 1).reshape(-1, c))
        return i.view(b, h, w), self.codebook[i].view(b, h, w, c).permute(0, 3, 1, 2)

    def encode(self, x): return self.quantize(self.latent(x))[0]

    def decode(self, codes):
        q = self.codebook[codes.flatten()].view(*codes.shape, -1).permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(q.to(self.post_quant_conv.weight.dtype)))

    @torch.no_grad()
    def set_codebook(self, book):
        self.codebook.copy_(book); self.total.copy_(book * .3); self.count.fill_(.3)

    @torch.no_grad()
    def move_codebook(self, z, codes, decay=.99):
        f, i = z.detach().float().permute(0, 2, 3, 1).reshape(-1, z.shape[1]), codes.flatten()
        n = torch.zeros_like(self.count).index_add_(0, i, torch.ones(len(i), device=i.device))
        s = torch.zeros_like(self.total).index_add_(0, i, f)
        workers.total(n, s)
        self.count.mul_(decay).add_(n, alpha=1 - decay)
        self.total.mul_(decay).add_(s, alpha=1 - decay)
        dead = (self.count < .02).nonzero()[:, 0]
        if len(dead):     # an entry that nothing uses starts anew where the error is large, not on yet another flat patch
            f, e = workers.gathered(f), workers.gathered((f - self.codebook[i]).pow(2).sum(1))
            self.total[dead] = f[torch.multinomial(e + 1e-9, len(dead), replacement=True)] * .1; self.count[dead] = .1
        self.anew = dead
        self.codebook.copy_(self.total / self.count[:, None].clamp_min(1e-5))


def save(m, path):
    sd = {k: v.float() for k, v in m.state_dict().items() if not k.startswith('colour')}
    state.write(dict(config=m.config, state=sd, codebook=m.codebook), path)


def load(path):
    d = torch.load(path, weights_only=True); m = VQGAN(**d['config'])
    m.load_state_dict({k: v for k, v in d['state'].items()}); m.set_codebook(d['codebook'])
    return m.eval()


def to_tensor(pictures):
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_pictures(y):
    return ((y.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
