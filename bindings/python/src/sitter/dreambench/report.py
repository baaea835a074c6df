"""report.html: one file that needs no network."""
from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, Optional

from . import store
from .drawings import curve, histogram, thumbnail

SIDE = 96

STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; --mark: #c33; --bar: #58a; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; }
th { position: sticky; top: 0; background: Canvas; white-space: nowrap; }
table.sortable th { cursor: pointer; }
th[aria-sort=ascending]::after { content: " \\2191"; } th[aria-sort=descending]::after { content: " \\2193"; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.ours { font-weight: 600; } tr.unlike { color: var(--dim); }
figure { display: inline-block; margin: .3rem; vertical-align: top; }
figcaption { font-size: 12px; color: var(--dim); max-width: 19rem; }
.sheet figure { width: 100px; } .sheet img { max-width: 96px; max-height: 96px; display: block; }
.sheet .copy img { outline: 3px solid var(--mark); } .sheet figcaption { font-size: 10px; line-height: 1.2; }
.references { border-bottom: 1px solid var(--line); margin-bottom: .3rem; }
svg { display: block; width: 19rem; overflow: visible; } svg text { font-size: 10px; fill: var(--dim); }
.bars rect { fill: var(--bar); } .mark { stroke: var(--mark); stroke-width: 2; }
.curve polyline { fill: none; stroke: var(--bar); } .curve .embedding { stroke: var(--mark); }
details { margin: .6rem 0; } summary { cursor: pointer; }
"""

SCRIPT = """
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener('click', () => {
    const up = head.getAttribute('aria-sort') === 'descending';
    heads.forEach((other) => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === '' || y === '') return (x === '') - (y === '');
      const number = head.classList.contains('number');
      return (number ? x - y : x.localeCompare(y)) * (up ? 1 : -1);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}
"""


def number(value: Optional[float], digits: int = 3) -> str:
    if value is None:
        return '<td class="number" data-value=""></td>'
    return f'<td class="number" data-value="{value!r}">{value:.{digits}f}</td>'


def whole(value: Optional[int]) -> str:
    return f'<td class="number" data-value="{"" if value is None else value}">{"" if value is None else value}</td>'


def heads(names: "list[str]", numbers: "set[str]") -> str:
    cells = "".join(f'<th{" class=number" if name in numbers else ""}>{escape(name)}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>"


def comparison(results: "dict[str, Any]") -> str:
    rows = []
    for row in results["table"]:
        kind = " ".join(["ours"] * (row["source"] == "this run") + ["unlike"] * bool(row["unlike"]))
        cells = [f"<td>{escape(row[name])}</td>" for name in ("method", "base", "protocol")]
        cells += [number(row[name]) for name in ("dino", "clip_i", "clip_t")]
        cells += [f"<td>{escape(row['source'])}</td>", f"<td>{escape(row['unlike'])}</td>"]
        rows.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    names = ["method", "model", "protocol", "DINO", "CLIP-I", "CLIP-T", "source", "not comparable because"]
    head = heads(names, {"DINO", "CLIP-I", "CLIP-T"})
    return f'<table class="sortable" id="comparison">{head}<tbody>{"".join(rows)}</tbody></table>'


def subjects(results: "dict[str, Any]") -> str:
    rows = []
    for unit in results["units"]:
        scores, taught = unit["scores"], unit["taught"]
        cells = [f"<td><a href=\"#{escape(unit['unit'])}\">{escape(unit['unit'])}</a></td>", f"<td>{escape(unit['class_word'])}</td>"]
        cells += [number(_inner(scores, name)) for name in ("dino", "clip_i", "clip_t")]
        cells += [whole(_inner(scores, name)) for name in ("pictures", "copies")]
        cells += [number(_inner(scores, "real", "dino")), number(_inner(scores, "leakage", "share"), 2)]
        cells += [number(_inner(scores, "diversity"))]
        cells += [number(_inner(taught, "last_loss"))]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    names = ["subject", "class", "DINO", "CLIP-I", "CLIP-T", "pictures", "copies", "real DINO", "leakage", "diversity", "last loss"]
    return f'<table class="sortable" id="subjects">{heads(names, set(names[2:]))}<tbody>{"".join(rows)}</tbody></table>'


def _inner(value: Any, *names: str) -> Any:
    for name in names:
        value = value and value.get(name)
    return value


def distributions(results: "dict[str, Any]") -> str:
    each = [one for unit in results["units"] if unit["scores"] for one in unit["scores"]["each"]]
    real = results["overall"]["real"]
    parts = []
    for name, title, mark in (("dino", "DINO", real["dino"]), ("clip_i", "CLIP-I", real["clip_i"]), ("clip_t", "CLIP-T", None)):
        values = [one[name] for one in each if one[name] is not None]
        if values:
            parts.append(histogram(values, title, [("real pictures", mark)] if mark is not None else []))
    return "".join(parts)


def sheet(unit: "dict[str, Any]", out: Path, data: Path) -> str:
    def figure(path: Path, caption: str, kind: str = "") -> str:
        small = thumbnail(path, SIDE)
        inside = f'<img src="{small}" alt="{escape(caption)}">' if small else "not readable"
        return f'<figure class="{kind}">{inside}<figcaption>{escape(caption)}</figcaption></figure>'

    parts = ['<div class="references">']
    parts += [figure(data / name, Path(name).name) for name in unit["references"]]
    parts.append("</div>")
    shown = set()
    for one in (unit["scores"] or {"each": unit["drawn"]})["each"]:
        place = Path(one["name"]).parent
        if place.name in shown and place.name:
            # One of each prompt, so that the file stays small.
            continue
        shown.add(place.name)
        found = ", ".join(f"{one[name]:.2f}" for name in ("dino", "clip_i", "clip_t") if one.get(name) is not None)
        parts.append(figure(out / one["name"], f"{one['text'].replace('{} ', '')} {found}", "copy" if one.get("copy") else ""))
    losses = curve([(stage, step, loss) for stage, step, loss in unit["losses"]]) if unit["losses"] else ""
    name = escape(unit["unit"])
    return (f'<details open id="{name}"><summary>{name}, {escape(unit["class_word"])}</summary>'
            f'<div class="sheet">{"".join(parts)}</div>{losses}</details>')


def failures(results: "dict[str, Any]") -> str:
    listed = [(one["job"], one["message"]) for one in results["failed"]]
    for unit in results["units"]:
        for one in (unit["scores"] or {"failed": []})["failed"]:
            listed.append((f"{unit['unit']}: {one['role']} {one['name']}", one["message"]))
    if not listed:
        return "<p>Nothing failed.</p>"
    rows = "".join(f"<tr><td>{escape(what)}</td><td>{escape(why)}</td></tr>" for what, why in listed)
    return f'<table id="failures">{heads(["what", "why"], set())}<tbody>{rows}</tbody></table>'


def facts(results: "dict[str, Any]") -> str:
    rules, overall, plan = results["rules"], results["overall"], results["plan"]
    lines = [f"Protocol {plan['protocol']}, {overall['subjects']} subjects, {overall['pictures']} pictures, "
             f"{plan['per_prompt']} of each prompt, seed {plan['seed']}."]
    if rules:
        lines.append(f"DINO sees: {rules['dino_view']}. CLIP sees: {rules['clip_view']}. References: {rules['references']}. "
                     f"Text: {rules['text']}. Average: {rules['average']}.")
    if not results["one_set_of_networks"]:
        lines.append("Careful: not all subjects were scored with the same networks.")
    for name in ("dino", "clip"):
        network = _inner(results["networks"], name)
        if network:
            files = ", ".join(f"{one['file']} {one['sha256'][:16]}" for one in network["files"])
            lines.append(f"{name.upper()}: {network['layers']} layers, patches of {network['patch']}; SHA-256 {files}.")
    if overall["copies"] is not None:
        lines.append(f"{overall['copies']} pictures are copies: as like a reference as the two references most alike.")
    if overall["leakage"] is not None:
        lines.append(f"Leakage into the plain class word: {overall['leakage']:.2f} of the way to the subject.")
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def html(results: "dict[str, Any]", out: Path, data: Path) -> str:
    sheets = "".join(sheet(unit, out, data) for unit in results["units"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>DreamBench</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body><h1>DreamBench</h1>'
        f"{facts(results)}<h2>Beside published rows</h2>{comparison(results)}<h2>Scores of all pictures</h2>{distributions(results)}"
        f"<h2>Subjects</h2>{subjects(results)}<h2>What failed</h2>{failures(results)}<h2>Pictures</h2>"
        f"<p>DINO, CLIP-I and CLIP-T stand under each; copies have a red frame.</p>{sheets}"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def write(results: "dict[str, Any]", out: Path, data: Path) -> Path:
    path = out / "report.html"
    store.write_text(path, html(results, out, data))
    return path
