"""Does jobs, with a model and networks that stay open between them."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import sitter

from . import store
from .plan import Job, Plan, Unit


# What a run notes of its model, and where.
FACTS = ("family", "name", "fingerprint", "parameters", "dtype", "device")
MODEL = "model.json"


class WrongModel(RuntimeError):
    """The model is another than the run began with."""


class CannotOpen(RuntimeError):
    """The model or a network, without which no job can be done."""


def same_model(out: Path, facts: "dict[str, Any]", name: str) -> None:
    """Notes the model of a run that begins, and sees that it is the same ever after."""
    path = out / MODEL
    if not path.exists():
        store.write_json(path, facts)
    before = store.read_json(path)
    if (before["fingerprint"], before["dtype"]) != (facts["fingerprint"], facts["dtype"]):
        raise WrongModel(f"{name}: is not the model, or not in the dtype, that this run began with ({path})")


class Worker:
    def __init__(self, plan: Plan, out: Path, opening: "Optional[dict[str, Any]]" = None) -> None:
        self._plan, self._out = plan, out
        self._opening = opening or {}
        self._model: Optional[sitter.Model] = None
        self._networks: Optional[sitter.Evaluator] = None
        self._subject: "Optional[tuple[str, sitter.Subject]]" = None

    @property
    def holds(self) -> str:
        """The unit whose subject is in memory."""
        return self._subject[0] if self._subject else ""

    def move(self, plan: Plan, out: Path) -> None:
        """Works in other folders from now on, with what is open."""
        self._plan, self._out = plan, out

    def do(self, job: Job) -> None:
        """Does one job; nothing if it is done already."""
        if not job.output.exists():
            job.output.parent.mkdir(parents=True, exist_ok=True)
            getattr(self, f"_{job.kind}")(job)

    def _open(self) -> sitter.Model:
        if self._model is None:
            try:
                model = sitter.Model.open(self._plan.model, **self._opening)
            except sitter.Error as error:
                raise CannotOpen(str(error)) from error
            info = model.info
            same_model(self._out, {name: info.get(name) for name in FACTS}, self._plan.model)
            self._model = model
        return self._model

    def _taught(self, unit: str) -> sitter.Subject:
        if self._subject is None or self._subject[0] != unit:
            self._subject = (unit, sitter.Subject.load(self._out / "subjects" / f"{unit}.safetensors"))
        return self._subject[1]

    def _teach(self, job: Job) -> None:
        plan, unit = self._plan, self._plan.unit(job.unit)
        subject = self._open().train(
            [str(path) for path in plan.pictures(unit)],
            unit.class_word,
            identifier=plan.identifier,
            method=plan.method,
            seed=plan.seed_of("teach", unit.name),
            **plan.train,
        )
        subject.save(job.output)
        self._subject = (unit.name, subject)

    def _draw(self, job: Job) -> None:
        text = self._plan.unit(job.unit).templates[job.prompt].replace("{}", self._plan.identifier)
        self._pictures(job, text, self._plan.per_prompt, [self._taught(job.unit)], "draw", job.unit, job.prompt)

    def _class(self, job: Job) -> None:
        unit = self._plan.unit(job.unit)
        self._plain(job, unit.class_word, [self._taught(unit.name)])

    def _untouched(self, job: Job) -> None:
        self._plain(job, job.unit, [])

    def _plain(self, job: Job, class_word: str, subjects: "list[sitter.Subject]") -> None:
        # With the subject and without it from the same seed: what differs is what the subject did.
        self._pictures(job, f"a photo of a {class_word}", self._plan.class_pictures, subjects, "class", class_word)

    def _pictures(self, job: Job, text: str, count: int, subjects: "list[sitter.Subject]", *seed: str) -> None:
        drawn = self._open().sample(
            text, count=count, seed=self._plan.seed_of(*seed), subjects=subjects, **self._plan.sample
        )
        with store.folder(job.output) as folder:
            for i, sample in enumerate(drawn):
                sample.save(folder / f"{i}.png")

    def _score(self, job: Job) -> None:
        plan, unit = self._plan, self._plan.unit(job.unit)
        if self._networks is None:
            try:
                self._networks = sitter.Evaluator.open(**plan.networks)
            except sitter.Error as error:
                raise CannotOpen(str(error)) from error
        files, texts = [], []
        for prompt, template in unit.templates.items():
            # A prompt whose drawing failed is missing here, and listed in the report.
            found = pictures_in(self._out / "pictures" / unit.name / prompt)
            files += found
            texts += [template] * len(found)
        scores = self._networks.score(
            files,
            plan.pictures(unit),
            texts=texts,
            protocol=plan.protocol,
            identifier=plan.identifier,
            class_pictures=pictures_in(self._out / "class" / unit.name),
            untouched=pictures_in(self._out / "untouched" / unit.class_word),
        )
        store.write_json(job.output, portable(scores.data, self._out, Path(plan.data)))


def pictures_in(folder: Path) -> "list[Path]":
    """What was drawn into a folder, in order; none if it is not there."""
    return sorted(folder.glob("*.png"), key=lambda path: (len(path.name), path.name)) if folder.is_dir() else []


def portable(value: Any, *roots: Path) -> Any:
    """The same with paths below the roots written from there, so that a result does not depend on where it was made."""
    text = json.dumps(value)
    for root in roots:
        text = text.replace(json.dumps(str(root) + "/")[1:-1], "")
    return json.loads(text)


__all__ = ["MODEL", "CannotOpen", "Unit", "Worker", "WrongModel", "pictures_in", "portable", "same_model"]
