"""Pictures (NAME.npy) to codes: one [h, w] grid of uint16 each."""
import argparse
import numpy as np, torch
import vqgan

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', required=True); p.add_argument('--vqgan', required=True); p.add_argument('--out', required=True)
    a = p.parse_args()
    m, X, out = vqgan.load(a.vqgan).to(memory_format=torch.channels_last), np.load(a.data, mmap_mode='r'), []
    with torch.inference_mode():
        for i in range(0, len(X), 64):
            x = vqgan.to_tensor(np.asarray(X[i:i + 64])).contiguous(memory_format=torch.channels_last)
            out.append(m.encode(x).numpy().astype(np.uint16))
    out = np.concatenate(out); np.save(a.out, out)
    print('codes used', len(np.unique(out)))
