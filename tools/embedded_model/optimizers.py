"""bf16 working weights with f32 masters; Muon for matrices and kernels, AdamW for the rest."""
import torch


class Trainer:
    """`plain(name)` says which matrices AdamW should take instead of Muon."""
    def __init__(self, model, plain, betas):
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.work = [p for _, p in named]
        # Convolution kernels are seen as (out, in * k * k) matrices.
        self.master = [p.detach().float().flatten(1).clone() if p.dim() == 4 else p.detach().float().clone() for p in self.work]
        for m in self.master: m.requires_grad_()
        matrix = [p.dim() in (2, 4) and p.shape[0] > 1 and not plain(n) for n, p in named]
        self.adam = torch.optim.AdamW([m for m, k in zip(self.master, matrix) if not k], betas=betas, weight_decay=0., foreach=True)
        self.muon = torch.optim.Muon([m for m, k in zip(self.master, matrix) if k], momentum=.95, weight_decay=.01,
                                     adjust_lr_fn='match_rms_adamw', ns_steps=4)

    def step(self, lr, clip=1.0):
        for w, m in zip(self.work, self.master):
            m.grad = None if w.grad is None else w.grad.float().reshape(m.shape); w.grad = None
        torch.nn.utils.clip_grad_norm_(self.master, clip, foreach=True)
        for o in (self.adam, self.muon):
            for g in o.param_groups: g['lr'] = lr
            o.step()
        with torch.no_grad(): torch._foreach_copy_(self.work, [m.view(w.shape) for w, m in zip(self.work, self.master)])

    def state(self): return dict(master=self.master, adam=self.adam.state_dict(), muon=self.muon.state_dict())

    def restore(self, s):
        with torch.no_grad():
            for m, v in zip(self.master, s['master']): m.copy_(v)
            torch._foreach_copy_(self.work, [m.view(w.shape) for w, m in zip(self.work, self.master)])
        self.adam.load_state_dict(s['adam']); self.muon.load_state_dict(s['muon'])
