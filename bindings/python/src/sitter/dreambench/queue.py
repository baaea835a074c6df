"""Which job is done next, and by whom: jobs in an order that their needs allow, workers that come and go.

Knows nothing of how workers are reached, so that it can be tried, and its cost measured, without machines.
"""
from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Optional, Protocol

from .driver import Say, lacks, note_done, note_failure
from .plan import Job

# How often a job is begun again because its worker is gone, before the worker's end is taken for the job's fault; and how many
# workers in a row may end before they are up.
ATTEMPTS = 4


class ClusterError(RuntimeError):
    """Workers cannot be had, or cannot work."""


@dataclass
class Done:
    """What a worker says of a job."""

    seconds: float
    worker: str
    holds: str = ""
    """The unit whose subject the worker has in memory now."""
    message: str = ""
    """Why the job failed; empty if it did not."""
    fatal: bool = False


@dataclass
class News:
    """What happened to a worker."""

    worker: Any
    job: Optional[Job] = None
    """What it was doing; None while it starts."""
    done: Optional[Done] = None
    """None if it is gone, or if it is up now and waits for its first job."""
    gone: str = ""
    """Why the worker is no more."""


class Crew(Protocol):
    """Workers somewhere, each of which does one job at a time."""

    def hire(self) -> None:
        """Begins a worker. News of it with neither a job nor an end say that it is up."""

    def give(self, worker: Any, job: Job, holds: str) -> None: ...

    def news(self) -> "list[News]":
        """Waits for some; none if nothing happened for long."""


class Queue:
    """Jobs that are not settled yet."""

    def __init__(self, jobs: "Iterable[Job]", done: "Iterable[str]" = ()) -> None:
        self.jobs = {job.id: job for job in jobs}
        self.done = {name for name in done if name in self.jobs}
        self.failed: list[str] = []
        self._attempts: dict[str, int] = {}
        self._place = {name: i for i, name in enumerate(self.jobs)}
        self._behind: dict[str, list[str]] = {}
        self._lacking: dict[str, int] = {}
        # Ready jobs by their place in the order, of all and of each unit; those that are ready no more are skipped when met.
        self._ready: set[str] = set()
        self._order: list[tuple[int, str]] = []
        self._of_unit: dict[str, list[tuple[int, str]]] = {}
        for name, job in self.jobs.items():
            lacking = [need for need in job.needs if need not in self.done]
            self._lacking[name] = len(lacking)
            for need in lacking:
                self._behind.setdefault(need, []).append(name)
            if not lacking and name not in self.done:
                self._offer(name)

    def left(self) -> int:
        """How many jobs are not settled."""
        return len(self.jobs) - len(self.done) - len(self.failed)

    def begin(self, unit: str = "") -> Optional[Job]:
        """A job whose needs are met, of this unit if there is one; None if all that is left waits for others."""
        name = self._first(self._of_unit.get(unit, [])) or self._first(self._order)
        if name is None:
            return None
        self._ready.discard(name)
        self._attempts[name] = self._attempts.get(name, 0) + 1
        return self.jobs[name]

    def lose(self, job: Job) -> bool:
        """The worker is gone. Whether the job is to be tried again."""
        again = self._attempts[job.id] < ATTEMPTS
        if again:
            self._offer(job.id)
        return again

    def end(self, job: Job, succeeded: bool) -> None:
        if succeeded:
            self.done.add(job.id)
        else:
            self.failed.append(job.id)
        for name in self._behind.get(job.id, []):
            self._lacking[name] -= 1
            if self._lacking[name] == 0 and name not in self.done:
                self._offer(name)

    def _offer(self, name: str) -> None:
        self._ready.add(name)
        entry = (self._place[name], name)
        heapq.heappush(self._order, entry)
        heapq.heappush(self._of_unit.setdefault(self.jobs[name].unit, []), entry)

    def _first(self, heap: "list[tuple[int, str]]") -> Optional[str]:
        while heap and heap[0][1] not in self._ready:
            heapq.heappop(heap)
        return heap[0][1] if heap else None


def run_jobs(queue: Queue, crew: Crew, workers: int, out: Path, tell: Say) -> None:
    """Does all jobs of the queue with so many workers, and writes down what was done and what failed."""
    idle: "deque[tuple[Any, str]]" = deque()
    hired, lost_in_a_row = 0, 0
    while queue.left():
        while hired < min(workers, queue.left()):
            crew.hire()
            hired += 1
        while idle:
            worker, holds = idle[0]
            job = queue.begin(holds)
            if job is None:
                break
            missing = lacks(job, queue.failed)
            if missing:
                note_failure(out, job, f"not done, because {missing} failed")
                queue.end(job, False)
                continue
            idle.popleft()
            crew.give(worker, job, holds)
        if not queue.left():
            break
        for news in crew.news():
            job, done = news.job, news.done
            if done is not None and done.fatal:
                raise ClusterError(f"{done.worker}: {done.message}")
            if news.gone:
                hired -= 1
                if job is None:
                    lost_in_a_row += 1
                    if lost_in_a_row >= ATTEMPTS:
                        raise ClusterError(f"workers do not start: {news.gone}")
                    continue
                again = queue.lose(job)
                tell(f"{job.id}: its worker is gone{'; it is done again' if again else ''}")
                if not again:
                    note_failure(out, job, f"its worker was lost {ATTEMPTS} times: {news.gone}")
                    queue.end(job, False)
                continue
            lost_in_a_row = 0
            idle.append((news.worker, done.holds if done else ""))
            if job is None or done is None:
                continue
            queue.end(job, not done.message)
            if done.message:
                note_failure(out, job, done.message)
                tell(f"{job.id} failed: {done.message}")
            else:
                note_done(out, job, done.seconds, done.worker)
                tell(f"[{len(queue.done)}/{len(queue.jobs)}] {job.id}  {done.seconds:.1f} s  {done.worker}")


__all__ = ["ATTEMPTS", "ClusterError", "Crew", "Done", "News", "Queue", "run_jobs"]
