"""The jobs of a run on several machines, by Ray (`pip install 'ray>=2.9'`).

Each worker is a process that keeps its model open from job to job. A job whose worker or machine is gone is done again by another one:
jobs are there whole or not at all, and what they make depends on nothing but the plan. A worker that sees the driver's `--out` reads and
writes there; to one that does not, files travel through Ray's object store. The model and the networks are on every machine, at
the same path.
"""
from __future__ import annotations

import importlib
import json
import math
import os
import tempfile
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

import sitter

from . import store, travel
from .driver import Say, is_fatal, prepare, say
from .plan import Job, Plan
from .queue import ClusterError, Done, News, Queue, run_jobs
from .worker import MODEL, Worker, WrongModel, same_model


@dataclass
class Inputs:
    """What a job reads, for a worker that does not see the driver's folders."""

    made: "dict[str, bytes]"
    data: "dict[str, bytes]"


@dataclass
class Answer:
    done: Done
    files: "dict[str, bytes]" = field(default_factory=dict)
    """What the job made, if it travels."""


class RemoteWorker:
    """Runs in a process of its own somewhere."""

    def __init__(self, plan: Plan, out: str, opening: "dict[str, Any]", sign: str) -> None:
        self._plan, self._out = plan, Path(out)
        self._shares = bool(sign) and (self._out / sign).exists()
        self._worker = Worker(plan, self._out, opening)
        self._name = f"{os.uname().nodename}:{os.getpid()}"

    def up(self) -> "tuple[bool, Optional[Done]]":
        """Whether it sees the driver's folders; and an end of the run if it lacks something that no job can be done without."""
        needed = [self._plan.model, *(path for path in self._plan.networks.values() if path)]
        missing = [path for path in needed if ":" not in path and not Path(path).exists()]
        if not missing:
            return self._shares, None
        message = f"{missing[0]} is not on this machine; models and networks have to be at the same path on all"
        return self._shares, Done(0, self._name, message=message, fatal=True)

    def do(self, job: Job, inputs: Optional[Inputs]) -> Answer:
        if inputs is None:
            return Answer(self._do(job))
        with tempfile.TemporaryDirectory(prefix="sitter-dreambench-") as folder:
            out, data = Path(folder, "out"), Path(folder, "data")
            travel.unpack(inputs.made, out)
            travel.unpack(inputs.data, data)
            output = out / job.output.relative_to(self._out)
            self._worker.move(replace(self._plan, data=str(data)), out)
            done = self._do(replace(job, output=output))
            # What users are told names the files as they know them.
            done.message = done.message.replace(str(out), str(self._out)).replace(str(data), self._plan.data)
            return Answer(done, travel.pack(out, [out / MODEL] if done.message else [out / MODEL, output]))

    def _do(self, job: Job) -> Done:
        begun, message, fatal = time.monotonic(), "", False
        try:
            self._worker.do(job)
        except Exception as error:
            message, fatal = f"{type(error).__name__}: {error}", is_fatal(error)
        return Done(time.monotonic() - begun, self._name, self._worker.holds, message, fatal)


def resources(plan: Plan, opening: "dict[str, Any]", memory: Optional[float]) -> "dict[str, Any]":
    """What one worker takes of a machine, by our own estimate: memory in bytes, and a GPU if it works on one."""
    gpu = opening.get("device", "auto").startswith("cuda")
    needed = (memory or 0) * 2**30
    # A model that tests make up takes nothing.
    if not needed and not plan.model.startswith("fake:"):
        place = {name: opening[name] for name in ("device", "dtype") if name in opening}
        sample: Any = plan.sample or None
        train: Any = dict(plan.train, method=plan.method) if plan.train or plan.method != "two_stage" else None
        found = sitter.estimate(plan.model, **place, sample=sample, train=train)
        phases = ("layers_host",) if gpu else ("encode", "decode", "sample", "embedding", "layers")
        needed = max(found[name] for name in phases)
    return {"memory": math.ceil(needed), "num_gpus": 1 if gpu else 0, "num_cpus": opening.get("threads") or 1}


