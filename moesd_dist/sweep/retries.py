"""How often a group is tried, where next, and when it is given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moesd_dist.records import Failed, SweepPoint

_FINAL = "ValueError: "  # what was asked for is wrong: asking again gives the same answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """`attempts` where a worker, a node or an answer was lost; `on_error` where the engine raised."""

    attempts: int = 3
    on_error: int = 2
    backoff_s: float = 5.0  # before the second attempt; doubles with each


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try that brought no result; `nodes` are Ray's ids, `place` is their names for a person."""

    reason: str
    nodes: tuple[str, ...] = ()
    place: str = ""
    lost: bool = True  # a worker, a node or an answer; else the engine raised
    log: str = ""

    @property
    def final(self) -> bool:
        """Asking again would give the same answer."""
        return not self.lost and self.reason.startswith(_FINAL)


class Attempts:
    """What has been tried in vain, by point."""

    def __init__(self, rule: RetryRule) -> None:
        self._rule = rule
        self._tried: dict[str, list[Attempt]] = {}

    def note(self, points: Sequence[SweepPoint], attempt: Attempt) -> None:
        for point in points:
            self._tried.setdefault(point.point_id, []).append(attempt)

    def over(self, point: SweepPoint) -> bool:
        """Whether the point is given up: too many tries of either kind, or a reason that stays."""
        tried = self._tried.get(point.point_id, [])
        raised = sum(not attempt.lost for attempt in tried)
        return (
            any(attempt.final for attempt in tried)
            or raised >= self._rule.on_error
            or len(tried) >= self._rule.attempts
        )

    def wait_s(self, point: SweepPoint) -> float:
        """Before the next try."""
        tried = len(self._tried.get(point.point_id, []))
        return self._rule.backoff_s * 2.0 ** (tried - 1) if tried else 0.0

    def nodes(self, point: SweepPoint) -> frozenset[str]:
        """Where it failed: others first."""
        return frozenset(n for a in self._tried.get(point.point_id, []) for n in a.nodes)

    def last(self, point: SweepPoint) -> Attempt:
        return self._tried[point.point_id][-1]

    def count(self, point: SweepPoint) -> int:
        return len(self._tried.get(point.point_id, []))

    def failed(self, point: SweepPoint) -> Failed:
        """The last reason first, since it is what a list shows; then every try with its place."""
        tried = self._tried[point.point_id]
        if len(tried) == 1:
            return Failed(point=point, reason=tried[0].reason, log=tried[0].log)
        told = "; ".join(f"{n}. {_where(a)}{a.reason}" for n, a in enumerate(tried, start=1))
        logs = [f"== attempt {n} {_where(a)}==\n{a.log}" for n, a in enumerate(tried, 1) if a.log]
        reason = f"{tried[-1].reason} ({len(tried)} attempts: {told})"
        return Failed(point=point, reason=reason, log="\n".join(logs))


def _where(attempt: Attempt) -> str:
    return f"on {attempt.place}: " if attempt.place else ""
