"""What a sweep showed, in sentences that say what was measured and no more."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.heading import MEANINGS, flagged, labels
from analysis.rows import interval_of, rounded, with_interval
from analysis.series import (
    Setting,
    axes,
    by_batch,
    by_gamma,
    by_setting,
    measured,
    of_role,
    setting,
    text_of,
    timed,
)
from moesd_dist.records import Failed, Infeasible, Measurement, Outcome, Role, SweepPoint
from moesd_dist.sweep.statistics import metrics, speedup

_FACTORS = ("acceptance", "target_efficiency", "drafting", "rejection", "rest")
_LOST_TO = ("experts", "imbalance", "communication", "packing", "rest")  # by more than one rank


def verdict(outcomes: Sequence[Outcome]) -> list[str]:
    """Cautions first, then each gamma of each setting, the controls, and what is missing."""
    found = measured(outcomes)
    sentences = [f"{name}: {MEANINGS[name]}." for name in labels(found)]
    sentences += [f"Flagged: {text}." for text in flagged(found)]
    for place, members in by_setting(found).items():
        for gamma, line in by_gamma(members).items():
            sentences.append(f"{_name(gamma, place)}: {_line(line)}")
        if controls := by_batch(of_role(timed(members), Role.control)):
            sentences.append(_control(controls, place))
    if found and all(m.point.role is Role.baseline for m in found):
        sentences.append(f"Only baselines were {_verb(found[0])}: there is no speedup to report.")
    return sentences + _missing(outcomes)


def _name(gamma: int, place: Setting) -> str:
    return f"gamma={gamma}" + (f" ({text_of(place)})" if place else "")


def _line(points: Sequence[Measurement]) -> str:
    line = timed(points)
    if not line:
        return f"untimed, so no speedup; {_accepted(points)}."
    peak = max(line, key=speedup)
    kind = "highest speedup" if len(line) > 1 else "speedup"
    parts = [f"{kind} {_at(peak)}{_against_one(peak)}", _shape(line, peak), _limit(peak)]
    return "; ".join([*parts, *_lost(peak)]) + "."


def _accepted(line: Sequence[Measurement]) -> str:
    lengths = (f"{m.acceptance_length:.2f} at B={m.point.batch_size}" for m in line)
    return f"acceptance length {', '.join(lengths)}"


def _at(m: Measurement) -> str:
    return f"{with_interval(speedup(m), interval_of(m))} at B={m.point.batch_size}"


def _against_one(m: Measurement) -> str:
    interval = interval_of(m)
    if interval is None:
        return " (simulated, no interval)" if m.point.simulated else " (one repeat, no interval)"
    if interval.low > 1:
        return ", faster than the baseline"
    if interval.high < 1:
        return ", slower than the baseline"
    return ", its interval contains 1"


def _shape(line: Sequence[Measurement], peak: Measurement) -> str:
    first, last = line[0], line[-1]
    if first is last:
        return f"no other batch size was {_verb(peak)}"
    span = f"B={first.point.batch_size}..{last.point.batch_size}"
    if peak is last:
        return f"at the upper edge of the {_verb(peak)} range {span}, so it may rise further"
    if peak is first:
        further = ", so a smaller batch may gain more" if first.point.batch_size > 1 else ""
        return f"at the lower edge of the {_verb(peak)} range {span}{further}"
    ends = " and ".join(f"B={m.point.batch_size} ({speedup(m):.2f})" for m in (first, last))
    if peak.point.simulated and interval_of(peak) is None:
        return f"rises then falls inside {span}, above {ends}"
    if not (_above(peak, first) and _above(peak, last)):
        return f"inside {span}, but not clear of both ends, {ends}"
    return f"rises then falls inside {span}, its interval above those of {ends}"


def _verb(m: Measurement) -> str:
    return "simulated" if m.point.simulated else "measured"


def _contains_one(m: Measurement) -> bool:
    interval = interval_of(m)
    return interval is not None and interval.low <= 1 <= interval.high


def _above(m: Measurement, other: Measurement) -> bool:
    """The whole interval above the other's; never after single repeats."""
    ours, theirs = interval_of(m), interval_of(other)
    return ours is not None and theirs is not None and ours.low > theirs.high


def _limit(m: Measurement) -> str:
    """Eq. 4's factors of gamma + 1, and what it leaves out; the smallest takes most away."""
    found = metrics(m)
    names = [name for name in _FACTORS if f"factor_{name}" in found]
    factors = {name: found[f"factor_{name}"] for name in names}
    least = min(factors, key=lambda name: factors[name])
    rest = ", ".join(f"{_words(n)} {v:.2f}" for n, v in factors.items() if n != least)
    return f"limited most by {_words(least)} {factors[least]:.2f} ({rest})"


def _lost(m: Measurement) -> list[str]:
    """Which parts of a target forward verification makes longer, where ranks share experts."""
    found = metrics(m)
    parts = {n: found[f"te_loss_{n}"] for n in _LOST_TO if f"te_loss_{n}" in found}
    if m.ranks < 2 or not parts:
        return []
    text = ", ".join(f"{name} {rounded(value)}" for name, value in parts.items())
    return [f"on {m.ranks} ranks 1/TE - 1 is {rounded(sum(parts.values()))}: {text}"]


def _words(name: str) -> str:
    return "engine overhead" if name == "rest" else name.replace("_", " ")


def _control(controls: Sequence[Measurement], place: Setting) -> str:
    name = "A/A control" + (f" ({text_of(place)})" if place else "")
    known = [m for m in controls if interval_of(m) is not None]
    if not known:
        return f"{name}: one repeat, no interval; {', '.join(map(_at, controls))}."
    missed = [m for m in known if not _contains_one(m)]
    if not missed:
        return f"{name}: the interval contains 1 at all of {_batches(known)}; {_widest(known)}."
    return (
        f"{name}: the interval does not contain 1 at {len(missed)} of {len(known)} batch sizes, "
        f"{', '.join(map(_at, missed))}: differences of this size occur without SD."
    )


def _widest(controls: Sequence[Measurement]) -> str:
    far = max(controls, key=lambda m: abs(speedup(m) - 1))
    return f"farthest from 1: {_at(far)}"


def _batches(measurements: Sequence[Measurement]) -> str:
    return "B=" + ", ".join(str(m.point.batch_size) for m in measurements)


def _missing(outcomes: Sequence[Outcome]) -> list[str]:
    """Points without a measurement, those of one reason together."""
    names, places = axes(outcomes), dict[tuple[str, str], list[str]]()
    for outcome in outcomes:
        if isinstance(outcome, (Infeasible, Failed)):
            kind = "Infeasible" if isinstance(outcome, Infeasible) else "Failed"
            place = _place(outcome.point, setting(outcome.point, names))
            places.setdefault((kind, outcome.reason), []).append(place)
    return [f"{kind}: {'; '.join(found)}: {why}." for (kind, why), found in places.items()]


def _place(point: SweepPoint, found: Setting) -> str:
    role = " A/A" if point.role is Role.control else ""
    return f"B={point.batch_size} {_name(point.gamma, found)}{role}"
