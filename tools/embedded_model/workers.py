"""Several processes that train one model together, each with one thread and its own pictures.

Two threads of one process meet after every operation, and where other programs use the same cores each waits for the other most
of the time. Two processes meet once a step."""
import ctypes, signal, sys, tempfile
import torch, torch.distributed as dist


def start(rank, count, meeting):
    """Joins the group; `meeting` is a file that does not exist yet."""
    # Whoever ends the parent must not leave workers behind that go on saving.
    if count > 1 and sys.platform == 'linux': ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if count > 1: dist.init_process_group('gloo', init_method='file://' + meeting, rank=rank, world_size=count)


def meeting_point(): return tempfile.mktemp(prefix='workers')


def together(): return dist.is_available() and dist.is_initialized()


def count(): return dist.get_world_size() if together() else 1


def total(*tensors):
    """Sums tensors over the workers, in place, in one exchange."""
    if not together(): return
    flat = torch.cat([t.detach().reshape(-1).float() for t in tensors])
    dist.all_reduce(flat)
    at = 0
    for t in tensors:
        t.copy_(flat[at:at + t.numel()].view(t.shape)); at += t.numel()


def average_gradients(parameters):
    if not together(): return
    grads = [p.grad for p in parameters if p.grad is not None]
    total(*grads)
    for g in grads: g.div_(count())


def gathered(x):
    """What all workers have, one after another."""
    if not together(): return x
    out = [torch.empty_like(x) for _ in range(count())]
    dist.all_gather(out, x.contiguous())
    return torch.cat(out)


def agreed(value):
    """Worker 0's number."""
    if not together(): return value
    t = torch.tensor([float(value)]); dist.broadcast(t, 0)
    return t.item()
