"""The command line."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

import sitter

from . import report, store, summary
from .cluster import run_cluster
from .data import DataError, read
from .driver import run_local, say
from .evaluate import evaluate_folder
from .plan import PER_PROMPT, Plan, PlanError
from .queue import ClusterError
from .worker import CannotOpen, WrongModel


def main(arguments: "Optional[Sequence[str]]" = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["evaluate"]:
            return evaluate(evaluate_parser().parse_args(given[1:]))
        return benchmark(benchmark_parser().parse_args(given))
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        return 130
    except (DataError, PlanError, CannotOpen, WrongModel, ClusterError, store.Busy, sitter.Error, OSError) as error:
        say(f"error: {error}")
        return 1


def networks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("networks, at least one")
    group.add_argument("--dino", help="folder of facebook/dino-vits16, or the authors' .pth file")
    group.add_argument("--clip", help="folder of openai/clip-vit-base-patch32")
    group.add_argument("--lpips", help="folder with torchvision's AlexNet and LPIPS's alex.pth, for diversity")
    parser.add_argument("--protocol", choices=sorted(PER_PROMPT), default="B",
                        help="A: DreamBooth; B: arXiv 2504.13162; C: Kosmos-G, OmniGen; D: ARBooth, ViCo")


def benchmark_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sitter.dreambench", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Teaches, draws, scores and reports all subjects of google/dreambooth. Stopped, it goes on where it was.",
        epilog="python -m sitter.dreambench evaluate --help: scores a folder of anybody's pictures",
    )
    parser.add_argument("--data", required=True, help="google/dreambooth's folder, or one of the same form")
    parser.add_argument("--model", required=True, help='folder of the model, or "embedded:"')
    parser.add_argument("--out", required=True, type=Path, help="where everything goes")
    parser.add_argument("--subjects", nargs="+", help="names; default all")
    parser.add_argument("--prompts", type=numbers, help="numbers from 1: 1,4,7-9; default all")
    parser.add_argument("--per-prompt", type=int, help="pictures of each prompt; default as the protocol has it")
    parser.add_argument("--method", default="two_stage", help="two_stage, textual_inversion, dreambooth, lora or arbooth")
    parser.add_argument("--identifier", default="[V]", help="the word that stands for the subject")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--class-pictures", type=int, default=4, metavar="N",
                        help="drawn of the plain class word, to measure leakage; 0 for none")
    parser.add_argument("--train", action="append", default=[], type=setting, metavar="NAME=VALUE", help="an option of training")
    parser.add_argument("--sample", action="append", default=[], type=setting, metavar="NAME=VALUE", help="an option of drawing")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cluster", metavar="ADDRESS", help='run the jobs on a Ray cluster, or on one made on this machine: "local"')
    parser.add_argument("--workers", type=int, default=2, help="with --cluster: how many processes hold a model")
    parser.add_argument("--worker-memory", type=float, metavar="GIB", help="with --cluster: of a worker; default our own estimate")
    parser.add_argument("--no-shared-folder", action="store_true",
                        help="with --cluster: have all files travel through Ray, even to workers that see --out")
    parser.add_argument("--no-scores", action="store_true", help="only teach and draw; the same command with networks scores later")
    parser.add_argument("--report-only", action="store_true", help="only write the report of what there is")
    networks(parser)
    return parser


def benchmark(given: argparse.Namespace) -> int:
    chosen: "dict[str, Any]" = {name: path(getattr(given, name)) for name in ("dino", "clip", "lpips")}
    if bool(given.no_scores) == any(chosen.values()):
        raise PlanError("--dino, --clip: name the folder of at least one network to score with, or else --no-scores")
    data = read(given.data)
    plan = Plan.make(
        data, given.subjects, given.prompts, model=path(given.model), protocol=given.protocol, method=given.method,
        identifier=given.identifier, seed=given.seed, per_prompt=given.per_prompt or PER_PROMPT[given.protocol],
        class_pictures=given.class_pictures, train=dict(given.train), sample=dict(given.sample), networks=chosen,
    )
    if not given.report_only and not given.no_scores:
        # They are needed last; what is wrong with them is said first.
        sitter.Evaluator.open(**chosen).close()
    out: Path = given.out.resolve()
    failed: list[str] = []
    with store.lock(out):
        store.clean(out)
        plan.begin(out)
        try:
            if not given.report_only:
                opening = {"device": given.device, "dtype": given.dtype, "threads": given.threads}
                if given.cluster:
                    failed = run_cluster(plan, out, given.cluster, given.workers, opening, given.worker_memory,
                                         not given.no_shared_folder)
                else:
                    failed = run_local(plan, out, opening)
        finally:
            # Also of a run that is stopped: what there is so far.
            store.clean(out)
            results = summary.write(plan, out)
            path_of_report = report.write(results, out, data.folder)
    show(results)
    say(f"{path_of_report}" + (f"; {len(failed)} jobs failed, they are tried again by the same command" if failed else ""))
    return 2 if failed else 0


def evaluate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sitter.dreambench evaluate", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Scores a folder of pictures against reference pictures of the subject.",
        epilog="What a picture was to show stands in a file of its name with .txt, in texts.json in the folder ({file: text}), or\n"
               "in --text for all; {} stands for the identifier: \"a {} dog in the snow\".",
    )
    parser.add_argument("--pictures", required=True, type=Path, help="folder of drawn pictures")
    parser.add_argument("--references", required=True, type=Path, help="folder of real pictures of the subject")
    parser.add_argument("--class-pictures", type=Path, help="folder of pictures drawn of the plain class word with the subject")
    parser.add_argument("--untouched", type=Path, help="the same without the subject")
    parser.add_argument("--text", default="", help="what pictures without a text of their own were to show")
    parser.add_argument("--identifier", help="the subject's word, for the score of whole prompts")
    parser.add_argument("--out", type=Path, help="also write results.json, results.csv and report.html there")
    networks(parser)
    return parser


def evaluate(given: argparse.Namespace) -> int:
    chosen = {name: path(getattr(given, name)) for name in ("dino", "clip", "lpips")}
    results = evaluate_folder(given, chosen)
    show(results)
    return 2 if any(unit["scores"]["failed"] for unit in results["units"]) else 0


def show(results: "dict[str, Any]") -> None:
    """The most important numbers, on standard output."""
    overall = results["overall"]
    for title, value in (
        ("DINO", overall["dino"]), ("CLIP-I", overall["clip_i"]), ("CLIP-T", overall["clip_t"]), ("copies", overall["copies"]),
        ("leakage", overall["leakage"]), ("diversity", overall["diversity"]), ("real DINO", overall["real"]["dino"]),
        ("real CLIP-I", overall["real"]["clip_i"]),
    ):
        if value is not None:
            print(f"{title:<12}{value:.4f}" if isinstance(value, float) else f"{title:<12}{value}")
    drawn = sum(len(unit["drawn"]) for unit in results["units"])
    if overall["pictures"] or not drawn:
        print(f"{'protocol':<12}{results['plan']['protocol']}, {overall['subjects']} subjects, {overall['pictures']} pictures")
    else:
        print(f"{'drawn':<12}{drawn} pictures, not scored")


def numbers(text: str) -> "list[int]":
    """1,4,7-9"""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def setting(text: str) -> "tuple[str, Any]":
    """NAME=VALUE; the value as JSON where it is that, else as text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def path(given: Optional[str]) -> Optional[str]:
    """From wherever the program is started next time. Names of models that tests make up are no paths."""
    return given if given is None or ":" in given else str(Path(given).resolve())