class RayCrew:
    """Workers that Ray places. `begin` makes the actor of one."""

    def __init__(self, ray: Any, begin: Any, plan: Plan, out: Path, jobs: "dict[str, Job]", tell: Say) -> None:
        self._ray, self._begin, self._plan, self._out, self._jobs, self._tell = ray, begin, plan, out, jobs, tell
        self._expected: "dict[Any, tuple[Any, Optional[Job]]]" = {}
        self._shares: "dict[Any, bool]" = {}
        self._handles: "list[Any]" = []

    def hire(self) -> None:
        worker = self._begin()
        self._handles.append(worker)
        self._expected[worker.up.remote()] = (worker, None)

    def give(self, worker: Any, job: Job, holds: str) -> None:
        inputs = None
        if not self._shares[worker]:
            needs = [self._jobs[name] for name in job.needs]
            made = [need.output for need in needs if need.kind != "teach" or need.unit != holds]
            data = self._plan.pictures(self._plan.unit(job.unit)) if job.kind in ("teach", "score") else []
            inputs = Inputs(travel.pack(self._out, [self._out / MODEL, *made]), travel.pack(Path(self._plan.data), data))
        self._expected[worker.do.remote(job, inputs)] = (worker, job)

    def news(self) -> "list[News]":
        ready, _ = self._ray.wait(list(self._expected), num_returns=1, timeout=60)
        if not ready:
            starting = sum(job is None for _, job in self._expected.values())
            self._tell(f"waiting: {len(self._expected) - starting} jobs at work, {starting} workers in line for a machine with room")
        # All that came in the meantime, not one at a time.
        ready, _ = self._ray.wait(list(self._expected), num_returns=len(self._expected), timeout=0)
        return [self._hear(reference) for reference in ready]

    def _hear(self, reference: Any) -> News:
        worker, job = self._expected.pop(reference)
        try:
            said = self._ray.get(reference)
        except self._ray.exceptions.RayError as gone:
            # Its process or machine ended, or took the answer along.
            self._ray.kill(worker)
            self._handles.remove(worker)
            return News(worker, job, gone=str(gone))
        if job is None:
            self._shares[worker], done = said
            return News(worker, None, done)
        if MODEL in said.files:
            same_model(self._out, json.loads(said.files[MODEL]), self._plan.model)
        if not self._shares[worker] and not said.done.message:
            travel.keep(said.files, job.output, self._out)
        return News(worker, job, said.done)

    def dismiss(self) -> None:
        for worker in self._handles:
            self._ray.kill(worker)


def run_cluster(
    plan: Plan, out: Path, address: str, workers: int, opening: "dict[str, Any]", memory: Optional[float] = None,
    shared_folder: bool = True, tell: Say = say,
) -> "list[str]":
    """Does all jobs that are not done on the workers of a cluster: "local" starts one on this machine. Returns the ids of those
    that failed. shared_folder: False has files travel even to workers that see `out`."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise ClusterError("--cluster needs Ray: pip install 'ray>=2.9'") from None
    if not ray.is_initialized():
        # Workers find this package where the driver does.
        paths = {name: os.environ[name] for name in ("PYTHONPATH", "SITTER_LIBRARY") if name in os.environ}
        ray.init(address=None if address == "local" else address, log_to_driver=False, include_dashboard=False,
                 configure_logging=False, runtime_env={"env_vars": paths})
    wanted = resources(plan, opening, memory)
    jobs = prepare(plan, out)
    queue = Queue(jobs, [job.id for job in jobs if job.output.exists()])
    tell(f"{len(jobs)} jobs, {len(queue.done)} done already, {workers} workers of {wanted}")
    # Workers that see it share the folder; it is taken for unfinished, and so removed, whatever happens to this process.
    sign = f"{store.UNFINISHED}sign-{uuid.uuid4().hex}" if shared_folder else ""
    if sign:
        (out / sign).touch()
    actor = ray.remote(RemoteWorker).options(**wanted, max_restarts=0)
    crew = RayCrew(ray, lambda: actor.remote(plan, str(out), opening, sign), plan, out, queue.jobs, tell)
    try:
        run_jobs(queue, crew, workers, out, tell)
    finally:
        crew.dismiss()
        if address == "local":
            ray.shutdown()
    return sorted(queue.failed)


__all__ = ["ClusterError", "RayCrew", "RemoteWorker", "run_cluster"]
