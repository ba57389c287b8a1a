"""Expected seconds from the best that is known, put right by what this sweep really takes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from moesd_dist.records import SweepPoint
from moesd_dist.sweep.grouping import EngineKey, Group, engine_key
from moesd_dist.sweep.schedule.pace import Estimate, Guess, Pace, group_seconds

# Ours, to a factor of three: a worker with its imports, and for vLLM compiling and capturing graphs.
LAUNCH_S = {"analytic": 3.0, "transformers": 15.0, "vllm": 90.0}
RECENT = 25  # groups of which the median is taken
READ_BYTES_PER_S = 1e9  # weights from a disk or over a network onto the device; ours likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """What an engine loads before it measures: vLLM keeps one LLM for each SD setting."""

    llms: int = 1
    weight_bytes: float = 0.0  # of all of them, on each rank


class LearningCosts:
    """Asks the estimates in order, the best one first, and guesses where none of them knows.

    The median ratio of observed to expected seconds over the last groups of an engine
    multiplies what is expected of it; an engine of which nothing was seen takes that of all. A first
    group in which the engine also loads is an outlier that a median forgets.
    """

    def __init__(
        self, estimates: Sequence[Estimate], loadings: Mapping[EngineKey, Loading] | None = None
    ) -> None:
        self._estimates: tuple[Estimate, ...] = (*estimates, Guess())
        self._loadings = dict(loadings or {})
        self._known: dict[Group, tuple[float, str]] = {}
        self._off: dict[EngineKey, deque[float]] = {}  # logarithms of ratios
        self._all: deque[float] = deque(maxlen=RECENT)

    def group_s(self, group: Group) -> float:
        return self._expected(group)[0] * self._ratio(engine_key(group))

    def start_s(self, key: EngineKey) -> float:
        loading = self._loadings.get(key, Loading())
        return (
            LAUNCH_S.get(key.engine, 0.0) * loading.llms + loading.weight_bytes / READ_BYTES_PER_S
        )

    def source_of(self, group: Group) -> str:
        source = self._expected(group)[1]
        if engine_key(group) not in self._off:
            return source
        return f"{source or 'a guess'}, put right by this sweep"

    def observed(self, group: Group, seconds: float) -> None:
        expected, _ = self._expected(group)
        if seconds > 0.0 and expected > 0.0:
            ratio = math.log(seconds / expected)
            self._off.setdefault(engine_key(group), deque(maxlen=RECENT)).append(ratio)
            self._all.append(ratio)

    @property
    def source(self) -> str:
        """Of the groups that were asked for."""
        return "; ".join(dict.fromkeys(filter(None, map(self.source_of, self._known))))

    def _ratio(self, key: EngineKey) -> float:
        own = self._off.get(key) or self._all
        return math.exp(median(own)) if own else 1.0

    def _expected(self, group: Group) -> tuple[float, str]:
        if group not in self._known:
            found = [self._pace(p) for p in (group.baseline, *group.points)]
            places = [place for place, _ in found]
            worst = self._estimates[max(places)].source  # the group is known no better than that
            self._known[group] = (group_seconds(group, [pace for _, pace in found]), worst)
        return self._known[group]

    def _pace(self, point: SweepPoint) -> tuple[int, Pace]:
        """The first estimate that knows, by its place, and what it says."""
        asked = ((place, one.pace(point)) for place, one in enumerate(self._estimates))
        return next((place, pace) for place, pace in asked if pace is not None)
