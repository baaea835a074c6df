"""What the image tokenizer loses: PSNR and mean error (of 255 levels) of its reconstructions of held-out drawings, by style, and
of other drawings of the world; and a sheet of originals above their reconstructions."""
import argparse, json, os, random
import numpy as np, torch
from PIL import Image
import checkpoint, classes, folder, vae, vqgan, world
from scenes import SCENES


def held_out_pictures(w, each=2, seed=0):
    """Every held-out drawing as it is, on scenes: (style, class, picture)."""
    for style, cls in classes.pairs():
        r = random.Random(f'{seed} {style} {cls}')
        for _ in range(each): yield style, cls, w.compose(r, style, cls, r.choice(list(SCENES)))


def reconstruct(m, pictures, size=16):
    with torch.inference_mode():
        return np.concatenate([vqgan.to_pictures(m.decode(m.encode(vqgan.to_tensor(pictures[i:i + size])))) for i in range(0, len(pictures), size)])


def losses(x, y):
    """PSNR and mean error of each picture."""
    d = x.astype(np.float64) - y
    return 10 * np.log10(255 ** 2 / np.maximum((d ** 2).mean((1, 2, 3)), 1e-9)), np.abs(d).mean((1, 2, 3))


def sheet(x, y, columns, scale):
    n, rows = x.shape[1], []
    for k in range(0, len(x), columns):
        for part in (x[k:k + columns], y[k:k + columns]):
            row = np.concatenate(list(part), 1); rows.append(np.pad(row, ((0, 0), (0, n * columns - row.shape[1]), (0, 0))))
    im = Image.fromarray(np.concatenate(rows))
    return im.resize((im.width * scale, im.height * scale), Image.NEAREST)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    which = p.add_mutually_exclusive_group(required=True)
    which.add_argument('--vqgan', help='file of vqgan.save or checkpoint.py, or a model folder'); which.add_argument('--vae', help='OUT.mean of train_vae.py, or what export.py writes')
    p.add_argument('--raw', required=True)
    p.add_argument('--out', help='PNG of the sheet'); p.add_argument('--threads', type=int, default=1); p.add_argument('--scale', type=int, default=1)
    p.add_argument('--faces', action='store_true', help='the sheet shows 16 held-out faces only'); p.add_argument('--half', action='store_true', help='weights rounded to f16 first')
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    m = vae.load(a.vae) if a.vae else folder.open_tokenizer(a.vqgan) if os.path.isdir(a.vqgan) else checkpoint.load(a.vqgan) if a.vqgan.endswith('.safetensors') else vqgan.load(a.vqgan)
    if a.half:
        m.load_state_dict({k: v.half().float() for k, v in m.state_dict().items()})
        if a.vqgan: m.set_codebook(m.codebook.half().float())
    w = world.World(a.raw, seed=4242, pool=4)
    held = list(held_out_pictures(w))
    x = np.stack([h[2] for h in held]); y = reconstruct(m, x); psnr, error = losses(x, y)
    row = lambda at, ps, er: dict(pictures=int(at.sum()), psnr=round(float(ps[at].mean()), 2), error=round(float(er[at].mean()), 2))
    styles = np.array([h[0] for h in held])
    print('held out', json.dumps(row(styles != '', psnr, error)))
    for s in classes.HELD_OUT: print('  ', s, json.dumps(row(styles == s, psnr, error)))
    r = random.Random(99); other = np.stack([w.sample(r)[0] for _ in range(48)])
    ps, er = losses(other, reconstruct(m, other)); print('other pictures of the world', json.dumps(row(ps > 0, ps, er)))
    if a.out:
        faces = [i for i, h in enumerate(held) if h[1] in classes.FACES]
        show = faces[::max(1, len(faces) // 16)][:16] if a.faces else range(0, len(held), 2)
        sheet(x[list(show)], y[list(show)], 8, a.scale).save(a.out, optimize=True)
