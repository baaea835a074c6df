"""The folder of subjects and prompts: google/dreambooth as it is, or one of your own in the same form.

    dataset/prompts_and_classes.txt      lines "subject,class", then lists of object prompts and of live subjects' prompts
    dataset/dog/00.jpg 01.jpg ...        the pictures of each subject

The pictures and prompts of google/dreambooth: "DreamBooth dataset", Ruiz et al., CC-BY-4.0.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LIST = "prompts_and_classes.txt"
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
# Classes that the prompts for live subjects suit. A third word "live" or "object" in a subject's line says it of others.
LIVE = ("cat", "dog")


class DataError(ValueError):
    """The folder is not what is needed; the message says what is."""


@dataclass(frozen=True)
class Subject:
    name: str
    class_word: str
    live: bool
    pictures: "tuple[Path, ...]"


@dataclass(frozen=True)
class Data:
    folder: Path
    subjects: "tuple[Subject, ...]"
    object_prompts: "tuple[str, ...]"
    live_prompts: "tuple[str, ...]"

    def templates(self, subject: Subject) -> "list[str]":
        """Its prompts, with {} in the place of the identifier: "a {} dog in the snow"."""
        prompts = self.live_prompts if subject.live else self.object_prompts
        return [prompt.replace("{1}", subject.class_word).replace("{0}", "{}") for prompt in prompts]


def read(folder: "str | Path") -> Data:
    root = Path(folder)
    places = [root, root / "dataset"]
    found = next((place for place in places if (place / LIST).is_file()), None)
    if found is None:
        raise DataError(f"{root}: has no {LIST}, nor has its folder dataset; get github.com/google/dreambooth")
    lines = (found / LIST).read_text(encoding="utf-8").splitlines()
    classes: list[list[str]] = []
    prompts: dict[str, list[str]] = {"object": [], "live": []}
    kind = "object"
    for line in map(str.strip, lines):
        if line.lower().startswith("live"):
            kind = "live"
        quoted = re.match(r"""(['"])(.*\{0\}.*)\1""", line)
        if quoted:
            prompts[kind].append(quoted.group(2))
        elif re.fullmatch(r"[^,'\[\]]+(,[^,'\[\]]+){1,2}", line) and line != "subject_name,class":
            classes.append([part.strip() for part in line.split(",")])
    if not classes or not prompts["object"]:
        raise DataError(f"{found / LIST}: has {len(classes)} subjects and {len(prompts['object'])} prompts; both are needed")
    subjects = tuple(_subject(found, *parts) for parts in classes)
    return Data(found, subjects, tuple(prompts["object"]), tuple(prompts["live"] or prompts["object"]))


def _subject(folder: Path, name: str, class_word: str, kind: str = "") -> Subject:
    place = folder / name
    if not place.is_dir():
        raise DataError(f"{place}: is not there, but {LIST} names it")
    pictures = tuple(sorted(p for p in place.iterdir() if p.suffix.lower() in PICTURES))
    if not pictures:
        raise DataError(f"{place}: has no pictures ({', '.join(PICTURES)})")
    return Subject(name, class_word, kind == "live" or (not kind and class_word in LIVE), pictures)
