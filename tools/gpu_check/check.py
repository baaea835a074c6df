#!/usr/bin/env python3
"""Checks and times a build of the library on the devices of a machine, and prints a report. For machines with a GPU and no
network; needs Python 3.9 or newer with numpy. Not more than ten minutes; what does not fit is reported as skipped.

    tools/gpu_check/check.py --pack sitter-gpu-check.tar.gz --library target/release/libsitter.so    here
    tar xf sitter-gpu-check.tar.gz && sitter-gpu-check/tools/gpu_check/check.py                      there

The library must have been built with CUDA (tools/cuda/build.sh). The CPU's results, from the same library, are what is right.
--device cpu compares the CPU with itself: that checks this script. --null runs it on a GPU that computes nothing
(tools/cuda/null.sh): only that every part comes to its end is judged. Exit status 0 if nothing failed.
"""
import argparse
import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKED_LIBRARY = HERE / "libsitter.so"
# What travels, besides the library.
FILES = ["tools/gpu_check/*.py", "bindings/python/src/sitter/*.py", "assets/subjects/fox/*.png", "assets/embedded/CREDITS.md", "LICENSE-*"]
# They may lie in Python packages, where the loader does not look. A library that is loaded is found by its name.
NVIDIA = ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9"]
PROMPT = "a photo of a fox in the snow"
# Bytes a second, by a part of the name; see docs/cuda.md.
BANDWIDTH = {"3090": 936e9, "4090": 1008e9, "A100": 2039e9, "H100": 3350e9, "H200": 4800e9}
# Products of bf16 a second, by the same names; half of it is what large ones reach.
PRODUCTS = {"3090": 71e12, "4090": 165e12, "A100": 312e12, "H100": 989e12, "H200": 989e12}
# Times what is derived that a code, and a step of training, may take.
SLOWEST, SLOWEST_STEP = 3, 4
MIB = 1 << 20


def pack(library: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        archive.add(library, f"sitter-gpu-check/{PACKED_LIBRARY.relative_to(ROOT)}")
        for pattern in FILES:
            for path in sorted(ROOT.glob(pattern)):
                archive.add(path, f"sitter-gpu-check/{path.relative_to(ROOT)}")
    print(f"{target}: {target.stat().st_size / MIB:.0f} MiB")


def preload() -> "list[str]":
    """Loads NVIDIA's libraries from where Python's packages keep them; the names that were found."""
    found = []
    for name in NVIDIA:
        folders = [Path(p) / "nvidia" / part / "lib" for p in sys.path for part in ("cu13", "cudnn")]
        for path in [name, *(str(f / name) for f in folders if (f / name).is_file())]:
            try:
                ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
            except OSError:
                continue
            found.append(path)
            break
    return found


class Report:
    def __init__(self, seconds: float, null: bool) -> None:
        self.start, self.seconds, self.null = time.monotonic(), seconds, null
        self.checks: "list[dict[str, Any]]" = []
        self.times: "dict[str, float]" = {}
        self.facts: "dict[str, Any]" = {}

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)

    def check(self, name: str, passed: bool, found: str, ended: bool = True) -> None:
        """With --null only what did not come to its end fails."""
        passed = bool(passed) or self.null and ended
        self.checks.append({"check": name, "result": "pass" if passed else "FAIL", "found": found})
        print(f"{'pass' if passed else 'FAIL'}  {name}: {found}", flush=True)

    def note(self, name: str, value: Any) -> None:
        self.facts[name] = value
        print(f"      {name}: {value}", flush=True)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.times[name] = time.perf_counter() - begin
        print(f"      {name}: {self.times[name]:.3f} s", flush=True)

    def part(self, name: str, work: Callable[[], None], needs: float) -> None:
        """Runs one part; an exception in it is a failure of that part alone."""
        print(f"\n{name} ({self.left():.0f} s left)", flush=True)
        if self.left() < needs:
            self.checks.append({"check": name, "result": "skipped", "found": f"needs about {needs:.0f} s"})
            print(f"skipped: needs about {needs:.0f} s")
            return
        try:
            work()
        except Exception as e:
            traceback.print_exc()
            self.check(name, False, f"{type(e).__name__}: {e}", ended=False)

    def failed(self) -> int:
        return sum(c["result"] == "FAIL" for c in self.checks)


