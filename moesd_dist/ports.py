"""What the sweep asks of an engine and of a tracker; each is owned by the side that calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol, runtime_checkable

from moesd_dist.records import Infeasible, Measurement, Outcome, Repeat, SweepPoint
from moesd_dist.records.driver import Driver


class Engine(Protocol):
    """Measures points that share a model pair, a device and a layout; loaded once, used for many."""

    def describe(self) -> Mapping[str, str]:
        """`host`, `device_name`, `experts_path`, versions under `version.<package>`, and what decides
        the machine's pace now under `machine.<fact>`."""
        ...

    def infeasible(self, point: SweepPoint) -> Infeasible | None:
        """Why the point cannot run here, before anything is spent; None if it can."""
        ...

    def together(self, points: Sequence[SweepPoint]) -> bool:
        """Whether repeats of these points can take turns without anything being loaded again."""
        ...

    def warm_up(self, point: SweepPoint) -> None:
        """Runs the point's rounds untimed."""
        ...

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        """One repeat; the same `repeat` means the same prompts, whatever the gamma."""
        ...

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        """(num_experts, experts per token) as the router really chose; (0, 0) if dense."""
        ...

    def close(self) -> None: ...


class TrackerUnavailable(Exception):  # noqa: N818  (it says what is the matter)
    """The store does not answer or cannot write now: nothing is wrong with what was to be written."""


class Tracker(Protocol):
    """Keeps one sweep; only the driver holds one. Any method may raise TrackerUnavailable."""

    def open(self, sweep_id: str, name: str, points: Sequence[SweepPoint]) -> None:
        """Starts the sweep, or continues the one with the same id."""
        ...

    def finished(self) -> Mapping[str, Measurement | Infeasible]:
        """Outcomes already complete, by point id: read back, never measured again."""
        ...

    def trust(self, finished: Mapping[str, Measurement | Infeasible]) -> None:
        """Exactly these are finished, and none is withdrawn: they need not be read back."""
        ...

    def withdrawn(self) -> Set[str]:
        """Ids of points that were finished, do not count any more, and were not recorded since."""
        ...

    def record(self, outcome: Outcome, metrics: Mapping[str, float]) -> None:
        """Writes one outcome; marks it finished last."""
        ...

    def withdraw(self, point_id: str, why: str) -> None:
        """A finished point no longer counts and may be recorded once more; its data stays."""
        ...

    def log_curves(self, curves: Mapping[str, Mapping[int, float]]) -> None:
        """Summary curves of the sweep, name to batch size to value."""
        ...

    def log_file(self, path: Path, folder: str = "") -> None: ...

    def close(self, status: str) -> None:
        """`finished`, `incomplete` or `failed`."""
        ...

    @property
    def address(self) -> str:
        """How a person opens it: a command or a URL."""
        ...

    @property
    def run_id(self) -> str:
        """What it calls the open sweep: another one means that nothing has been written yet."""
        ...


@runtime_checkable
class SharedTracker(Tracker, Protocol):
    """A tracker that drivers on other machines can reach as well: one at a time writes a sweep."""

    def open(
        self, sweep_id: str, name: str, points: Sequence[SweepPoint], ended: Driver | None = None
    ) -> None:
        """ValueError if another driver writes the sweep now; `ended` is one that does not."""
        ...

    def renew(self) -> None:
        """Says that this driver still writes; ValueError if another one has taken over."""
        ...

    @property
    def last_driver(self) -> Driver | None:
        """Who closed the sweep before, so that all it wrote is there; None if that is not certain."""
        ...


@runtime_checkable
class BulkTracker(Tracker, Protocol):
    """A tracker that writes many outcomes faster than one after the other."""

    def record_many(
        self, outcomes: Sequence[Outcome], metrics: Sequence[Mapping[str, float]]
    ) -> list[int]:
        """Of different points, in any order; the places of those that are written.

        TrackerUnavailable if none could be.
        """
        ...
