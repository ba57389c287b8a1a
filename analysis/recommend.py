"""gamma by batch size with confidence: a number, 0 for SD off, or undecided and what to measure next.

    python -m analysis.recommend sweep=quickstart

Prints a table and what limits you; writes the schedule for vLLM and SGLang, a CSV and the report.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from analysis.heading import source
from analysis.recommending.basis import Basis, of_sweeps
from analysis.recommending.choices import at_gamma, choices_of, geometric_mean, static_of
from analysis.recommending.next_points import command, open_choices
from analysis.recommending.saved_basis import of_fit
from analysis.recommending.schedules import (
    DATA_PARALLEL,
    TESTED,
    sglang_config,
    static_vllm_config,
    vllm_config,
    write_csv,
)
from analysis.recommending.text import (
    cautions,
    limit_sentences,
    meaning,
    schedule_table,
    static_sentence,
    title_of,
)
from analysis.report import as_text
from analysis.settings import RecommendConf, check_folder, hydra_program, names_of
from moesd_dist.theory.choices.decision import Rule
from moesd_dist.theory.choices.recommendation import Choice, StaticChoice, intervals

WIDTH = 120  # a log has no width of its own
FORMATS = ("vllm", "sglang", "csv", "report")
_BY_BATCH = ("vllm", "sglang")


def run(conf: RecommendConf) -> None:
    """Everything, printed and written; ValueError for what a user can get wrong."""
    rule = Rule(tolerance=conf.tolerance, confidence=conf.confidence)
    formats = conf.formats or list(FORMATS)
    if unknown := set(formats) - set(FORMATS):
        raise ValueError(f"formats are {', '.join(FORMATS)}; got {min(unknown)!r}")
    check_folder(conf.out)
    basis = basis_of(conf)
    if basis.dp_size > 1 and (asked := [name for name in conf.formats if name in _BY_BATCH]):
        raise ValueError(f"no {asked[0]} schedule for dp_size {basis.dp_size}: {DATA_PARALLEL}")
    choices = choices_of(basis, rule)
    static, sizes = static_of(basis, rule)
    by_batch = geometric_mean(choices, sizes)
    if basis.dp_size > 1:
        choices = at_gamma(basis, static)
    lines = [*cautions(basis), meaning(basis, rule), static_sentence(static, sizes, by_batch)]
    text = "\n".join(
        [
            _head(basis, choices),
            *lines,
            *_limits(basis, choices),
            *_next(basis, choices, static),
            "",
        ]
    )
    Console(width=None if sys.stdout.isatty() else WIDTH).print(
        text, markup=False, highlight=False, soft_wrap=True, end=""
    )
    for path in write(Path(conf.out), formats, basis, choices, static, text):
        print(f"saved {path}{', of simulated points' if simulated(basis) else ''}")


def basis_of(conf: RecommendConf) -> Basis:
    """From sweeps or from a saved fit; ValueError if not exactly one of them is given."""
    names = names_of(conf.sweep)
    if bool(names) == bool(conf.fit):
        both = "both" if names else "neither"
        raise ValueError(
            f"give sweep=NAME (or sweep=[ONE,OTHER]) or fit=PATH of a fit.json; got {both}"
        )
    return of_sweeps(conf, names) if names else of_fit(conf)


def write(
    folder: Path,
    formats: Sequence[str],
    basis: Basis,
    choices: Sequence[Choice],
    static: StaticChoice,
    text: str,
) -> list[Path]:
    """The files asked for; of a data-parallel layout no schedule but vLLM's static setting."""
    folder.mkdir(parents=True, exist_ok=True)
    plain: dict[str, object] = {}
    if basis.dp_size > 1:
        plain["vllm_static"] = static_vllm_config(static.gamma, basis.sd)
    else:
        if "vllm" in formats:
            plain["vllm"] = vllm_config(intervals(choices), basis.sd)
        if "sglang" in formats:
            plain["sglang"] = sglang_config(choices)
    kind = ".simulated" if simulated(basis) else ""  # the engines allow no key that would say so
    written = [folder / f"{name}{kind}.json" for name in plain]
    for path, content in zip(written, plain.values(), strict=True):
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    if "csv" in formats:
        written.append(folder / "recommendation.csv")
        write_csv(written[-1], choices, basis.estimate, basis.measured, source=source(basis.labels))
    if "report" in formats:
        written.append(folder / "report.txt")
        written[-1].write_text(text, encoding="utf-8")
    return written


def simulated(basis: Basis) -> bool:
    return source(basis.labels) == "simulated"


def _head(basis: Basis, choices: Sequence[Choice]) -> str:
    """The schedule, or why there is none."""
    if basis.dp_size == 1:
        return as_text(schedule_table(basis, choices), WIDTH)
    refusal = f"No gamma by batch size for dp_size {basis.dp_size}: {DATA_PARALLEL}."
    return f"{title_of(basis).plain}\n\n{refusal}\n"


def _limits(basis: Basis, choices: Sequence[Choice]) -> list[str]:
    shown = limit_sentences(basis, choices)
    return ["", "What limits you:", *shown] if shown else []


def _next(basis: Basis, choices: Sequence[Choice], static: StaticChoice) -> list[str]:
    """What to measure, as a command; and what happens beyond the largest batch size."""
    if basis.dp_size > 1:
        doubts: Sequence[Choice | StaticChoice] = [] if static.decided else [static]
        end = []
    else:
        largest = basis.estimate.batch_sizes[-1]
        doubts = open_choices(choices)
        end = ["", f"Beyond B={largest} both engines keep the last gamma: measure larger batches, or cap them there. {TESTED}"]  # fmt: skip
    return [*(["", "Measure next:", *command(basis, doubts)] if doubts else []), *end]


def main() -> None:
    hydra_program("recommend", RecommendConf, run)


if __name__ == "__main__":
    main()
