"""Infinity's image tokenizer, small (arXiv 2412.04431, section 3.2): the network of vqgan.py without attention and without the 1x1
convolutions around the codes, and binary spherical quantisation over scales. A 16-bit number is a cell's code."""
import torch, torch.nn as nn, torch.nn.functional as F
import folder, state, vqgan

BITS = 16
SCALES = [1, 2, 4, 6, 8, 12, 16]      # sides of the square grids, coarse to fine
CELLS = sum(n * n for n in SCALES)
SPREAD = .6                           # standard deviation of latents, within reach of seven codes of a quarter each


class Vae(nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.config = {**vqgan.CONFIG, 'attention': False, 'z_channels': BITS, **config}
        self.encoder, self.decoder = vqgan.Encoder(self.config), vqgan.Decoder(self.config)

    @torch.no_grad()
    def start_from(self, vq, pictures):
        """Weights of a VQ-GAN, its 1x1 convolutions and a whitening of its latents taken into the convolutions beside them."""
        shared = {k: v for k, v in vq.state_dict().items() if '.attn_1.' not in k and k in self.state_dict()}
        ends = ('encoder.conv_out', 'decoder.conv_in')
        self.load_state_dict({k: v for k, v in shared.items() if not k.startswith(ends)}, strict=False)
        z = vq.latent(pictures).permute(0, 2, 3, 1).reshape(-1, BITS)
        mean = z.mean(0)
        values, turn = torch.linalg.eigh((z - mean).T @ (z - mean) / len(z))
        there = SPREAD * (turn / values.clamp_min(1e-6).sqrt()).T
        q, p = (m.weight[:, :, 0, 0] for m in (vq.quant_conv, vq.post_quant_conv))
        out, inner = vq.encoder.conv_out, vq.decoder.conv_in
        self.encoder.conv_out.weight.copy_(torch.einsum('az,zcyx->acyx', there @ q, out.weight))
        self.encoder.conv_out.bias.copy_(there @ (q @ out.bias + vq.quant_conv.bias - mean))
        back = torch.linalg.inv(there)
        self.decoder.conv_in.weight.copy_(torch.einsum('czyx,za->cayx', inner.weight, p @ back))
        self.decoder.conv_in.bias.copy_(inner.bias + torch.einsum('czyx,z->c', inner.weight, p @ mean + vq.post_quant_conv.bias))

    def encode(self, x):
        """Pictures to numbers [b, CELLS]."""
        return numbers(quantise(self.encoder(x).float())[0])

    def decode(self, codes): return self.decoder(total(bits_of(codes)))


def enlarge(z, side): return F.interpolate(z, size=(side, side), mode='bilinear', align_corners=False)


def code(bits): return (2 * bits - 1) * BITS ** -.5


def quantise(latent, flips=None):
    """Of latents [b, BITS, h, h]: the bits of each scale [b, BITS, n, n]; what the transformer is given for each scale but the
    first, [b, BITS, n, n]; and the sum, which is decoded. `flips` has the bits of each scale that are turned over in what later
    scales see, which then mend it (section 3.3)."""
    so_far, bits, inputs = torch.zeros_like(latent), [], []
    for s, n in enumerate(SCALES):
        rest = latent - so_far
        if s + 1 < len(SCALES): rest = F.adaptive_avg_pool2d(rest, n)
        b = (rest > 0).to(latent.dtype); bits.append(b)
        if flips is not None: b = (b - flips[s]).abs()
        so_far = so_far + enlarge(code(b), SCALES[-1])
        if s + 1 < len(SCALES): inputs.append(enlarge(so_far, SCALES[s + 1]))
    return bits, inputs, so_far


def total(bits): return sum(enlarge(code(b), SCALES[-1]) for b in bits)


def numbers(bits):
    """Bits of each scale to numbers [b, CELLS], the first channel the highest bit."""
    weight = 2 ** torch.arange(BITS - 1, -1, -1, device=bits[0].device).view(1, -1, 1)
    return torch.cat([(b.flatten(2).long() * weight).sum(1) for b in bits], 1)


def bits_of(codes):
    """Numbers [b, CELLS] to bits of each scale."""
    shift, at, out = torch.arange(BITS - 1, -1, -1, device=codes.device).view(1, -1, 1), 0, []
    for n in SCALES:
        part = codes[:, None, at:at + n * n].long(); at += n * n
        out.append((part >> shift & 1).float().view(len(codes), BITS, n, n))
    return out


def load(path):
    """Of a training, or as export.py writes it."""
    if not path.endswith('.safetensors'): return state.load(Vae, path)
    m = Vae(); m.load_state_dict(folder.tensors(path))
    return m.eval()
