"""What is kept of networks in files: written beside and renamed, so that a file is whole or not there."""
import os
import torch


def write(what, path):
    torch.save(what, path + '.part'); os.replace(path + '.part', path)


def save(m, path, **more):
    """A network with its configuration in f32, and what else is to lie beside it."""
    write(dict(config=m.config, state={k: v.float() for k, v in m.state_dict().items()}, **more), path)


def load(kind, path):
    """A network of that class, ready to use."""
    d = torch.load(path, weights_only=True); m = kind(**d['config']); m.load_state_dict(d['state'])
    return m.eval()


@torch.no_grad()
def follow(mean, m, step):
    """Lets a moving average of weights follow a network in training, from step to step more slowly."""
    now, k = m.state_dict(), min(.998, (1 + step) / (20 + step))
    for n, v in mean.items(): v.lerp_(now[n].float(), 1 - k)
    return k
