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

    def take(self, rng, count):
        """Random pictures; `rng` is numpy's."""
        out = []
        for _ in range(count):
            p = self.parts[rng.integers(len(self.parts))]
            out.append(p[rng.integers(len(p))])
        return np.stack(out)

    def meta(self):
        """Caption and content of every picture, in order of the shards."""
        return [m for f in sorted(self.names) for m in json.load(open(f[:-4] + '.json'))]
