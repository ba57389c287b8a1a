"""Points on several ranks that share the experts, in one fit with those of one: which, and by what terms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.fitting.settings import Each
from moesd_dist import calibrations
from moesd_dist.config import EngineKind
from moesd_dist.engines.analytic_ranks import DISPATCHES
from moesd_dist.records import LayoutSpec, Measurement
from moesd_dist.records.calibration import Calibration
from moesd_dist.sweep.validation.terms import shared_terms
from moesd_dist.theory.expert_parallel.dispatch import Dispatch
from moesd_dist.theory.expert_parallel.ranks_fit import ALONE, SharedTerms

_APART = "or fit each by itself with each=layouts"


def is_across_ranks(members: Sequence[Measurement], each: Each) -> bool:
    """Whether the fit has to know of links. A layout that is asked for by itself is what it is."""
    return each is not Each.layouts and bool(layouts_of(members))


def layouts_of(members: Sequence[Measurement]) -> list[LayoutSpec]:
    """Those of several ranks; vLLM's exchange is its own and nobody calibrates it."""
    shared = (m.point for m in members if m.point.engine != EngineKind.vllm.value)
    return list(dict.fromkeys(p.layout for p in shared if p.layout.dp_size > 1))


def check_layouts(members: Sequence[Measurement]) -> None:
    """ValueError where the law of ranks holds for some layouts only, or links are of two kinds."""
    layouts = layouts_of(members)
    ranks = [layout.dp_size for layout in layouts]
    if twice := [n for n in ranks if ranks.count(n) > 1]:
        raise ValueError(
            f"a fit across ranks takes every number of them once, there are {ranks.count(twice[0])} "
            f"layouts of {twice[0]} ranks; give sweeps of one of them, {_APART}"
        )
    if len({_dispatch(layout) for layout in layouts}) > 1:
        raise ValueError(
            "a fit across ranks is of one layout.all2all_backend, there are several; give sweeps of "
            f"one of them, {_APART}"
        )
    if replicated := [layout for layout in layouts if layout.redundant_experts]:
        raise ValueError(
            "a fit across ranks takes every expert to lie on one of them, "
            f"{replicated[0].dp_size} ranks have {replicated[0].redundant_experts} redundant ones; "
            f"give sweeps without, {_APART}"
        )


def terms_of_fit(
    measured: Sequence[Measurement], each: Each, calibration: str
) -> tuple[SharedTerms, str]:
    """What is known of ranks before a fit, and of what day the calibration is, if one was given.

    ValueError for a file that is none, is of other layouts or threads, or is of no use here.
    """
    if not is_across_ranks(measured, each):
        if calibration:
            raise ValueError(
                "calibration=FILE is of the links between ranks, and no points of several ranks are "
                f"fitted with those of one here{' (each=layouts)' if each is Each.layouts else ''}; "
                "leave it away"
            )
        return ALONE, ""
    layouts = layouts_of(measured)
    if not calibration:
        return SharedTerms(dispatch=_dispatch(layouts[0])), ""
    known = calibrations.read(Path(calibration))
    _check_threads(known, measured)
    return shared_terms(known, layouts, _dispatch(layouts[0])), known.measured


def _dispatch(layout: LayoutSpec) -> Dispatch:
    """How both engines send tokens by a backend of that name."""
    return DISPATCHES.get(layout.all2all_backend, Dispatch.ONCE_A_RANK)


def _check_threads(calibration: Calibration, measured: Sequence[Measurement]) -> None:
    others = {m.point.threads for m in measured if not m.point.simulated} - {calibration.threads}
    if others:
        raise ValueError(
            f"the calibration of {calibration.measured} is of ranks with {calibration.threads} "
            f"threads, the points have {sorted(others)[0]}; calibrate with as many"
        )
