#!/usr/bin/env python3
"""Sitter against PyTorch on the same model folder: one command, a table with ratios and peak memory.

    python benches/compare/compare.py                       everything, on a random model of 340 M parameters (made once)
    python benches/compare/compare.py --check               only whether both compute the same, on a small random model
    python benches/compare/compare.py --rows sample,decode --repeats 7 --markdown table.md

Needs a Rust toolchain, and a Python (this one, or `--python`) with torch, safetensors, tokenizers, numpy and PyYAML, for
the main job Pillow, for Janus-Pro transformers, for the rows against llama.cpp llama-cpp-python and gguf. PyTorch's side is theirs.py,
for Infinity infinity.py; they are written as one would write them for speed. llama.cpp's is llamacpp.py.

How it measures: for each row, a process of each side opens the model and warms up once; then they take turns, one
measurement each, the other waiting, each with two threads. The ratio is theirs / ours of the medians, so above 1 ours is
faster. Peak memory is the largest resident set of a process that opens the model and measures once; it counts pages of the
model's file that are mapped. Other programs on the machine disturb all of this: run it on a quiet one.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
THREADS = "2"

# Name: (title, row of both programs, model, our dtype, their dtype, pixels, unit of work)
ROWS = {
    "sample": ("guided sampling, 256 x 256, bf16", "sample", "mid", "bf16", "bf16", 256, "token/s"),
    "sample_f32": ("guided sampling, 256 x 256, f32", "sample", "mid", "f32", "f32", 256, "token/s"),
    "sample_q8": ("guided sampling, ours q8_0, theirs bf16", "sample", "mid", "q8_0", "bf16", 256, "token/s"),
    "sample_q4": ("guided sampling, ours q4_k, theirs bf16", "sample", "mid", "q4_k", "bf16", 256, "token/s"),
    "llama": ("guided sampling, 256 x 256, bf16; theirs: llama.cpp", "sample", "mid", "bf16", "llama.cpp bf16", 256, "token/s"),
    "llama_q8": ("the same, q8_0", "sample", "mid", "q8_0", "llama.cpp q8_0", 256, "token/s"),
    "llama_q4": ("the same, q4_k", "sample", "mid", "q4_k", "llama.cpp q4_k", 256, "token/s"),
    "prefill_f32": ("prefill of 1060 tokens, f32", "prefill", "mid", "f32", "f32", 512, "s"),
    "prefill_bf16": ("prefill of 1060 tokens, bf16", "prefill", "mid", "bf16", "bf16", 512, "s"),
    "embedding_f32": ("embedding-stage step, 512 x 512, f32", "embedding_step", "mid", "f32", "f32", 512, "s"),
    "embedding_bf16": ("embedding-stage step, bf16 (theirs: autocast)", "embedding_step", "mid", "bf16", "bf16", 512, "s"),
    "layers_f32": ("layers-stage step (q, k, v), 512 x 512, f32", "layer_step", "mid", "f32", "f32", 512, "s"),
    "layers_bf16": ("layers-stage step, bf16 (theirs: autocast)", "layer_step", "mid", "bf16", "bf16", 512, "s"),
    "decode": ("decoding tokens to 512 x 512, f32", "decode", "mid", "f32", "f32", 512, "s"),
    "encode": ("encoding 512 x 512, f32", "encode", "mid", "f32", "f32", 512, "s"),
    "evaluate": ("DINO and CLIP scores of 52 files, 640 x 480, f32", "evaluate", "evaluator", "f32", "f32", 224, "picture/s"),
    "janus": ("Janus-Pro: guided sampling, 384 x 384, bf16; theirs: transformers", "sample", "janus-mid", "bf16", "bf16", 384,
              "token/s"),
    "infinity": ("Infinity: guided drawing, 512 x 512, bf16", "sample", "infinity-mid", "bf16", "bf16", 512, "token/s"),
    "arbooth": ("Infinity: step of ARBooth with its teacher, 512 x 512, f32", "arbooth_step", "infinity-mid", "f32", "f32", 512, "s"),
    "open": ("embedded: opened to first token, program already loaded", "open", "embedded:", "f32", "f32", 128, "s"),
    "start": ("the same from the start of the process", "start", "embedded:", "f32", "f32", 128, "s"),
    "main_job": ("the main job, from the start of the process", "main_job", "embedded:", "f32", "f32", 128, "s"),
}

# Random models whose two sides are compared before a row of them is measured.
MODELS = {"mid", "janus-mid", "infinity-mid"}

# Largest differences that count as the same: f32 to rounding; bf16 to its own resolution, in which PyTorch's side keeps its
# activations and ours does not.
TOLERANCES = {
    "f32": {"logits": 1e-4, "greedy": 1.0, "codes": 1.0, "pixels": 1, "losses": 1e-5, "gradients": 1e-3},
    "bf16": {"logits": 5e-2, "greedy": 0.0, "codes": 1.0, "pixels": 1, "losses": 1e-2, "gradients": 1e-1},
}


def run(command, **more):
    return subprocess.run(command, check=True, cwd=ROOT, env=environment(), **more)


def environment():
    return {**os.environ, "RAYON_NUM_THREADS": THREADS, "OMP_NUM_THREADS": THREADS, "MKL_NUM_THREADS": THREADS}


class Sides:
    def __init__(self, arguments, folder):
        target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        if not arguments.no_build:
            names = ["compare", "random_model", "personalize"]
            run(["cargo", "build", "--release", *(a for n in names for a in ("--example", n))], stdout=sys.stderr)
        self.programs = target / "release" / "examples"
        self.python = arguments.python
        self.folder = folder

    def model(self, preset):
        """The folder of a random model, made if it is not there."""
        if preset == "embedded:":
            return preset
        folder = self.folder / preset
        if preset == "evaluator":
            if not (folder / "pictures").exists():
                run([self.python, HERE / "dino_clip.py", folder], stdout=sys.stderr)
            return str(folder)
        if not any((folder / name).exists() for name in ("tokenizer.json", "text_encoder/tokenizer.json")):
            run([self.programs / "random_model", preset, folder], stdout=sys.stderr)
        return str(folder)

    def command(self, side, row, model, dtype, pixels):
        own = {"janus": "janus.py", "infinity": "infinity.py"}
        theirs = own.get(model.partition("-")[0], "theirs.py")
        if dtype.startswith("llama.cpp "):
            theirs, dtype = "llamacpp.py", dtype.split()[1]
        program = [self.programs / "compare"] if side == "ours" else [self.python, HERE / theirs]
        return [*map(str, program), row, self.model(model), "--dtype", dtype, "--pixels", str(pixels)]


class Turns:
    """A process that measures when it is its turn."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{shlex.join(command)} did not get ready")

    def measure(self):
        # Threads of the other side that spin for more work have gone to sleep by then.
        time.sleep(0.2)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.scores = answer.get("scores")
        return answer["seconds"] / answer["work"]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def whole(command):
    """Seconds and peak MiB of a process from start to end."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{shlex.join(command)} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def measure(sides, name, repeats):
    title, row, model, ours, theirs, pixels, unit = ROWS[name]
    if row in ("start", "main_job"):
        with tempfile.TemporaryDirectory() as out:
            if row == "start":
                commands = {s: sides.command(s, "open", model, "f32", pixels) + ["--once"] for s in ("ours", "theirs")}
            else:
                commands = {"ours": [str(sides.programs / "personalize")],
                            "theirs": sides.command("theirs", row, model, "f32", pixels)}
            found = {s: [] for s in commands}
            for turn in range(repeats + (row == "start")):
                for side, command in commands.items():
                    # The main job does not write where another's pictures are.
                    where = [] if row == "start" else ["--out", str(Path(out) / f"{side}-{turn}")]
                    found[side].append(whole(command + where))
        # The first start reads files that the others find in memory.
        found = {s: f[1:] if row == "start" else f for s, f in found.items()}
        seconds = {s: [t for t, _ in f] for s, f in found.items()}
        memory = {s: max(m for _, m in f) for s, f in found.items()}
    else:
        commands = {s: sides.command(s, row, model, d, pixels) for s, d in (("ours", ours), ("theirs", theirs))}
        memory = {s: whole(c + ["--once"])[1] for s, c in commands.items()}
        turns = {s: Turns(c) for s, c in commands.items()}
        seconds = {s: [] for s in turns}
        for turn in range(repeats + 1):
            for side, process in turns.items():
                found = process.measure()
                if turn > 0:
                    seconds[side].append(found)
        for process in turns.values():
            process.end()
    median = {s: statistics.median(t) for s, t in seconds.items()}
    spread = {s: (min(t), max(t)) for s, t in seconds.items()}
    return dict(name=name, title=title, unit=unit, median=median, spread=spread, memory=memory,
                ratio=median["theirs"] / median["ours"])


def line(r):
    show = (lambda s: f"{1 / s:.1f} {r['unit']}") if r["unit"].endswith("/s") else (lambda s: f"{s:.3g} s")
    cells = [r["title"]]
    for side in ("ours", "theirs"):
        low, high = (show(s).split()[0] for s in r["spread"][side])
        cells.append(f"{show(r['median'][side])} ({low} to {high})")
    cells += [f"{r['ratio']:.2f}", f"{r['memory']['ours']:.0f}", f"{r['memory']['theirs']:.0f}"]
    return "| " + " | ".join(cells) + " |"


HEAD = """| | ours | PyTorch | times faster | ours, peak MiB | PyTorch, peak MiB |
|---|---|---|---|---|---|"""


def check(sides, preset):
    """Whether both sides compute the same; prints every difference."""
    passed, pixels = True, 384 if preset.startswith("janus") else 512
    for dtype, limits in TOLERANCES.items():
        with tempfile.NamedTemporaryFile("w+", suffix=".json") as ours:
            run(sides.command("ours", "check", preset, dtype, pixels), stdout=ours)
            command = sides.command("theirs", "check", preset, dtype, pixels) + ["--against", ours.name]
            found = json.loads(run(command, stdout=subprocess.PIPE, text=True).stdout)
        for what, value in found.items():
            limit = limits.get(what.split()[-1])
            if isinstance(value, bool):
                right, said = value, "equal" if value else "DIFFERENT"
            elif what in ("greedy", "codes"):
                right, said = value >= limit, f"{value:.1%} equal, at least {limit:.0%}"
            else:
                right, said = value <= limit, f"differ by {value:.1e}, at most {limit:.0e}"
            passed &= right
            print(f"{'ok  ' if right else 'FAIL'} {preset} {dtype} {what}: {said}")
    return passed


def check_scores(sides):
    """Whether both sides give pictures the same DINO, CLIP-I and CLIP-T."""
    scores = []
    for side in ("ours", "theirs"):
        process = Turns(sides.command(side, "evaluate", "evaluator", "f32", 224))
        process.measure()
        process.end()
        scores.append(process.scores)
    passed = True
    for what, ours, theirs in zip(("DINO", "CLIP-I", "CLIP-T"), *scores):
        right = abs(ours - theirs) <= 1e-4
        passed &= right
        print(f"{'ok  ' if right else 'FAIL'} evaluator f32 {what}: differ by {abs(ours - theirs):.1e}, at most 1e-04")
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare results, on a small model")
    parser.add_argument("--rows", help=f"of {','.join(ROWS)}; default all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", type=Path, help="where the random models are or go; default a folder beside the build")
    parser.add_argument("--python", default=sys.executable, help="the Python that has torch")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    parser.add_argument("--no-build", action="store_true", help="the Rust programs are built already")
    arguments = parser.parse_args()
    names = arguments.rows.split(",") if arguments.rows else list(ROWS)
    if unknown := set(names) - set(ROWS):
        raise SystemExit(f"no such row: {', '.join(unknown)}; known are {', '.join(ROWS)}")
    has = lambda modules: not subprocess.run([arguments.python, "-c", f"import {modules}"], capture_output=True).returncode
    if not has("torch, safetensors, tokenizers, yaml"):
        print("SKIPPED: this Python has no torch, safetensors, tokenizers and yaml, so nothing was compared with PyTorch")
        return
    folder = arguments.models or Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "compare-models"
    sides = Sides(arguments, folder.resolve())
    if any(name.startswith("llama") for name in names) and not has("llama_cpp, gguf"):
        print("SKIPPED: this Python has no llama_cpp and gguf, so nothing was compared with llama.cpp")
        names = [n for n in names if not n.startswith("llama")]
    presets = ["small", "janus-small", "infinity-small"] if arguments.check else sorted({ROWS[name][2] for name in names} & MODELS)
    if any(preset.startswith("janus") for preset in presets) and not has("transformers"):
        print("SKIPPED: this Python has no transformers, so Janus-Pro was not compared with it")
        presets, names = ([n for n in ns if not n.startswith("janus")] for ns in (presets, names))
    # Each is checked, whatever comes of the others.
    passed = all([check(sides, preset) for preset in presets])
    if arguments.check or "evaluate" in names:
        passed &= check_scores(sides)
    if not passed:
        raise SystemExit("the two sides do not compute the same")
    if arguments.check:
        return
    table = [HEAD]
    print(HEAD, flush=True)
    for name in names:
        table.append(line(measure(sides, name, arguments.repeats)))
        print(table[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
