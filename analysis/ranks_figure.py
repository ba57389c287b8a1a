"""Where a target forward's time goes when ranks share experts, as stacked bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from analysis.canvas import entitle, footnote, save, side_by_side
from analysis.series import by_setting, of_role, text_of, timed
from moesd_dist.records import Measurement, Repeat, Role
from moesd_dist.sweep.exchange_metrics import REST, seconds_by_rank
from moesd_dist.sweep.statistics import speedup

_Seconds = Mapping[str, float]  # by phase

_PHASES = (  # from the bottom up, with Okabe and Ito's colours
    ("rest", (REST,), "#BBBBBB"),
    ("packing", ("pack_s",), "#CC79A7"),
    ("experts", ("expert_s",), "#0072B2"),
    ("dispatch", ("dispatch_s",), "#D55E00"),
    ("combine", ("combine_s",), "#E69F00"),
    ("waiting", ("wait_arrival_s", "wait_expert_s"), "#F0E442"),
)
_MOST = 12  # groups of bars in one panel; of more, every so many
_ROWS = 12  # of panels: a page has an end
_LEAST = 10  # bars that a panel has room for: few are not to look like blocks
_NOTES = (
    "dec: decoding, the baseline's forwards; numbers: verification of gamma drafts",
    "dispatch and combine without the waiting in them; rest: attention, routers, all outside of the experts' layers",
    "totals over all repeats, exposed time alone",
)


def ranks_figure(measurements: Sequence[Measurement], path: Path) -> Path | None:
    """One row a setting: points on the left, ranks of one point on the right.

    None, and no file, where no point has more ranks than one that were timed.
    """
    known = [m for m in timed(measurements) if seconds_by_rank(m.repeats)]
    if not any(m.ranks > 1 for m in known):
        return None
    found = sorted(by_setting(known).items(), key=lambda item: item[1][0].ranks)
    settings = dict(found[:_ROWS])
    figure, rows = side_by_side(len(settings))
    for panels, (place, members) in zip(rows, settings.items(), strict=True):
        _draw(*panels, members)
        of = "1 rank" if members[0].ranks == 1 else f"mean of {members[0].ranks} ranks"
        panels[0].set_title(": ".join(filter(None, (text_of(place), of))), loc="left", fontsize=10)
    _legend(rows[0][0])
    entitle(figure, known)
    left_out = [f"the first {_ROWS} of {len(found)} settings"] if len(found) > _ROWS else []
    footnote(figure, [*left_out, *_NOTES])
    return save(figure, path)


def _draw(left: Axes, right: Axes, members: Sequence[Measurement]) -> None:
    _draw_points(left, members)
    _draw_ranks(right, _shown(members))
    left.set_ylabel("ms a target forward")


def _legend(axes: Axes) -> None:
    handles = [Patch(color=colour, label=name) for name, _, colour in reversed(_PHASES)]
    axes.legend(handles=handles, fontsize=8, ncols=3, loc="upper left")
    axes.set_ylim(top=1.2 * axes.get_ylim()[1])


def _draw_points(axes: Axes, members: Sequence[Measurement]) -> None:
    """The mean rank of each point, by batch size."""
    found: dict[int, dict[int, Sequence[Repeat]]] = {}
    for m in sorted(members, key=lambda m: (m.point.batch_size, m.point.gamma)):
        own = found.setdefault(m.point.batch_size, {})
        own.setdefault(0, m.baseline)
        own[m.point.gamma] = m.repeats
    groups = {
        f"B={size}": {_name(gamma): _mean(repeats) for gamma, repeats in own.items()}
        for size, own in found.items()
    }
    _bars(axes, groups)


def _draw_ranks(axes: Axes, m: Measurement) -> None:
    before, after = seconds_by_rank(m.baseline), seconds_by_rank(m.repeats)
    names = ["mean rank"] if len(after) < m.ranks else [f"rank {r}" for r in range(len(after))]
    groups = {n: {_name(m.point.gamma): own} for n, own in zip(names, after, strict=True)}
    if m.point.gamma and len(before) == len(after):
        for own, decoding in zip(groups.values(), before, strict=True):
            own[_name(0)] = decoding
    _bars(axes, {rank: dict(sorted(own.items(), reverse=True)) for rank, own in groups.items()})
    peak = ", the highest speedup" if m.point.gamma else ""
    axes.set_title(f"rank by rank at B={m.point.batch_size}{peak}", loc="left", fontsize=10)


def _shown(members: Sequence[Measurement]) -> Measurement:
    """The point of the highest speedup; without SD, of the largest batch."""
    if sd := of_role(members, Role.sd):
        return max(sd, key=speedup)
    return max(members, key=lambda m: m.point.batch_size)


def _name(gamma: int) -> str:
    return str(gamma) if gamma else "dec"


def _mean(repeats: Sequence[Repeat]) -> dict[str, float]:
    ranks = seconds_by_rank(repeats)
    return {phase: fmean(own[phase] for own in ranks) for phase in (ranks[0] if ranks else ())}


def _bars(axes: Axes, groups: Mapping[str, Mapping[str, _Seconds]]) -> None:
    """Groups of bars side by side, a gap between them; the ticks name both."""
    step = -(-len(groups) // _MOST)
    places: list[float] = []
    names, centres, bars = [], [], []
    for group in list(groups)[::step]:
        first = places[-1] + 2 if places else 0.0
        own = groups[group]
        places += [first + i for i in range(len(own))]
        names += list(own)
        bars += list(own.values())
        centres.append((fmean(places[-len(own) :]), group))
    _stack(axes, places, bars)
    axes.set_xticks(places, names, fontsize=8)
    axes.set_xticks([c for c, _ in centres], [g for _, g in centres], minor=True, fontsize=9)
    axes.tick_params(axis="x", which="minor", pad=18, length=0)
    axes.xaxis.remove_overlapping_locs = False  # a group of one bar has both names
    axes.set_xlim(-1, max(_LEAST, places[-1] + 1))
    axes.grid(axis="y", alpha=0.25)


def _stack(axes: Axes, places: Sequence[float], bars: Sequence[_Seconds]) -> None:
    bottom = [0.0] * len(bars)
    for _, phases, colour in _PHASES:
        heights = [1e3 * sum(own.get(phase, 0.0) for phase in phases) for own in bars]
        if any(heights):
            axes.bar(places, heights, width=0.85, bottom=bottom, color=colour)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
