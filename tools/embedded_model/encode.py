"""Shards of pictures (draw.py) to shards of codes: FOLDER/00000.codes, one [h, w] grid of uint16 each as a numpy file. Pictures
may be deleted once they are encoded: a million of them as codes take half a gigabyte."""
import argparse, glob, os
import numpy as np, torch
import vqgan


@torch.inference_mode()
def encode(m, pictures, device, size=32):
    out = []
    for i in range(0, len(pictures), size):
        x = vqgan.to_tensor(np.array(pictures[i:i + size])).to(device).contiguous(memory_format=torch.channels_last)
        out.append(m.encode(x).cpu().numpy().astype(np.uint16))
    return np.concatenate(out)


def pending(folder): return [f[:-4] for f in sorted(glob.glob(f'{folder}/*.npy')) if not os.path.exists(f[:-4] + '.codes')]


def encode_pending(folder, m, device='cpu', keep=True):
    """Encodes what is not encoded yet."""
    for name in pending(folder):
        codes = encode(m, np.load(name + '.npy', mmap_mode='r'), device)
        with open(name + '.part', 'wb') as f: np.save(f, codes)
        os.replace(name + '.part', name + '.codes')
        if not keep: os.remove(name + '.npy')
        yield name, codes


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True, help='folder of draw.py'); p.add_argument('--vqgan', required=True, help='file of vqgan.save')
    p.add_argument('--delete', action='store_true', help='delete pictures once they are encoded'); p.add_argument('--device', default='cpu')
    p.add_argument('--threads', type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    m = vqgan.load(a.vqgan).to(a.device, memory_format=torch.channels_last)
    for name, codes in encode_pending(a.data, m, a.device, not a.delete): print(name, len(np.unique(codes)), 'codes used', flush=True)
