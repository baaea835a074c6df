"""What a run consists of: its settings, which never change once it has begun, and its jobs."""
from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterable, Optional

from . import store
from .data import Data, DataError

# Pictures of each prompt that the protocols draw.
PER_PROMPT = {"A": 4, "B": 1, "C": 4, "D": 8}
FILE = "plan.json"


class PlanError(ValueError):
    """The settings contradict each other or those that the folder's run began with."""


@dataclass(frozen=True)
class Unit:
    """What is taught and scored together: a subject, or in protocol C a subject by one of its pictures."""

    name: str
    subject: str
    class_word: str
    references: "list[str]"
    """Below the folder of the data."""
    templates: "dict[str, str]"
    """By the number of the prompt, from 01."""


@dataclass(frozen=True)
class Job:
    """A piece of work that is done or not. Its `output` is there if it is done."""

    kind: str
    """teach, draw, class, untouched or score."""
    unit: str
    """Of `untouched`, the class."""
    prompt: str
    """Number of the prompt, for draw."""
    output: Path
    needs: "tuple[str, ...]" = ()

    @property
    def id(self) -> str:
        return "/".join(part for part in (self.kind, self.unit, self.prompt) if part)


@dataclass(frozen=True)
class Plan:
    data: str
    model: str
    protocol: str
    method: Any
    """Its name; which there are is for the library to say."""
    identifier: str
    seed: int
    per_prompt: int
    class_pictures: int
    """Drawn of the plain class word, with the subject and without it; 0 leaves leakage out."""
    train: "dict[str, Any]"
    sample: "dict[str, Any]"
    networks: "dict[str, Any]"
    units: "list[Unit]" = field(default_factory=list)

    @classmethod
    def make(
        cls, data: Data, subjects: Optional[Iterable[str]] = None, prompts: Optional[Iterable[int]] = None, **settings: Any
    ) -> "Plan":
        known = {subject.name: subject for subject in data.subjects}
        chosen = list(subjects or known)
        for name in chosen:
            if name not in known:
                raise PlanError(f"--subjects: there is no {name}; there are {', '.join(known)}")
        units = []
        for subject in (known[name] for name in dict.fromkeys(chosen)):
            templates = data.templates(subject)
            wanted = sorted(set(prompts or range(1, len(templates) + 1)))
            if not 1 <= wanted[0] <= wanted[-1] <= len(templates):
                raise PlanError(f"--prompts: {wanted[0]} to {wanted[-1]}; there are 1 to {len(templates)}")
            texts = {f"{number:02}": templates[number - 1] for number in wanted}
            references = [str(path.relative_to(data.folder)) for path in subject.pictures]
            if settings["protocol"] == "C":
                units += [
                    Unit(f"{subject.name}-{Path(one).stem}", subject.name, subject.class_word, [one], texts)
                    for one in references
                ]
            else:
                units.append(Unit(subject.name, subject.name, subject.class_word, references, texts))
        return cls(data=str(data.folder.resolve()), units=units, **settings)

    @classmethod
    def load(cls, out: Path) -> "Plan":
        found = store.read_json(out / FILE)
        units = [Unit(**unit) for unit in found.pop("units")]
        return cls(units=units, **found)

    def begin(self, out: Path) -> None:
        """Writes the plan down, or sees that the folder's run has the same."""
        path = out / FILE
        if not path.exists():
            store.write_json(path, asdict(self))
            return
        before, now = store.read_json(path), asdict(self)
        changed = [name for name in now if before.get(name) != now[name]]
        if changed == ["networks"] and not any(before["networks"].values()):
            # Drawn without scores, which are to be made now.
            store.write_json(path, now)
            return
        if changed:
            told = ", ".join("subjects or prompts" if name == "units" else name for name in changed)
            raise PlanError(f"{out}: holds a run with other settings ({told}); name another --out, or take these back")

    def unit(self, name: str) -> Unit:
        return next(unit for unit in self.units if unit.name == name)

    def pictures(self, unit: Unit) -> "list[Path]":
        return [Path(self.data) / reference for reference in unit.references]

    def seed_of(self, *parts: str) -> int:
        """The same for the same job, whoever does it and when."""
        digest = hashlib.sha256("/".join((str(self.seed), *parts)).encode()).digest()
        return int.from_bytes(digest[:7], "little")

    def jobs(self, out: Path) -> "list[Job]":
        """In an order in which each comes behind those that it needs."""
        jobs, classes = [], set()
        for unit in self.units:
            teach = Job("teach", unit.name, "", out / "subjects" / f"{unit.name}.safetensors")
            jobs.append(teach)
            needs = []
            for prompt in unit.templates:
                draw = Job("draw", unit.name, prompt, out / "pictures" / unit.name / prompt, (teach.id,))
                jobs.append(draw)
                needs.append(draw.id)
            if self.class_pictures:
                if unit.class_word not in classes:
                    classes.add(unit.class_word)
                    jobs.append(Job("untouched", unit.class_word, "", out / "untouched" / unit.class_word))
                plain = Job("class", unit.name, "", out / "class" / unit.name, (teach.id,))
                jobs.append(plain)
                needs += [plain.id, f"untouched/{unit.class_word}"]
            if any(self.networks.values()):
                jobs.append(Job("score", unit.name, "", out / "scores" / f"{unit.name}.json", tuple(needs)))
        return jobs


__all__ = ["DataError", "Job", "PER_PROMPT", "Plan", "PlanError", "Unit"]
