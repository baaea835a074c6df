"""What the tests share."""
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np

import sitter

FOX = sorted((Path(__file__).resolve().parents[3] / "assets" / "subjects" / "fox").glob("*.png"))
PIXELS = np.full((8, 8, 3), 7, np.uint8)


def fake(**settings: int) -> sitter.Model:
    """The model of debug builds that only counts steps."""
    return sitter.Model.open("fake:" + ",".join(f"{k}={v}" for k, v in settings.items()))


def train(model: sitter.Model, **options: object) -> sitter.Subject:
    return model.train(PIXELS, "dog", **options)


def program(source: str, *flags: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs a program of its own, in Python's development mode."""
    variables = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), **environment)
    command = [sys.executable, "-X", "dev", *flags, "-c", textwrap.dedent(source)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
