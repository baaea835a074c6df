"""Which style's drawing of a class, of all there are, does a picture show? Masked squared error against every sprite, over sizes, mirror
images and places, at half resolution. Works for art that the classifier never saw. Low error means the same colours in the
same places; look at the pictures as well."""
import numpy as np, torch, torch.nn.functional as F
from PIL import Image
import art, classes

STYLES = tuple(art.PACKAGES)
SIZES = (56, 64, 72, 80, 88, 96, 104, 112)


class Matcher:
    def __init__(self, raw, cls, grey=False):
        self.grey, self.sprites = grey, []
        for style in STYLES:
            try: sprite = art.load(raw, style, classes.CLASSES[cls])
            except KeyError: continue      # the unseen style lacks some
            for side in SIZES:
                k = side / 2 / max(sprite.size)
                a = np.asarray(sprite.resize((max(2, round(sprite.size[0] * k)), max(2, round(sprite.size[1] * k))), Image.LANCZOS)).astype(np.float32) / 255
                for b in (a, a[:, ::-1]):
                    t, m = torch.from_numpy(b[..., :3].copy()).permute(2, 0, 1), torch.from_numpy((b[..., 3] > .5).astype(np.float32))
                    self.sprites.append((style, (t.mean(0, keepdim=True) if grey else t)[None], m[None, None]))

        self.styles = [s for s in STYLES if any(s == t for t, *_ in self.sprites)]

    @torch.inference_mode()
    def __call__(self, pictures):
        """-> for each picture {style: error}; `grey` compares light and dark only, for tinted pictures."""
        x = F.avg_pool2d(torch.from_numpy(np.asarray(pictures).astype(np.float32) / 255).permute(0, 3, 1, 2), 2)
        if self.grey: x = x.mean(1, keepdim=True)
        best = {s: torch.full((len(x),), 9.) for s in self.styles}
        for style, t, a in self.sprites:
            if self.grey:      # independent of brightness and contrast: 1 - correlation under the mask
                n = a.sum(); sx, sxx, sxt = F.conv2d(x, a), F.conv2d(x * x, a), F.conv2d(x, a * t)
                mt = (a * t).sum() / n; vt = (a * t * t).sum() / n - mt ** 2; vx = (sxx / n - (sx / n) ** 2).clamp_min(1e-4)
                e = 1 - (sxt / n - sx / n * mt) / (vt * vx).sqrt()
            else:
                m = a.expand_as(t)
                e = (F.conv2d(x * x, m) - 2 * F.conv2d(x, m * t) + (m * t * t).sum()) / m.sum()
            best[style] = torch.minimum(best[style], e.flatten(1).amin(1))
        return [{s: round(best[s][i].item(), 5) for s in self.styles} for i in range(len(x))]
