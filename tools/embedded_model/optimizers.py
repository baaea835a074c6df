"""Muon for matrices and kernels, AdamW for the rest."""
import torch

PRODUCTS = torch.bfloat16 if torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() else torch.float32


class StackedMuon(torch.optim.Muon):
    """torch.optim.Muon with the same state, but matrices of one shape orthogonalised together (one batched product beats dozens
    of small ones), in bf16 only where the processor multiplies it: elsewhere f32 is twice as fast."""
    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            a, b, c = g['ns_coefficients']
            shapes = {}
            for p in g['params']:
                if p.grad is None: continue
                s = self.state[p]
                if 'momentum_buffer' not in s: s['momentum_buffer'] = torch.zeros_like(p.grad)
                m = s['momentum_buffer']
                m.lerp_(p.grad, 1 - g['momentum'])
                u = p.grad.lerp(m, g['momentum']) if g['nesterov'] else m
                shapes.setdefault(p.shape, []).append((p, u))
            for (rows, cols), pairs in shapes.items():
                x = torch.stack([u.mT if rows > cols else u for _, u in pairs])
                x = (x / x.flatten(1).norm(dim=1).clamp(min=g['eps'])[:, None, None]).to(PRODUCTS)
                for _ in range(g['ns_steps']):
                    gram = torch.bmm(x, x.mT)
                    x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
                k = .2 * max(rows, cols) ** .5
                for (p, _), o in zip(pairs, x):
                    p.mul_(1 - g['lr'] * g['weight_decay']).add_(o.mT if rows > cols else o, alpha=-g['lr'] * k)


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
        self.muon = StackedMuon([m for m, k in zip(self.master, matrix) if k], momentum=.95, weight_decay=.01,
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
