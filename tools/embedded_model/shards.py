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


def captions(name):
    """Caption and content of each picture of a shard; the caption is empty where only the image tokenizer learns from it."""
    with open(name + '.json') as f: return json.load(f)
