"""From the scores of subjects to those of a run: results.json and results.csv. Nothing in them depends on when or where the run
was made."""
from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterable, Optional

import sitter

from . import published, store
from .driver import failed_file
from .plan import PER_PROMPT, Plan
from .worker import MODEL, pictures_in

MEANS = ("dino", "dino_one", "dino_max", "clip_i", "clip_i_one", "clip_i_max", "clip_t", "clip_t_class", "clip_t_prompt")
# Numbers of a vector, side of a patch, layers.
PUBLISHED_NETWORKS = {"dino": (384, 16, 12, "ViT-S/16"), "clip": (512, 32, 12, "ViT-B/32")}
COLUMNS = ("unit", "subject", "class_word", "prompt", "text", "file", *MEANS, "nearest", "copy")


def mean(values: "Iterable[Optional[float]]") -> Optional[float]:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def collect(plan: Plan, out: Path) -> "dict[str, Any]":
    """All results that there are."""
    jobs = {job.id: job for job in plan.jobs(out)}
    noted = [failed_file(out, name) for name in jobs]
    failed = [store.read_json(path) for path in noted if path.exists()]
    units = []
    for unit in plan.units:
        taught, score = jobs[f"teach/{unit.name}"].output, jobs.get(f"score/{unit.name}")
        entry: dict[str, Any] = {
            "unit": unit.name, "subject": unit.subject, "class_word": unit.class_word, "references": unit.references,
            "scores": store.read_json(score.output) if score and score.output.exists() else None,
            "taught": None, "losses": [], "drawn": [],
        }
        if taught.exists():
            subject = sitter.Subject.load(taught)
            entry["taught"], entry["losses"] = subject.info, subject.losses
        for prompt, template in unit.templates.items():
            for path in pictures_in(jobs[f"draw/{unit.name}/{prompt}"].output):
                entry["drawn"].append({"name": path.relative_to(out).as_posix(), "text": template})
        units.append(entry)
    scored = [unit["scores"] for unit in units if unit["scores"]]
    model = out / MODEL
    networks = [scores["networks"] for scores in scored]
    return {
        "plan": {name: value for name, value in asdict(plan).items() if name not in ("units", "data", "networks")},
        "prompts": max((len(unit.templates) for unit in plan.units), default=0),
        "model": store.read_json(model) if model.exists() else None,
        "rules": scored[0]["rules"] if scored else None,
        "networks": networks[0] if networks else None,
        "one_set_of_networks": all(one == networks[0] for one in networks),
        "overall": overall(plan.protocol, scored),
        "units": units,
        "failed": failed,
    }


def overall(protocol: str, scored: "list[dict[str, Any]]") -> "dict[str, Any]":
    """Means over the run, as the protocol takes them: C over all pictures at once, the others over subjects."""
    pictures = [one for scores in scored for one in scores["each"]]
    weigh = pictures if protocol == "C" else scored
    found: dict[str, Any] = {name: mean(one[name] for one in weigh) for name in MEANS}
    copies = [scores["copies"] for scores in scored if scores["copies"] is not None]

    def of(part: str, name: str) -> Optional[float]:
        return mean(scores[part][name] for scores in scored if scores[part])

    found.update(
        subjects=len(scored),
        pictures=len(pictures),
        copies=sum(copies) if copies else None,
        real={"dino": of("real", "dino"), "clip_i": of("real", "clip_i")},
        leakage=leakage(scored),
        pres=of("leakage", "pres"),
        diversity=mean(scores["diversity"] for scores in scored),
        unreadable=sum(len(scores["failed"]) for scores in scored),
    )
    return found


def leakage(scored: "list[dict[str, Any]]") -> Optional[float]:
    """The share of all subjects together: a subject that is hardly nearer to its references than the class was would tip a mean of
    shares."""
    of = [(scores["leakage"], scores["dino"]) for scores in scored if (scores["leakage"] or {}).get("untouched") is not None]
    gone = sum(one["pres"] - one["untouched"] for one, _ in of)
    way = sum(dino - one["untouched"] for one, dino in of)
    return gone / way if way > 0 else None


def shortfall(results: "dict[str, Any]") -> str:
    """Why these numbers do not stand beside published ones, even those of the same protocol; empty if they do."""
    plan, reasons = results["plan"], []
    subjects = len({unit["subject"] for unit in results["units"] if unit["scores"]})
    for found, wanted, what in (
        (subjects, 30, "subjects"), (results["prompts"], 25, "prompts"),
        (plan["per_prompt"], PER_PROMPT[plan["protocol"]], "pictures of a prompt"),
    ):
        if found != wanted:
            reasons.append(f"{found} {what}, not {wanted}")
    for name, (size, patch, layers, title) in PUBLISHED_NETWORKS.items():
        network = (results["networks"] or {}).get(name)
        if network and (network["size"], network["patch"], network["layers"]) != (size, patch, layers):
            reasons.append(f"{name.upper()} is not {title}")
    if plan["protocol"] == "D":
        reasons.append("D is published for 16 other subjects")
    if results["failed"] or results["overall"]["unreadable"]:
        reasons.append("some jobs or pictures failed")
    return "; ".join(reasons)


def table(results: "dict[str, Any]") -> "list[dict[str, Any]]":
    """Our row and the published ones; `unlike` says why a row cannot be compared."""
    protocol, ours, own = results["plan"]["protocol"], results["overall"], shortfall(results)
    rows = [{
        "method": results["plan"]["method"], "base": (results["model"] or {}).get("name") or results["plan"]["model"],
        "protocol": protocol, "dino": ours["dino"], "clip_i": ours["clip_i"], "clip_t": ours["clip_t"],
        "source": "this run", "unlike": own,
    }]
    if ours["real"]["dino"] is not None or ours["real"]["clip_i"] is not None:
        rows.append({"method": "real pictures", "base": "", "protocol": protocol, **ours["real"], "clip_t": None,
                     "source": "this run", "unlike": own})
    for row in published.ROWS:
        rows.append({**row._asdict(), "unlike": published.comparable(protocol, row.protocol)})
    return rows


def as_csv(results: "dict[str, Any]") -> str:
    """A line for each picture."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for unit in results["units"]:
        for one in (unit["scores"] or {"each": []})["each"]:
            path = Path(one["name"])
            line = {name: one[name] for name in (*MEANS, "nearest", "copy", "text")}
            line.update(unit=unit["unit"], subject=unit["subject"], class_word=unit["class_word"], prompt=path.parent.name)
            writer.writerow({**line, "file": one["name"]})
    return text.getvalue()


def write(plan: Plan, out: Path) -> "dict[str, Any]":
    """Writes results.json and results.csv, and gives the results."""
    results = collect(plan, out)
    results["table"] = table(results)
    store.write_json(out / "results.json", results)
    store.write_text(out / "results.csv", as_csv(results))
    return results
