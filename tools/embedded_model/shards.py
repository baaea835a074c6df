"""Reads what draw.py wrote: pictures at random, or all of them in order."""
import glob, json
import numpy as np


class Shards:
    """Shards that appear later are found by `refresh`, so that a training can start while others are still being drawn."""
    def __init__(self, folder):
        self.folder, self.parts, self.names = folder, [], set()
        self.refresh()

    def refresh(self):
        for f in sorted(glob.glob(f'{self.folder}/*.npy')):
            if f not in self.names: self.names.add(f); self.parts.append(np.load(f, mmap_mode='r'))

    def __len__(self): return sum(len(p) for p in self.parts)

    def take(self, rng, count, side=0):
        """Random pictures, or their busiest windows of `side` pixels; `rng` is numpy's."""
        out = []
        for _ in range(count):
            p = self.parts[rng.integers(len(self.parts))]
            x = p[rng.integers(len(p))]
            out.append(busiest(x, rng, side) if side and side < len(x) else x)
        return np.stack(out)


def busiest(x, rng, side, tries=3, grid=8):
    """Of some random windows on the patches' grid the one with most edges: figures rather than sky, for the same time."""
    best = None
    for _ in range(tries):
        i, j = grid * rng.integers(0, (len(x) - side) // grid + 1, 2)
        w = x[i:i + side, j:j + side]
        edges = np.abs(np.diff(w[::2, ::2].astype(np.int16), axis=1)).sum()
        if best is None or edges > best[0]: best = edges, w
    return best[1]


def captions(name):
    """Caption and content of each picture of a shard; the caption is empty where only the image tokenizer learns from it."""
    with open(name + '.json') as f: return json.load(f)
