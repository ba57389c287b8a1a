"""Whether both engines tell the same of one model pair: target efficiency over the batch size.

    python -m benchmarks.engines_agree --vllm vllm_quickstart \\
        --transformers docs/results/quickstart_cpu/points.json --out docs/results/vllm_quickstart_cpu

A sweep of each engine, named as the tracker knows it or given as a points.json of analysis.export.
Prints the points that both have, and for each gamma Spearman's rank correlation of target efficiency
over the batch sizes; draws engines.png. Each engine is compared with its own baseline, never with the
other: seconds of different engines say nothing of each other here.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from scipy import stats

from analysis.acceptance import read_points
from analysis.canvas import counts_axis, entitle, footnote, save, style_of
from analysis.heading import flagged, heading, labels
from analysis.load import load_sweep
from analysis.report import as_text
from analysis.series import axes as axes_of
from analysis.series import by_gamma, by_setting, timed
from moesd_dist.console import fail
from moesd_dist.records import Measurement, Protocol, SweepPoint
from moesd_dist.sweep.statistics import metrics, target_efficiency

FEWEST = 3  # batch sizes: two ranks agree or do not
_FIGURES = {
    "target_efficiency": "target efficiency",
    "acceptance_length": "accept length",
    "speedup": "speedup",
}
_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "vllm": {"linestyle": "-"},
    "transformers": {"linestyle": "--", "markerfacecolor": "white"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """One point as each engine measured it."""

    transformers: Measurement
    vllm: Measurement

    def of(self, engine: str) -> Measurement:
        return self.vllm if engine == "vllm" else self.transformers


def common(
    transformers: Sequence[Measurement], vllm: Sequence[Measurement]
) -> dict[int, list[Both]]:
    """Timed SD points of both by gamma, from the smallest batch to the largest.

    Equal but for the engine, its own settings and how long was measured. ValueError where there are
    none, or more than one of a gamma and batch size.
    """
    ours, theirs = _timed_by(transformers, "transformers"), _timed_by(vllm, "vllm")
    found = {_asked(m.point).point_id: m for m in theirs}
    pairs = [
        Both(transformers=m, vllm=found[name])
        for m in ours
        if (name := _asked(m.point).point_id) in found
    ]
    if not pairs:
        raise ValueError(
            "the sweeps have no timed SD point in common; they differ in "
            f"{_differences(ours, theirs)}: measure the same pair, workload and batch sizes"
        )
    if len(by_setting([both.transformers for both in pairs])) > 1:
        varying = ", ".join(axes_of([both.transformers for both in pairs]))
        raise ValueError(f"both sweeps vary {varying}; measure one setting with each engine")
    lines = by_gamma([both.transformers for both in pairs])
    place = {both.transformers.point.point_id: both for both in pairs}
    return {gamma: [place[m.point.point_id] for m in line] for gamma, line in lines.items()}


def rank_correlation(line: Sequence[Both]) -> float:
    """Spearman's, of target efficiency over the batch sizes; NaN for fewer than three of them."""
    if len(line) < FEWEST:
        return math.nan
    curves = [[target_efficiency(both.of(engine)) for both in line] for engine in _LOOKS]
    return float(stats.spearmanr(*curves).statistic)


def verdict(lines: Mapping[int, Sequence[Both]]) -> list[str]:
    """A line a gamma."""
    return [
        f"gamma {gamma}: rank correlation of target efficiency {rank_correlation(line):.2f} "
        f"over {len(line)} batch sizes"
        if len(line) >= FEWEST
        else f"gamma {gamma}: {len(line)} batch sizes in common; a rank correlation needs {FEWEST}"
        for gamma, line in lines.items()
    ]


def agreement_table(lines: Mapping[int, Sequence[Both]]) -> Table:
    """One row a point, each figure once an engine."""
    drawn = _members(lines)
    title = "\n".join([*heading(drawn), *(f"*** {label} ***" for label in labels(drawn))])
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # fmt: skip
    for name in ("gamma", "B", *(f"{text}\n{e}" for text in _FIGURES.values() for e in _LOOKS)):
        table.add_column(name, justify="right", no_wrap=True)
    for gamma, line in lines.items():
        for both in line:
            table.add_row(str(gamma), str(both.vllm.point.batch_size), *_cells(both))
    return table


def _cells(both: Both) -> list[str]:
    found = {engine: metrics(both.of(engine)) for engine in _LOOKS}
    return [_cell(found[engine], name) for name in _FIGURES for engine in _LOOKS]