class Check:
    """Everything is done on the CPU in f32, which is right, and on the device."""

    def __init__(self, device: str, report: Report) -> None:
        import numpy
        import sitter

        self.np, self.sitter = numpy, sitter
        self.device, self.report = device, report
        self.pictures = sorted(ROOT.glob("assets/subjects/fox/*.png"))
        assert self.pictures, f"no pictures in {ROOT}/assets/subjects/fox"

    def machine(self) -> None:
        report, sitter = self.report, self.sitter
        report.note("machine", f"{platform.platform()}, {os.cpu_count()} processors, Python {platform.python_version()}")
        if shutil.which("nvidia-smi"):
            query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
            report.note("nvidia-smi", subprocess.run(query, capture_output=True, text=True).stdout.strip())
        report.note("NVIDIA libraries", preload())
        report.note("library", sitter.build_info())
        devices = sitter.devices()
        report.note("devices", devices)
        name = "cuda:0" if self.device == "cuda" else self.device
        report.check("the device is listed", any(d["name"] == name for d in devices), name)

    def open(self) -> None:
        report = self.report
        with report.timed("open, CPU f32"):
            self.cpu = self.sitter.Model.open("embedded:", device="cpu", dtype="f32")
        with report.timed(f"open, {self.device} f32 (the first use of a device)"):
            self.gpu = self.sitter.Model.open("embedded:", device=self.device, dtype="f32")
        with report.timed(f"open, {self.device} f32 again"):
            self.sitter.Model.open("embedded:", device=self.device, dtype="f32").close()
        found = self.gpu.info["device"]
        report.check("the model is on the device", found == self.device.split(":")[0], found)

    def twice(self, name: str, work: "Callable[[Any], Any]") -> "tuple[Any, Any]":
        """Result on the CPU and on the device; timed when the kernels are loaded."""
        with self.report.timed(f"{name}, CPU"):
            right = work(self.cpu)
        work(self.gpu)
        with self.report.timed(f"{name}, {self.device}"):
            found = work(self.gpu)
        return right, found

    def pixels(self) -> None:
        np, report = self.np, self.report
        right, found = self.twice("encode 4 pictures", lambda m: [m.encode(p, size=96).grid for p in self.pictures])
        same = float(np.mean(np.stack(right) == np.stack(found)))
        report.check("pictures become the same tokens", same >= 0.99, f"{same:.4f} are equal")
        right, found = self.twice("decode 4 pictures", lambda m: [m.decode(grid).astype(int) for grid in right])
        off = np.abs(np.stack(right) - np.stack(found))
        report.check("tokens become the same picture", off.max() <= 2, f"largest difference {off.max()} of 255, mean {off.mean():.5f}")

    def scores(self) -> None:
        np, report = self.np, self.report
        right, found = self.twice("score 4 pictures", lambda m: np.array(m.score(PROMPT, self.pictures)))
        off = np.abs(right - found).max()
        report.check("pictures are as likely", off <= 1e-3, f"{found.round(5).tolist()}, off by {off:.2g} nats at most")

    def samples(self) -> None:
        np, report = self.np, self.report
        draw = lambda m: np.stack([s.tokens.grid for s in m.sample(PROMPT, count=4, seed=11)])
        right, found = self.twice("sample 4 pictures", draw)
        rows = int((right == found).all(axis=(0, 2)).argmin()) if (right != found).any() else right.shape[1]
        # A difference in the last digit may turn a draw, and all after it is another picture.
        report.check("the first row is drawn the same", rows >= 1, f"{rows} of {right.shape[1]} rows, {np.mean(right == found):.3f} of tokens")
        again = draw(self.gpu)
        report.check("the same seed draws the same", bool((again == found).all()), f"{np.mean(again == found):.3f} of tokens")
        one = self.gpu.sample(PROMPT, count=1, seed=11)[0].tokens.grid
        report.check("alone as in a batch, first row", bool((one[0] == found[0][0]).all()), f"{np.mean(one == found[0]):.3f} of tokens")
        with report.timed(f"sample 1 picture of {one.size} tokens, {self.device}"):
            self.gpu.sample(PROMPT, count=1, seed=12)

    def trainings(self) -> None:
        np, report = self.np, self.report
        for method, steps in [("two_stage", (6, 4)), ("lora", (3, 3)), ("dreambooth", (0, 3)), ("textual_inversion", (4, 0))]:
            def train(model: Any) -> Any:
                return model.train(self.pictures, "fox", method=method, embedding_steps=steps[0], layer_steps=steps[1], seed=3)
            right, found = self.twice(f"train {method}, {sum(steps)} steps", train)
            off = np.abs(np.array([r[2] for r in right.losses]) - np.array([f[2] for f in found.losses]))
            report.check(f"{method} learns the same", off.max() <= 5e-3, f"{len(off)} losses, off by {off.max():.2g} nats at most")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "subject.safetensors"
                found.save(path)
                loaded = self.sitter.Subject.load(path)
            score = [m.score("a photo of a [V] fox", self.pictures[0], subjects=s)
                     for m, s in [(self.cpu, right), (self.cpu, loaded), (self.gpu, loaded)]]
            off = max(score) - min(score)
            report.check(f"{method}'s subject serves on both", off <= 5e-3, f"scores {score}")

    def whole_training(self) -> None:
        report = self.report
        before = self.gpu.score("a photo of a [V] fox", self.pictures, subjects=[self.gpu.train(self.pictures, "fox", embedding_steps=1, layer_steps=0)])
        with report.timed(f"teach the fox as recommended, {self.device}"):
            subject = self.gpu.train(self.pictures, "fox")
        after = self.gpu.score("a photo of a [V] fox", self.pictures, subjects=[subject])
        learned = sum(before) / len(before) - sum(after) / len(after)
        report.check("a whole training learns", learned > 0.3, f"the references are {learned:.2f} nats a token likelier")

    def formats(self) -> None:
        """Activations are bf16 on a GPU and f32 on the CPU, so this is rough."""
        np, report = self.np, self.report
        for dtype in ("bf16", "q8_0", "q4_k"):
            right = np.array(self.sitter.Model.open("embedded:", device="cpu", dtype=dtype).score(PROMPT, self.pictures))
            with report.timed(f"open, {self.device} {dtype}"):
                model = self.sitter.Model.open("embedded:", device=self.device, dtype=dtype)
            off = np.abs(np.array(model.score(PROMPT, self.pictures)) - right).max()
            report.check(f"{dtype} scores as on the CPU", off <= 0.05, f"off by {off:.2g} nats at most")
            model.sample(PROMPT, count=4, seed=11)
            with report.timed(f"sample 4 pictures, {self.device} {dtype}"):
                model.sample(PROMPT, count=4, seed=11)
            if dtype == "bf16":
                subject = model.train(self.pictures, "fox", embedding_steps=6, layer_steps=4, seed=3)
                losses = [loss for _, _, loss in subject.losses]
                report.check("bf16 trains", bool(np.isfinite(losses).all()), f"losses {np.round(losses, 3).tolist()}")

    def cancelled(self) -> None:
        run = self.sitter.Run()
        begin = time.monotonic()
        threading.Timer(0.3, run.cancel).start()
        try:
            self.gpu.train(self.pictures, "fox", run=run, embedding_steps=5000)
            self.report.check("cancel stops a training", False, "it went on to its end")
        except self.sitter.Cancelled:
            seconds = time.monotonic() - begin - 0.3
            self.report.check("cancel stops a training", seconds < 1.5, f"after {seconds:.2f} s")

    def memory(self) -> None:
        """What is opened and closed again and again leaves nothing behind. A GPU is supposed to have no other users meanwhile."""
        def free() -> int:
            name = "cuda:0" if self.device == "cuda" else self.device
            return next(d["memory_free_bytes"] for d in self.sitter.devices() if d["name"] == name)

        levels = []
        for _ in range(4):
            with self.sitter.Model.open("embedded:", device=self.device) as model:
                model.sample(PROMPT, count=2)
                model.train(self.pictures, "fox", embedding_steps=2, layer_steps=2)
            levels.append(free())
        lost = levels[0] - levels[-1]
        found = f"free after each round: {[level // MIB for level in levels]} MiB"
        # A machine's memory has many users.
        self.report.check("memory comes back", lost <= 64 * MIB or self.device == "cpu", found)

    def wide(self) -> None:
        """Numbers at the width and length of the 7B, of two layers: on the device in bf16, on the CPU in f32."""
        import shape

        np, report = self.np, self.report
        size = shape.SHAPES["tiny" if self.device == "cpu" or report.null else "wide"]
        with tempfile.TemporaryDirectory(prefix="sitter-shape-") as folder:
            shape.make(size, Path(folder))
            with self.sitter.Model.open(folder, device="cpu", dtype="f32") as right:
                grid = right.encode(self.pictures[0], size=size.pixels)
                with report.timed(f"wide: score {grid.grid.size} codes, CPU"):
                    expected = right.score(PROMPT, [grid])[0]
                train = lambda m: m.train(self.pictures[:1], "fox", method="two_stage", embedding_steps=1, layer_steps=1, batch_size=1,
                                          image_size=size.pixels, dropout=0.0, seed=3).losses
                losses = [loss for _, _, loss in train(right)]
            with self.sitter.Model.open(folder, device=self.device) as model:
                with report.timed(f"wide: score, {self.device}"):
                    found = model.score(PROMPT, [grid])[0]
                off = abs(found - expected)
                report.check("wide: pictures are as likely", off <= 0.02 * expected, f"{found:.4f} nats a code, {expected:.4f} on the CPU")
                there = [loss for _, _, loss in train(model)]
                off = np.abs(np.array(there) - np.array(losses)).max()
                report.check("wide: both stages learn the same", off <= 0.02 * losses[0], f"losses {there}, on the CPU {losses}")

    def large(self, name: str) -> None:
        """Times a model of another size, with random weights; on a GPU in bf16."""
        import shape

        report, size = self.report, shape.SHAPES[name]
        with tempfile.TemporaryDirectory(prefix="sitter-shape-") as folder:
            with report.timed(f"{name}: write random weights"):
                shape.make(size, Path(folder))
            with report.timed(f"{name}: open"):
                model = self.sitter.Model.open(folder, device=self.device)
            report.note(f"{name}: model", model.info)
            report.note(f"{name}: devices", self.sitter.devices())
            side = size.pixels
            hardware = next((d["hardware"] or "" for d in self.sitter.devices() if d["name"].startswith("cuda")), "")
            of = lambda table: next((value for part, value in table.items() if part in hardware), 0.0)
            judged = name == "7b"
            # All weights of the layers and the codes' rows of the head, and half of the picture's keys and values, for two rows.
            layers = size.layers * (4 * size.hidden**2 + 3 * size.hidden * size.inner)
            cells = (side // 16) ** 2
            read = 2 * (layers + size.codes * size.hidden) + 2 * (cells / 2) * 2 * size.layers * size.hidden * 2
            derived = of(BANDWIDTH) / read
            tokens = self.tokens_per_second(model, name, side)
            least = derived / SLOWEST if judged else 0.0
            found = f"{tokens:.1f} tokens a second; derived are {derived:.1f} at most, allowed {least:.1f} at least"
            report.check(f"{name}: tokens are drawn fast enough", tokens > least, found)
            for decoding in ("speculative", "speculative_distribution"):
                if report.left() < 120:
                    break
                # How many drafts a model meets depends on its weights, and random ones meet few: only a pass is timed.
                passes = self.passes_per_second(model, side, decoding)
                found = f"{passes:.1f} passes a second, {tokens / passes:.2f} codes' time each; allowed {SLOWEST:.1f}"
                report.check(f"{name}: a pass, {decoding}, is fast enough", not judged or tokens / passes < SLOWEST, found)
            with report.timed(f"{name}: encode {side} x {side}"):
                grid = model.encode(self.pictures[0], size=side)
            with report.timed(f"{name}: decode {side} x {side}"):
                model.decode(grid)
            # Of a picture: forward, and what of it is done again; see docs/cuda.md.
            length = cells + side // 16 + 53
            forward = 2 * layers * length + 4 * length**2 * size.hidden * size.layers + 2 * length * size.vocabulary * size.hidden
            learned = 2 * length * 3 * size.hidden**2 * size.layers
            stages = [("embedding stage", "two_stage", (3, 0), 2 * forward), ("layers stage", "two_stage", (0, 3), 3 * forward + learned),
                      ("low-rank", "lora", (0, 3), 3 * forward)]
            for stage, method, steps, operations in stages:
                if report.left() < 60:
                    return
                times: "list[float]" = []
                def step(event: Any) -> None:
                    if event.stage in ("embedding", "layers") and event.done > len(times):
                        times.append(event.elapsed)
                subject = model.train(self.pictures, "fox", method=method, embedding_steps=steps[0], layer_steps=steps[1],
                                      batch_size=1, image_size=side, progress=step)
                seconds = min(b - a for a, b in zip(times, times[1:]))
                derived = operations / (of(PRODUCTS) / 2) if of(PRODUCTS) else 0.0
                most = SLOWEST_STEP * derived if judged and derived else float("inf")
                found = f"{seconds:.3f} s of one picture; derived are {derived:.3f}, allowed {most:.3f}"
                report.check(f"{name}: a step, {stage}, is fast enough", seconds < most, found)
                losses = [loss for _, _, loss in subject.losses]
                report.check(f"{name}: {stage} trains", bool(self.np.isfinite(losses).all()), f"losses {losses}")
            model.close()
            with report.timed(f"{name}: open once more"):
                self.sitter.Model.open(folder, device=self.device).close()

    def passes_per_second(self, model: Any, side: int, decoding: str) -> float:
        """Of one picture with guidance, of the twentieth pass and those behind."""
        times: "list[float]" = []
        run = self.sitter.Run()

        def step(event: Any) -> None:
            if event.stage == "sample":
                times.append(event.elapsed)
                if len(times) == 60:
                    run.cancel()
        try:
            model.sample(PROMPT, width=side, height=side, guidance=3.0, decoding=decoding, progress=step, run=run)
        except self.sitter.Cancelled:
            pass
        first = len(times) // 3
        return (len(times) - 1 - first) / max(times[-1] - times[first], 1e-9)

    def tokens_per_second(self, model: Any, name: str, side: int) -> float:
        """Of one picture with guidance, for at most a minute."""
        times: "list[tuple[int, float]]" = []
        run = self.sitter.Run()
        deadline = time.monotonic() + min(60, self.report.left() / 3)

        def step(event: Any) -> None:
            if event.stage == "sample":
                times.append((event.done, event.elapsed))
                if time.monotonic() > deadline:
                    run.cancel()
        try:
            model.sample(PROMPT, width=side, height=side, guidance=3.0, progress=step, run=run)
        except self.sitter.Cancelled:
            self.report.note(f"{name}: sampling", "stopped after its time; the rate is that of the part drawn")
        half = times[len(times) // 2]
        return (times[-1][0] - half[0]) / max(times[-1][1] - half[1], 1e-9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, help="libsitter.so; in a bundle the packed one")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--pack", type=Path, help="write a bundle for another machine, and do nothing else")
    parser.add_argument("--shape", default="", help="also time random weights of this size: 7b (14 GB of disk, 20 GB of GPU), tiny")
    parser.add_argument("--null", action="store_true", help="the GPU computes nothing: judge only that all comes to its end")
    parser.add_argument("--seconds", type=float, default=570, help="time that there is")
    parser.add_argument("--report", type=Path, help="also write the report as JSON")
    given = parser.parse_args()
    library = given.library or PACKED_LIBRARY
    if not library.is_file():
        parser.error(f"there is no library {library}; build one with tools/cuda/build.sh and name it with --library")
    if given.pack:
        pack(library, given.pack)
        return 0
    os.environ["SITTER_LIBRARY"] = str(library.resolve())
    sys.path.insert(0, str(ROOT / "bindings/python/src"))
    report = Report(given.seconds, given.null)
    check = Check(given.device, report)
    # With the seconds that each takes on a slow machine.
    for name, work, needs in [
        ("machine", check.machine, 0), ("open", check.open, 0), ("pixels", check.pixels, 10), ("scores", check.scores, 10),
        ("samples", check.samples, 20), ("trainings", check.trainings, 60), ("number formats", check.formats, 60),
        ("cancel", check.cancelled, 10), ("memory", check.memory, 30), ("wide", check.wide, 150),
        *([("size " + given.shape, lambda: check.large(given.shape), 180)] if given.shape else []),
        ("a whole training", check.whole_training, 90),
    ]:
        report.part(name, work, needs)
    failed = report.failed()
    skipped = sum(c["result"] == "skipped" for c in report.checks)
    print(f"\n{len(report.checks) - failed - skipped} passed, {failed} failed, {skipped} skipped, {time.monotonic() - report.start:.0f} s")
    if given.report:
        given.report.write_text(json.dumps({"facts": report.facts, "checks": report.checks, "seconds": report.times}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
