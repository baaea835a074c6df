#!/usr/bin/env python3
"""How a benchmark run scales over machines: what giving out jobs costs, and what to expect of many GPUs.

    python benches/cluster/scale.py cost                            1000 jobs that do nothing, on Ray on this machine
    python benches/cluster/scale.py workers                         pictures per second with 1 and 2 workers
    python benches/cluster/scale.py replay --shrink 100             a simulated run beside the same on Ray, a hundred times faster
    python benches/cluster/scale.py simulate [--log RUN/log.jsonl]  10 to 1000 GPUs

Needs `ray` for all but `simulate`; PYTHONPATH=bindings/python/src and SITTER_LIBRARY unless the package is installed.

The simulation runs the driver's own loop (`sitter.dreambench.queue`) against workers that only have a clock: a job takes its
time, the driver its own for each job. How long jobs take is given, or read from the log of a real run.
"""
from __future__ import annotations

import argparse
import heapq
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Optional

from sitter.dreambench.cluster import Answer, Inputs, RayCrew
from sitter.dreambench.data import Data, Subject
from sitter.dreambench.plan import Job, Plan
from sitter.dreambench.queue import Done, News, Queue, run_jobs

ROOT = Path(__file__).resolve().parents[2]
# Ray's workers stand back behind all other programs of a machine; that would measure the other programs.
os.environ.setdefault("RAY_worker_niceness", "0")


@dataclass
class Times:
    """Seconds."""

    open: float
    """From the start of a worker until it has its model."""
    teach: float
    load: float
    """A subject that another worker taught."""
    picture: float
    score: float
    """Of a picture, by DINO and CLIP."""
    driver: float
    """What the driver itself does for a job."""
    megabytes: float = 0
    """Of a subject, where it travels through the driver; 0 with a shared folder."""
    network: float = 1000
    """Megabytes per second that the driver's machine sends and receives."""

    def of(self, job: Job, plan: Plan, holds: str) -> float:
        if job.kind == "teach":
            return self.teach
        if job.kind == "score":
            return self.score * plan.per_prompt * len(plan.unit(job.unit).templates)
        load = self.load if job.kind != "untouched" and job.unit != holds else 0
        return load + self.picture * (plan.per_prompt if job.kind == "draw" else plan.class_pictures)

    def sent(self, job: Job, holds: str) -> float:
        """What travels through the driver's network, in seconds of it."""
        travels = job.kind == "teach" or (job.kind in ("draw", "class") and job.unit != holds)
        return self.megabytes / self.network if travels else 0


# A guess for a 7B model on a GPU of the size of an A100, nothing of it measured by us: 25 minutes to teach, a minute and a half for a
# picture of 768 pixels (for 512 pixels its users report a minute), subjects of 3.2 GB (query, key and value of all layers in bf16).
GUESS = dict(open=120, teach=1500, load=10, picture=90, score=0.3)


class Clock:
    """A crew of workers that only have a clock, and a driver whose time passes as well."""

    def __init__(self, plan: Plan, times: Times) -> None:
        self.plan, self.times, self.now, self.count, self.busy = plan, times, 0.0, 0, 0.0
        self.coming: "list[tuple[float, int, News]]" = []

    def _will(self, seconds: float, news: News) -> None:
        self.count += 1
        heapq.heappush(self.coming, (self.now + seconds, self.count, news))

    def hire(self) -> None:
        self._will(self.times.open, News(self.count))

    def give(self, worker: Any, job: Job, holds: str) -> None:
        self.now += self.times.driver + self.times.sent(job, holds)
        seconds = self.times.of(job, self.plan, holds)
        self.busy += seconds
        holds = job.unit if job.kind in ("teach", "draw", "class") else holds
        self._will(seconds, News(worker, job, Done(seconds, str(worker), holds)))

    def news(self) -> "list[News]":
        at, _, news = heapq.heappop(self.coming)
        self.now = max(self.now, at)
        return [news]


