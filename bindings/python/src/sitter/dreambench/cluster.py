"""The jobs of a run on several machines, by Ray (`pip install sitter[ray]`).

Each worker is a process that keeps its model open from job to job. A job whose worker or machine is gone is done again by another one:
jobs are there whole or not at all, and what they make depends on nothing but the plan. `--out` is a folder that all machines see.
"""
from __future__ import annotations

import importlib
import math
import os
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import sitter

from .driver import Say, failed_file, is_fatal, lacks, note_done, note_failure, prepare, say
from .plan import Job, Plan
from .worker import Worker

# How often a job is begun again because its worker is gone, before the worker's end is taken for the job's fault.
ATTEMPTS = 4


class Done:
    """What a worker says of a job, as it can travel."""

    def __init__(self, seconds: float, worker: str, message: str = "", fatal: bool = False) -> None:
        self.seconds, self.worker, self.message, self.fatal = seconds, worker, message, fatal


class RemoteWorker:
    """Runs in a process of its own somewhere."""

    def __init__(self, plan: Plan, out: str, opening: "dict[str, Any]") -> None:
        self._worker = Worker(plan, Path(out), opening)

    def do(self, job: Job) -> Done:
        begun, name = time.monotonic(), f"{os.uname().nodename}:{os.getpid()}"
        try:
            self._worker.do(job)
            return Done(time.monotonic() - begun, name)
        except Exception as error:
            return Done(time.monotonic() - begun, name, f"{type(error).__name__}: {error}", is_fatal(error))


class ClusterError(RuntimeError):
    """Ray is not there, or has no room."""


@dataclass
class Queue:
    """Which jobs can be done now. Knows nothing of Ray, so that it can be tried without."""

    jobs: "list[Job]"
    done: "set[str]" = field(default_factory=set)
    failed: "list[str]" = field(default_factory=list)
    running: "set[str]" = field(default_factory=set)
    attempts: "dict[str, int]" = field(default_factory=dict)

    def over(self) -> bool:
        return len(self.done) + len(self.failed) == len(self.jobs)

    def next(self, last_unit: str) -> Optional[Job]:
        """A job whose needs are met, of the unit that the worker is at if there is one: its subject is in memory there."""
        ready = [job for job in self.jobs if self._is_ready(job)]
        return next((job for job in ready if job.unit == last_unit), ready[0] if ready else None)

    def _is_ready(self, job: Job) -> bool:
        settled = self.done | set(self.failed)
        return job.id not in settled and job.id not in self.running and all(need in settled for need in job.needs)

    def begin(self, job: Job) -> None:
        self.running.add(job.id)
        self.attempts[job.id] = self.attempts.get(job.id, 0) + 1

    def lose(self, job: Job) -> bool:
        """The worker is gone. Whether the job is to be tried again."""
        self.running.discard(job.id)
        return self.attempts[job.id] < ATTEMPTS

    def end(self, job: Job, succeeded: bool) -> None:
        self.running.discard(job.id)
        if succeeded:
            self.done.add(job.id)
        else:
            self.failed.append(job.id)


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


def run_cluster(
    plan: Plan, out: Path, address: str, workers: int, opening: "dict[str, Any]", memory: Optional[float] = None, tell: Say = say
) -> "list[str]":
    """Does all jobs that are not done on the workers of a cluster: "local" starts one on this machine. Returns the ids of those
    that failed."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise ClusterError("--cluster needs Ray: pip install 'sitter[ray]'") from None
    if not ray.is_initialized():
        # Workers find this package where the driver does.
        paths = {name: os.environ[name] for name in ("PYTHONPATH", "SITTER_LIBRARY") if name in os.environ}
        ray.init(address=None if address == "local" else address, log_to_driver=False, include_dashboard=False,
                 configure_logging=False, runtime_env={"env_vars": paths})
    wanted = resources(plan, opening, memory)
    actor = ray.remote(RemoteWorker).options(**wanted, max_restarts=0)
    queue = Queue(prepare(plan, out))
    queue.done = {job.id for job in queue.jobs if job.output.exists()}
    tell(f"{len(queue.jobs)} jobs, {len(queue.done)} done already, {workers} workers of {wanted}")
    idle: "deque[tuple[Any, str]]" = deque()
    busy: "dict[Any, tuple[Any, Job]]" = {}
    made = 0

    def worker() -> "tuple[Any, str]":
        nonlocal made
        made += 1
        return actor.remote(plan, str(out), opening), ""

    try:
        while not queue.over():
            while len(idle) + len(busy) < workers:
                idle.append(worker())
            while idle:
                job = queue.next(idle[0][1])
                if job is None:
                    break
                missing = lacks(job, queue.failed)
                if missing:
                    note_failure(out, job, f"not done, because {missing} failed")
                    queue.end(job, False)
                    continue
                handle, _ = idle.popleft()
                queue.begin(job)
                busy[handle.do.remote(job)] = (handle, job)
            if not busy:
                continue
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=60)
            if not ready:
                tell(f"waiting: {len(busy)} jobs at work or in line for a machine with {wanted}")
            for reference in ready:
                handle, job = busy.pop(reference)
                try:
                    said: Done = ray.get(reference)
                except ray.exceptions.RayActorError as gone:
                    again = queue.lose(job)
                    tell(f"{job.id}: its worker is gone{'; it is done again' if again else ''}")
                    if not again:
                        note_failure(out, job, f"its worker was lost {ATTEMPTS} times: {gone}")
                        queue.end(job, False)
                    continue
                idle.append((handle, job.unit))
                if said.fatal:
                    raise ClusterError(f"{said.worker}: {said.message}")
                queue.end(job, not said.message)
                if said.message:
                    note_failure(out, job, said.message)
                    tell(f"{job.id} failed: {said.message}")
                else:
                    note_done(out, job, said.seconds, said.worker)
                    tell(f"[{len(queue.done)}/{len(queue.jobs)}] {job.id}  {said.seconds:.1f} s  {said.worker}")
    finally:
        for handle in [handle for handle, _ in idle] + [handle for handle, _ in busy.values()]:
            ray.kill(handle)
        if address == "local":
            ray.shutdown()
    return sorted(queue.failed)


__all__ = ["ClusterError", "Queue", "failed_file", "run_cluster"]
