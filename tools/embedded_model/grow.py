"""Widens a trained tokenizer: a network of more channels that starts out computing nearly the same (Net2Net).

Each new channel copies one of the same normalisation group, and what reads a copied channel reads each copy with its share."""
import torch


def sources(old, new, groups):
    """For each new channel the old one that it copies."""
    a, b = old // groups, new // groups
    return torch.tensor([g * a + j % a for g in range(groups) for j in range(b)])


def grown(state, model, noise=.02, seed=0):
    """The state of a smaller network, in the shapes of `model`."""
    r, out = torch.Generator().manual_seed(seed), {}
    for name, want in model.state_dict().items():
        if name not in state: out[name] = want; continue
        w = state[name].float()
        if w.shape[0] != want.shape[0]: w = w[sources(w.shape[0], want.shape[0], model.config['num_groups'])]
        if w.dim() > 1 and w.shape[1] != want.shape[1]:
            i = sources(w.shape[1], want.shape[1], model.config['num_groups'])
            w = w[:, i] / torch.bincount(i)[i].view(1, -1, *[1] * (w.dim() - 2))
        if w.dim() > 1 and w.shape != state[name].shape:      # copies must be able to part
            w = w + noise * w.std() * torch.randn(w.shape, generator=r)
        out[name] = w
    return out
