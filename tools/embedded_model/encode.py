"""Shards of pictures (draw.py) to shards of codes: FOLDER/00000.codes, uint16 as a numpy file, [h, w] of each picture, and
FOLDER/00000.scales, [cells of all scales], if there is a vae.py too. Pictures may be deleted once they are encoded: a million of
them as codes take half a gigabyte."""
import argparse, glob, os
import numpy as np, torch
import vae, vqgan

KINDS = {'codes': vqgan, 'scales': vae}


@torch.inference_mode()
def encode(m, pictures, device, size=32):
    out = []
    for i in range(0, len(pictures), size):
        x = vqgan.to_tensor(np.array(pictures[i:i + size])).to(device).contiguous(memory_format=torch.channels_last)
        out.append(m.encode(x).cpu().numpy().astype(np.uint16))
    return np.concatenate(out)


def encode_pending(folder, tokenizers, device='cpu', keep=True):
    """Encodes what is not encoded yet, with each of the tokenizers, {kind: tokenizer}."""
    for f in sorted(glob.glob(f'{folder}/*.npy')):
        for kind, m in tokenizers.items():
            name = f'{f[:-4]}.{kind}'
            if os.path.exists(name): continue
            codes = encode(m, np.load(f, mmap_mode='r'), device)
            with open(f[:-4] + '.part', 'wb') as part: np.save(part, codes)
            os.replace(f[:-4] + '.part', name)
            yield name, codes
        if not keep: os.remove(f)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True, help='folder of draw.py')
    p.add_argument('--vqgan', help='file of vqgan.save'); p.add_argument('--vae', help='OUT.mean of train_vae.py')
    p.add_argument('--delete', action='store_true', help='delete pictures once they are encoded'); p.add_argument('--device', default='cpu')
    p.add_argument('--threads', type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    paths = {'codes': a.vqgan, 'scales': a.vae}
    tokenizers = {k: KINDS[k].load(p).to(a.device, memory_format=torch.channels_last) for k, p in paths.items() if p}
    for name, codes in encode_pending(a.data, tokenizers, a.device, not a.delete): print(name, len(np.unique(codes)), 'codes used', flush=True)