class Stub:
    """A worker on Ray that only waits."""

    def __init__(self, plan: Plan, times: Times) -> None:
        self.plan, self.times, self.holds, self.opened = plan, times, "", False

    def up(self) -> "tuple[bool, None]":
        time.sleep(self.times.open)
        return True, None

    def do(self, job: Job, inputs: Optional[Inputs]) -> Answer:
        seconds = self.times.of(job, self.plan, self.holds)
        time.sleep(seconds)
        if job.kind in ("teach", "draw", "class"):
            self.holds = job.unit
        return Answer(Done(seconds, "stub", self.holds))


def dreambench(per_prompt: int, subjects: int = 30, prompts: int = 25) -> Plan:
    """30 subjects in 15 classes, 25 prompts each."""
    names = [Subject(f"subject{i}", f"class{i // 2}", False, (Path("a/1.jpg"),)) for i in range(subjects)]
    data = Data(Path("a"), tuple(names), tuple(f"a {{0}} {{1}} {i}" for i in range(prompts)), ())
    return Plan.make(data, model="m", protocol="B", method="two_stage", identifier="[V]", seed=0, per_prompt=per_prompt,
                     class_pictures=4, train={}, sample={}, networks={"dino": "d"})


def simulate(plan: Plan, times: Times, workers: int) -> "tuple[float, float]":
    """Seconds that the run takes, and of the workers' time how much they work."""
    with tempfile.TemporaryDirectory() as folder:
        crew = Clock(plan, times)
        run_jobs(Queue(plan.jobs(Path(folder))), crew, workers, Path(folder), lambda line: None)
    return crew.now, crew.busy / (crew.now * workers)


def on_ray(plan: Plan, jobs: "list[Job]", times: Times, workers: int) -> "tuple[float, float]":
    """The same with real processes that wait: seconds from the first worker that is up, and the driver's processor time."""
    import ray

    # Places for workers, not processors: they only wait.
    ray.init(num_cpus=workers, log_to_driver=False, include_dashboard=False, configure_logging=False)
    actor = ray.remote(Stub).options(num_cpus=1)
    with tempfile.TemporaryDirectory() as folder:
        queue = Queue(jobs)
        crew = RayCrew(ray, lambda: actor.remote(plan, times), plan, Path(folder), queue.jobs, print)
        starting: "list[tuple[float, float]]" = []
        heard = crew.news

        def news() -> "list[News]":
            found = heard()
            if not starting:
                starting.append((time.monotonic(), time.process_time()))
            return found

        crew.news = news  # type: ignore[method-assign]
        run_jobs(queue, crew, workers, Path(folder), lambda line: None)
        seconds, processor = time.monotonic() - starting[0][0], time.process_time() - starting[0][1]
        crew.dismiss()
    ray.shutdown()
    return seconds, processor


def cost(given: argparse.Namespace) -> None:
    plan = dreambench(1)
    jobs = [Job("untouched", f"class{i}", "", Path("untouched", str(i))) for i in range(given.jobs)]
    nothing = Times(0, 0, 0, 0, 0, 0)
    print(f"{given.jobs} jobs that do nothing; milliseconds for each job")
    begun, processor = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run_jobs(Queue(jobs), Clock(plan, nothing), 2, Path(folder), lambda line: None)
    show = lambda what, wall, processor: print(
        f"{what}: {wall / given.jobs * 1000:.2f}, of the driver's processor time {processor / given.jobs * 1000:.2f}", flush=True)
    show("the driver's loop alone", time.monotonic() - begun, time.process_time() - processor)
    for workers in (1, 2, 4):
        show(f"on Ray, {workers} workers", *on_ray(plan, jobs, nothing, workers))


