"""gamma by batch size with confidence: a number, 0 for SD off, or undecided and what to measure next.

    python -m analysis.recommend sweep=quickstart

Prints a table and what limits you; writes the schedule for vLLM and SGLang, a CSV and the report.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.console import Console

from analysis.basis import Basis, of_sweeps
from analysis.next_points import command, next_points
from analysis.recommendation_text import (
    cautions,
    limit_sentences,
    meaning,
    schedule_table,
    static_sentence,
    title_of,
)
from analysis.report import as_text
from analysis.saved_basis import of_fit
from analysis.schedules import (
    DATA_PARALLEL,
    sglang_config,
    static_vllm_config,
    vllm_config,
    write_csv,
)
from analysis.settings import RecommendConf, hydra_program, names_of
from moesd_dist.theory.decision import Rule
from moesd_dist.theory.recommendation import (
    Choice,
    StaticChoice,
    choose,
    intervals,
    static_choice,
)

WIDTH = 120  # a log has no width of its own
FORMATS = ("vllm", "sglang", "csv", "report")
_BY_BATCH = ("vllm", "sglang")


def run(conf: RecommendConf) -> None:
    """Everything, printed and written; ValueError for what a user can get wrong."""
    rule = Rule(tolerance=conf.tolerance, confidence=conf.confidence)
    formats = conf.formats or list(FORMATS)
    if unknown := set(formats) - set(FORMATS):
        raise ValueError(f"formats are {', '.join(FORMATS)}; got {min(unknown)!r}")
    basis = basis_of(conf)
    if basis.dp_size > 1 and (asked := [name for name in conf.formats if name in _BY_BATCH]):
        raise ValueError(f"no {asked[0]} schedule for dp_size {basis.dp_size}: {DATA_PARALLEL}")
    choices = choices_of(basis, rule)
    static, sizes = static_of(basis, rule)
    by_batch = geometric_mean(choices, sizes)
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
        text, markup=False, highlight=False, end=""
    )
    for path in write(Path(conf.out), formats, basis, choices, static, text):
        print(f"saved {path}")


def basis_of(conf: RecommendConf) -> Basis:
    """From sweeps or from a saved fit; ValueError if not exactly one of them is given."""
    names = names_of(conf.sweep)
    if bool(names) == bool(conf.fit):
        both = "both" if names else "neither"
        raise ValueError(
            f"give sweep=NAME (or sweep=[ONE,OTHER]) or fit=PATH of a fit.json; got {both}"
        )
    return of_sweeps(conf, names) if names else of_fit(conf)


def choices_of(basis: Basis, rule: Rule) -> list[Choice]:
    """One a batch size, among the gammas that are known there."""
    found = basis.estimate
    choices = []
    for row, size in enumerate(found.batch_sizes):
        known = np.flatnonzero(np.isfinite(found.log_speedup[row]))
        gammas = [found.gammas[i] for i in known]
        covariance = found.covariance[row][np.ix_(known, known)]
        choices.append(choose(size, gammas, found.log_speedup[row, known], covariance, rule=rule))
    return choices


def static_of(basis: Basis, rule: Rule) -> tuple[StaticChoice, list[int]]:
    """One gamma for the measured batch sizes, each counted alike; without any, for all."""
    found = basis.estimate
    sizes = [b for b in basis.measured_sizes if b in found.batch_sizes] or list(found.batch_sizes)
    rows = [found.batch_sizes.index(size) for size in sizes]
    known = np.flatnonzero(np.isfinite(found.log_speedup[rows]).all(axis=0))
    choice = static_choice(
        sizes,
        [found.gammas[i] for i in known],
        found.log_speedup[np.ix_(rows, known)],
        found.covariance[np.ix_(rows, known, known)],
        rule=rule,
    )
    return choice, sizes


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
    written = [folder / f"{name}.json" for name in plain]
    for path, content in zip(written, plain.values(), strict=True):
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    if "csv" in formats:
        written.append(folder / "recommendation.csv")
        write_csv(written[-1], choices, basis.estimate, basis.measured)
    if "report" in formats:
        written.append(folder / "report.txt")
        written[-1].write_text(text, encoding="utf-8")
    return written


def geometric_mean(choices: Sequence[Choice], sizes: Sequence[int]) -> float:
    """Of the speedups chosen at these batch sizes."""
    chosen = {choice.batch_size: choice.speedup for choice in choices}
    return math.exp(fmean(math.log(chosen[size]) for size in sizes))


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
        points, end = [static.measure_next] if static.measure_next else [], []
    else:
        largest = basis.estimate.batch_sizes[-1]
        points = next_points(choices)
        end = ["", f"Beyond B={largest} both engines keep the last gamma: measure larger batches, or cap them there."]  # fmt: skip
    return [*(["", "Measure next:", *command(basis, points)] if points else []), *end]


if __name__ == "__main__":
    hydra_program("recommend", RecommendConf, run)
