"""The cells of a sweep's table as text, one row a point."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.heading import flags_of
from analysis.series import (
    Setting,
    T,
    by_gamma,
    by_setting,
    label,
    measured,
    of_role,
    setting,
    timed,
)
from moesd_dist.records import Infeasible, Interval, Measurement, Outcome, Role
from moesd_dist.sweep.statistics import metrics, paired_interval, speedup

BEST = "*"
LONGEST = 400  # rows that a person may still read; of more, the best and what failed are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Cells by column; a column that is missing here has nothing to say of this point."""

    cells: dict[str, str]
    is_best: bool = False


def sd_rows(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[Row]:
    """SD and control points in the order of EP, setting, gamma and batch; controls come first."""
    shown = [o for o in outcomes if o.point.role is not Role.baseline]
    best = {id(m) for m in best_per_gamma(measured(outcomes))}  # ids of points take long to compute
    if len(shown) > LONGEST:
        shown = [o for o in shown if id(o) in best or not isinstance(o, Measurement)]
        shown = shown[:LONGEST]
    return [_sd_row(o, names, id(o) in best) for o in ordered(shown, names)]


def baseline_rows(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[Row]:
    """What a sweep without SD is of: throughput, decoding time and activated experts."""
    shown = of_role(outcomes, Role.baseline)[:LONGEST]
    return [_baseline_row(outcome, names) for outcome in ordered(shown, names)]


def best_per_gamma(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The highest speedup of each line that has more than one batch size."""
    settings = by_setting(timed(measurements)).values()
    lines = [line for members in settings for line in by_gamma(members).values()]
    return [max(line, key=speedup) for line in lines if len(line) > 1]


def interval_of(m: Measurement) -> Interval | None:
    """Of the speedup; None for a formula without noise, whose repeats are equal, and untimed."""
    if not m.timed or (m.point.simulation and not m.point.simulation.noise):
        return None
    return paired_interval(m.paired_speedups())


def with_interval(value: float, interval: Interval | None) -> str:
    """Such as `1.43 [1.38, 1.49]`; the value alone after a single repeat."""
    return f"{value:.2f}" + (f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else "")


def rounded(loss: float) -> str:
    """To two places; next to nothing is 0.00 on either side."""
    return f"{round(loss, 2) + 0.0:.2f}"


def ordered(outcomes: Iterable[T], names: Sequence[str]) -> list[T]:
    """By EP, then in the order of the sweep's settings, then by gamma and batch size."""
    members = list(outcomes)
    places = {found: i for i, found in enumerate(dict.fromkeys(_of(o, names) for o in members))}
    return sorted(members, key=lambda o: _order_of(o, places[_of(o, names)]))


def _order_of(outcome: Outcome, place: int) -> tuple[int, ...]:
    point = outcome.point
    return (point.layout.ep_size, place, point.gamma, point.batch_size)


def _of(outcome: Outcome, names: Sequence[str]) -> Setting:
    return setting(outcome.point, names)


def _sd_row(outcome: Outcome, names: Sequence[str], is_best: bool) -> Row:
    point = outcome.point
    cells = _place(outcome, names) | {"gamma": str(point.gamma)}
    if isinstance(outcome, Measurement):
        found = metrics(outcome)
        if point.gamma:
            cells["acceptance_length"] = f"{outcome.acceptance_length:.2f}"
            cells["sigma"] = f"{outcome.sigma:.3f}"
        if outcome.timed:
            cells["target_efficiency"] = f"{found['target_efficiency']:.3f}"
            interval = interval_of(outcome)
            mark = BEST if is_best else " "
            cells["speedup"] = f"{with_interval(found['speedup'], interval)}{mark}"
        if "activated_experts" in found:
            decode, verify = found["baseline_activated_experts"], found["activated_experts"]
            cells["activated_experts"] = f"{decode:.1f} -> {verify:.1f}"
    return Row(cells=cells | {"flags": _flags(outcome)}, is_best=is_best)


def _baseline_row(outcome: Outcome, names: Sequence[str]) -> Row:
    cells = _place(outcome, names)
    if isinstance(outcome, Measurement):
        found = metrics(outcome)
        if outcome.timed:
            cells["tokens_per_s"] = f"{found['tokens_per_s']:.1f}"
            cells["target_decode_ms"] = f"{1e3 * found['target_decode_s']:.3f}"
        if "activated_experts" in found:
            cells["activated_experts"] = f"{found['activated_experts']:.1f}"
    return Row(cells=cells | {"flags": _flags(outcome)})


def _place(outcome: Outcome, names: Sequence[str]) -> dict[str, str]:
    axes = dict(_of(outcome, names))
    return {label(n): axes.get(label(n), "") for n in names} | {"B": str(outcome.point.batch_size)}


def _flags(outcome: Outcome) -> str:
    control = ["A/A"] if outcome.point.role is Role.control else []
    if isinstance(outcome, Measurement):
        return ", ".join([*control, *flags_of(outcome)]).replace("_", " ")
    return ", ".join([*control, "infeasible" if isinstance(outcome, Infeasible) else "failed"])
