"""Which job is next, what failed, and how far a run is."""
from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional

import sitter

from . import store
from .plan import Job, Plan
from .worker import CannotOpen, Worker, WrongModel

Say = Callable[[str], None]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def failed_file(out: Path, job_id: str) -> Path:
    return out / "failed" / (job_id.replace("/", "+") + ".json")


def is_fatal(error: BaseException) -> bool:
    """Whether the run cannot go on: a full disk, say, or another model, is no fault of the job."""
    if isinstance(error, (CannotOpen, WrongModel, sitter.LibraryError)):
        return True
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


def prepare(plan: Plan, out: Path) -> "list[Job]":
    """All jobs. What failed before is to be tried again."""
    jobs = plan.jobs(out)
    for job in jobs:
        failed_file(out, job.id).unlink(missing_ok=True)
        if job.kind == "score" and any(not other.output.exists() for other in jobs if other.id in job.needs):
            # Scored with less than there is to be.
            job.output.unlink(missing_ok=True)
    return jobs


def run_local(plan: Plan, out: Path, opening: "Optional[dict[str, Any]]" = None, tell: Say = say) -> "list[str]":
    """Does all jobs that are not done, one after the other. Returns the ids of those that failed; they are tried again by the
    next run."""
    jobs = prepare(plan, out)
    worker = Worker(plan, out, opening)
    todo = [job for job in jobs if not job.output.exists()]
    tell(f"{len(jobs)} jobs, {len(jobs) - len(todo)} done already")
    failed: list[str] = []
    for i, job in enumerate(todo, 1):
        missing = lacks(job, failed)
        if missing:
            note_failure(out, job, f"not done, because {missing} failed")
            failed.append(job.id)
            continue
        begun = time.monotonic()
        try:
            worker.do(job)
        except Exception as error:
            if is_fatal(error):
                raise
            note_failure(out, job, f"{type(error).__name__}: {error}")
            failed.append(job.id)
            tell(f"[{i}/{len(todo)}] {job.id} failed: {error}")
            continue
        note_done(out, job, time.monotonic() - begun)
        tell(f"[{i}/{len(todo)}] {job.id}  {time.monotonic() - begun:.1f} s")
    return failed


def lacks(job: Job, failed: "list[str]") -> Optional[str]:
    """Which job, without which this one has no sense, failed. A folder is scored with the pictures that there are."""
    needed = [need for need in job.needs if need in failed]
    if job.kind == "score":
        draws = [need for need in job.needs if need.startswith("draw/")]
        return draws[0] if all(need in failed for need in draws) else None
    return needed[0] if needed else None


def note_failure(out: Path, job: Job, message: str) -> None:
    store.write_json(failed_file(out, job.id), {"job": job.id, "message": message})


def note_done(out: Path, job: Job, seconds: float, worker: str = "") -> None:
    """Times stand in a log of their own, because they differ from run to run and results do not."""
    line = {"job": job.id, "at": round(time.time(), 3), "seconds": round(seconds, 3), "worker": worker or str(os.getpid())}
    store.append_line(out / "log.jsonl", line)