def _cell(found: Mapping[str, float], name: str) -> str:
    """With its interval, where it has one."""
    text = f"{found[name]:.3f}"
    if f"{name}_low" in found:
        text += f" [{found[f'{name}_low']:.3f}, {found[f'{name}_high']:.3f}]"
    return text


def draw(lines: Mapping[int, Sequence[Both]], path: Path) -> Path:
    """Target efficiency over B: a colour a gamma, solid for vLLM, dashed for transformers."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes, drawn = figure.subplots(), _members(lines)
    for gamma, line in lines.items():
        for engine, look in _LOOKS.items():
            style = {**style_of(gamma, list(lines)), **look, "label": f"gamma = {gamma}, {engine}"}
            _errorbar(axes, [both.of(engine) for both in line], style)
    counts_axis(axes, [m.point.batch_size for m in drawn])
    axes.set_xlabel("batch size B")
    axes.set_ylabel("target efficiency")
    axes.set_ylim(*_limits([metrics(m) for m in drawn]))
    figure.legend(fontsize=9, loc="outside right upper")  # over no bar
    entitle(figure, drawn)
    what = "target efficiency: T_T(B,1) / T_T(B,gamma+1), each engine against its own baseline"
    paired = any(len(m.repeats) > 1 for m in drawn)
    bars = "bars: 95 % interval over paired repeats" if paired else "no interval"
    footnote(figure, [what, bars, *verdict(lines), *flagged(drawn)])
    return save(figure, path)


def _limits(found: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Room for points and intervals; those of two repeats may reach far beyond."""
    values = [f["target_efficiency"] for f in found]
    low = min(f.get("target_efficiency_low", min(values)) for f in found)
    high = max(f.get("target_efficiency_high", max(values)) for f in found)
    return 0.95 * max(low, 0.5 * min(values)), 1.05 * min(high, 1.5 * max(values))


def _errorbar(axes: Axes, line: Sequence[Measurement], style: Mapping[str, Any]) -> None:
    found = [metrics(m) for m in line]
    values = [f["target_efficiency"] for f in found]
    below = [v - f.get("target_efficiency_low", v) for f, v in zip(found, values, strict=True)]
    above = [f.get("target_efficiency_high", v) - v for f, v in zip(found, values, strict=True)]
    sizes = [m.point.batch_size for m in line]
    axes.errorbar(
        sizes, values, yerr=[below, above], capsize=3, linewidth=1.6, elinewidth=1, **style
    )


def _members(lines: Mapping[int, Sequence[Both]]) -> list[Measurement]:
    return [both.of(engine) for engine in _LOOKS for line in lines.values() for both in line]


def _timed_by(measured: Sequence[Measurement], engine: str) -> list[Measurement]:
    """SD points alone. ValueError where another engine measured them, or there are none."""
    found = [m for line in by_gamma(timed(measured)).values() for m in line]
    others = sorted({m.point.engine for m in found} - {engine})
    if others or not found:
        of = f"points of {', '.join(others)}" if others else "no timed SD point"
        raise ValueError(f"--{engine} takes a sweep of engine={engine}, got one with {of}")
    return found


def _asked(point: SweepPoint) -> SweepPoint:
    """What either engine was asked to measure, without how."""
    return replace(
        point,
        engine="",
        experts_implementation="",
        engine_args=(),
        cpu_fixes=False,
        protocol=Protocol(),
    )


def _differences(ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> str:
    names = axes_of([replace(m, point=_asked(m.point)) for m in (ours[0], theirs[0])])
    return ", ".join(names) or "batch sizes or gammas"


def read(name: str, uri: str, experiment: str) -> list[Measurement]:
    """A points.json, or a sweep of the tracker."""
    if name.endswith(".json"):
        return read_points(Path(name))
    return load_sweep(uri, experiment, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    for engine in _LOOKS:
        parser.add_argument(
            f"--{engine}", required=True, help="sweep by name or id, or points.json"
        )
    parser.add_argument("--out", type=Path, required=True, help="folder of engines.png")
    parser.add_argument("--tracking", default="sqlite:///mlflow.db", help="where sweeps are found")
    parser.add_argument("--experiment", default="moesd-dist")
    try:
        run(parser.parse_args())
    except ValueError as error:
        fail(error)


def run(options: argparse.Namespace) -> None:
    measured = {e: read(getattr(options, e), options.tracking, options.experiment) for e in _LOOKS}
    lines = common(**measured)
    print(as_text(agreement_table(lines)))
    print("\n".join(verdict(lines)))
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"saved {draw(lines, options.out / 'engines.png')}")


if __name__ == "__main__":
    main()
