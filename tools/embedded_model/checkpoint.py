"""The image tokenizer's training state, small enough to keep in a repository: averaged weights and codebook in f16 under the
published names, how often each code is used, and step and configuration in the file's metadata. The optimizer's state is left
out: a run that starts from it warms up again and loses some tens of steps."""
import argparse, json, os
import torch
from safetensors import safe_open
from safetensors.torch import save_file
import vqgan

BOOK, COUNT = 'quantize.embedding.weight', 'training.count'


def pack(state_path, out):
    d = torch.load(state_path, weights_only=True, map_location='cpu')
    t = {k: v.half().contiguous() for k, v in d['mean'].items()} | {BOOK: d['mean_book'].half(), COUNT: d['count'].half()}
    save_file(t, out + '.part', {'format': 'pt', 'step': str(d['step']), 'quantized': str(int(d['quantized'])), 'config': json.dumps(d['config'])})
    os.replace(out + '.part', out)
    return d['step']


def read(path):
    """Configuration, step, whether there is a codebook, weights (the training-only head among them), codebook, counts."""
    with safe_open(path, 'pt') as f:
        m = f.metadata(); t = {k: f.get_tensor(k).float() for k in f.keys()}
    return json.loads(m['config']), int(m['step']), m['quantized'] == '1', t, t.pop(BOOK), t.pop(COUNT)


def load(path):
    """The tokenizer of a checkpoint, ready to use."""
    config, _, _, t, book, _ = read(path)
    m = vqgan.VQGAN(**config)
    m.load_state_dict({k: v for k, v in t.items() if not k.startswith('colour')}); m.set_codebook(book)
    return m.eval()


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--state', required=True, help='file of train_vqgan.py'); p.add_argument('--out', required=True)
    a = p.parse_args()
    print('step', pack(a.state, a.out), 'bytes', os.path.getsize(a.out))
