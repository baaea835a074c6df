"""Scores of a folder of anybody's pictures."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Optional

import sitter

from . import report, store, summary
from .data import PICTURES, DataError
from .worker import portable


def pictures_of(folder: Optional[Path]) -> "list[Path]":
    if folder is None:
        return []
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder of pictures")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not found:
        raise DataError(f"{folder}: has no pictures ({', '.join(PICTURES)})")
    return found


def texts_of(pictures: "list[Path]", default: str) -> "list[str]":
    """What the pictures were to show."""
    listed = pictures[0].parent / "texts.json"
    known: dict[str, str] = store.read_json(listed) if listed.exists() else {}
    texts = []
    for picture in pictures:
        beside = picture.with_suffix(".txt")
        own = beside.read_text(encoding="utf-8").strip() if beside.exists() else known.get(picture.name)
        texts.append(default if own is None else own)
    return texts


def evaluate_folder(given: argparse.Namespace, networks: "dict[str, Any]") -> "dict[str, Any]":
    drawn, references = pictures_of(given.pictures.resolve()), pictures_of(given.references.resolve())
    with sitter.Evaluator.open(**networks) as evaluator:
        scores = evaluator.score(
            drawn, references, texts=texts_of(drawn, given.text), protocol=given.protocol, identifier=given.identifier,
            class_pictures=pictures_of(given.class_pictures), untouched=pictures_of(given.untouched),
            progress=True,
        )
    folder, real = drawn[0].parent, references[0].parent
    data = portable(scores.data, folder, real)
    unit = {"unit": folder.name, "subject": folder.name, "class_word": "", "references": [path.name for path in references],
            "scores": data, "taught": None, "losses": [], "drawn": []}
    results: dict[str, Any] = {
        "plan": {"protocol": given.protocol, "method": folder.name, "model": "", "per_prompt": "?", "seed": "?"},
        "prompts": data["texts"], "model": None, "rules": data["rules"], "networks": data["networks"],
        "one_set_of_networks": True, "overall": summary.overall(given.protocol, [data]), "units": [unit], "failed": [],
    }
    results["table"] = summary.table(results)
    if given.out is not None:
        out = given.out.resolve()
        store.write_json(out / "results.json", results)
        store.write_text(out / "results.csv", summary.as_csv(results))
        store.write_text(out / "report.html", report.html(results, folder, real))
    return results