def workers(given: argparse.Namespace) -> None:
    """The embedded model on one thread for each worker; only jobs that draw count."""
    prompts = ["a photo of a {0} {1} in the snow", "a photo of a {0} {1} at night", "a photo of a {0} {1} on the beach"]
    quick = ["embedding_steps=2", "layer_steps=2", "batch_size=1", "augment=0"]
    for turn in range(given.turns):
        for count in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                data = Path(folder, "dataset")
                for name in ("fox", "dog", "robot"):
                    shutil.copytree(ROOT / "assets" / "subjects" / name, data / name)
                lines = [f"{name},{name}" for name in ("fox", "dog", "robot")] + [f"'{prompt}'" for prompt in prompts]
                (data / "prompts_and_classes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
                out = Path(folder, "out")
                subprocess.run(
                    [sys.executable, "-m", "sitter.dreambench", "--data", data, "--model", "embedded:", "--out", out, "--no-scores",
                     "--class-pictures", "0", "--per-prompt", str(given.per_prompt), "--threads", "1", "--cluster", "local",
                     "--workers", str(count), *(word for one in quick for word in ("--train", one))],
                    check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
                draws = [one for one in read_log(out / "log.jsonl") if one["job"].startswith("draw/")]
                pictures = len(draws) * given.per_prompt
                span = max(one["at"] for one in draws) - min(one["at"] - one["seconds"] for one in draws)
                print(f"turn {turn + 1}, {count} workers: {pictures / span:.2f} pictures per second", flush=True)


def read_log(path: Path) -> "list[dict[str, Any]]":
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def times_of(given: argparse.Namespace) -> Times:
    values = dict(GUESS)
    if given.log:
        lines, plan = read_log(given.log), json.loads((given.log.parent / "plan.json").read_text(encoding="utf-8"))
        of = lambda kind: [one["seconds"] for one in lines if one["job"].split("/")[0] == kind]
        prompts = mean(len(unit["templates"]) for unit in plan["units"])
        values = dict(open=1, teach=mean(of("teach")), load=0.1, picture=mean(of("draw")) / plan["per_prompt"],
                      score=mean(of("score")) / (plan["per_prompt"] * prompts) if of("score") else 0)
    for name in values:
        if getattr(given, name) is not None:
            values[name] = getattr(given, name)
    return Times(**values, driver=given.driver / 1000, megabytes=given.megabytes, network=given.network)


def simulations(given: argparse.Namespace) -> None:
    plan, times = dreambench(given.per_prompt), times_of(given)
    jobs = len(plan.jobs(Path()))
    print(f"{jobs} jobs, {given.per_prompt} pictures of each prompt; {times}\n")
    alone = simulate(plan, times, 1)[0]
    print("| GPUs | hours | times as fast as one | GPUs at work |\n|---|---|---|---|")
    for count in given.gpus:
        seconds, busy = simulate(plan, times, count)
        print(f"| {count} | {seconds / 3600:.2f} | {alone / seconds:.1f} | {busy:.0%} |")


def replay(given: argparse.Namespace) -> None:
    plan, full = dreambench(given.per_prompt, 6, 5), times_of(given)
    seconds = {name: getattr(full, name) / given.shrink for name in ("teach", "load", "picture", "score")}
    times = Times(open=0, driver=full.driver, **seconds)
    print("| workers | simulated, s | on Ray, s |\n|---|---|---|")
    for count in (1, 2, 4, 8):
        print(f"| {count} | {simulate(plan, times, count)[0]:.1f} | {on_ray(plan, plan.jobs(Path('x')), times, count)[0]:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "workers", "replay", "simulate"])
    parser.add_argument("--jobs", type=int, default=1000, help="cost: how many")
    parser.add_argument("--turns", type=int, default=3, help="workers: how often each")
    parser.add_argument("--per-prompt", type=int, default=1)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 10, 30, 100, 300, 1000])
    parser.add_argument("--log", type=Path, help="log.jsonl of a real run, for how long jobs take; default a guess for a 7B model on a GPU")
    for name in GUESS:
        parser.add_argument(f"--{name}", type=float, help="seconds")
    parser.add_argument("--driver", type=float, default=2, help="milliseconds of the driver for a job, as `cost` measures them")
    parser.add_argument("--megabytes", type=float, default=0, help="of a subject, if it travels through the driver")
    parser.add_argument("--network", type=float, default=1000, help="megabytes per second of the driver's machine")
    parser.add_argument("--shrink", type=float, default=100, help="replay: how many times as fast")
    given = parser.parse_args()
    {"cost": cost, "workers": workers, "replay": replay, "simulate": simulations}[given.what](given)


if __name__ == "__main__":
    main()
