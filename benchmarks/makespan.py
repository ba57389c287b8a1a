"""How near the schedule comes to the shortest possible one: `python -m benchmarks.makespan [sweeps]`.

Random sweeps on 64 simulated GPUs (8 nodes of 8), engines of 1, 2, 8 and 16 GPUs, in families of loads.
Prints makespan over lower bound: mean, 95th percentile and worst of each family. No schedule is
shorter than the lower bound, and often none reaches it, so 1.00 is not to be expected.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from rich.console import Console
from rich.table import Table

from moesd_dist.records import ModelSource, ModelSpec, SweepPoint, WorkloadSpec
from moesd_dist.sweep.grouping import EngineKey, Group, engine_key
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.rehearsal import Rehearsal, rehearse
from moesd_dist.sweep.schedule.work import Work

BAR = 1.15
LABEL = "ray.io/accelerator-type"
WIDTHS = (1, 2, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A sweep that is only numbers: works in the order given, and what the engines take."""

    works: Sequence[Work]
    rooms: Sequence[Room]
    needs: Mapping[EngineKey, Needs]
    start_s: Mapping[EngineKey, float]

    def rehearsed(self) -> Rehearsal:
        return rehearse(self.works, self.rooms, self.needs.__getitem__, self.start_s.__getitem__)


class Draft:
    """A load while it is drawn; `hours` of GPU time are shared out over the keys."""

    def __init__(self, random: Random, kinds: Sequence[str] = ("",) * 8) -> None:
        self.random = random
        self.rooms = [
            Room(node_id=f"node{i}", cpus=64, gpus=8, labels={LABEL: kind} if kind else {})
            for i, kind in enumerate(kinds)
        ]
        self.works: list[Work] = []
        self.needs: dict[EngineKey, Needs] = {}
        self.start_s: dict[EngineKey, float] = {}

    def add(self, gpus: int, seconds: Sequence[float], *, kind: str = "") -> None:
        """One more key with these groups."""
        groups = [group(len(self.needs), batch_size) for batch_size in range(1, len(seconds) + 1)]
        key = engine_key(groups[0])
        self.needs[key] = wide(gpus, kind)
        self.start_s[key] = self.random.uniform(60, 300)
        self.works += [
            Work(group=g, key=key, seconds=s) for g, s in zip(groups, seconds, strict=True)
        ]

    def lengths(self, gpu_hours: float, gpus: int, median_s: float, spread: float) -> list[float]:
        """Log-normal groups of that many GPU-hours together, none over an hour."""
        left, found = gpu_hours * 3600 / gpus, []
        while left > 0:
            found.append(min(3600.0, median_s * self.random.lognormvariate(0, spread)))
            left -= found[-1]
        return found

    def done(self) -> Load:
        return Load(works=self.works, rooms=self.rooms, needs=self.needs, start_s=self.start_s)


def wide(gpus: int, kind: str = "") -> Needs:
    """As layouts ask for it: a rank on each of two nodes from 16 GPUs on."""
    labels = ((LABEL, kind),) if kind else ()
    nodes = max(1, gpus // 8)
    return Needs(ranks=nodes, nodes=nodes, cpus=1, gpus=gpus // nodes, labels=labels)


def group(key: int, batch_size: int) -> Group:
    point = SweepPoint(
        engine=f"engine {key}",
        target=ModelSpec(name="target", source=ModelSource.embedded),
        workload=WorkloadSpec(
            name="random", prompt_tokens_min=1, prompt_tokens_max=1, output_tokens=1
        ),
        batch_size=batch_size,
        gamma=0,
    )
    return Group(baseline=point, points=(), baseline_is_new=True)


def mixed(random: Random) -> Load:
    draft = Draft(random)
    for _ in range(random.randint(8, 24)):
        gpus = random.choice(WIDTHS)
        draft.add(gpus, draft.lengths(random.uniform(4, 60), gpus, 600, 0.8))
    random.shuffle(draft.works)
    return draft.done()


def few_long_many_short(random: Random) -> Load:
    draft = Draft(random)
    for _ in range(random.randint(2, 6)):
        gpus = random.choice(WIDTHS)
        draft.add(gpus, [random.uniform(2400, 5400) for _ in range(random.randint(1, 3))])
    for _ in range(random.randint(4, 12)):
        gpus = random.choice(WIDTHS)
        draft.add(gpus, draft.lengths(random.uniform(10, 40), gpus, 120, 0.5))
    random.shuffle(draft.works)
    return draft.done()


def one_huge_key(random: Random) -> Load:
    draft = Draft(random)
    draft.add(random.choice((1, 2)), [random.uniform(60, 240) for _ in range(1500)])
    for gpus in random.choices(WIDTHS, k=random.randint(3, 8)):
        draft.add(gpus, draft.lengths(random.uniform(4, 20), gpus, 300, 0.6))
    return draft.done()


def wide_last(random: Random) -> Load:
    draft = Draft(random)
    for gpus in sorted(random.choices(WIDTHS, k=16)):
        draft.add(gpus, draft.lengths(random.uniform(8, 50), gpus, 600, 0.7))
    return draft.done()


def many_keys(random: Random) -> Load:
    """Each with little to do, so that starts are much of it."""
    draft = Draft(random)
    for _ in range(random.randint(100, 250)):
        gpus = random.choices(WIDTHS, weights=(8, 4, 2, 1))[0]
        draft.add(gpus, [random.uniform(60, 400) for _ in range(random.randint(1, 6))])
    random.shuffle(draft.works)
    return draft.done()


def mostly_wide(random: Random) -> Load:
    draft = Draft(random)
    for gpus in (16,) * random.randint(4, 10) + (1, 2) * random.randint(2, 8):
        draft.add(gpus, draft.lengths(random.uniform(10, 40), gpus, 600, 0.8))
    random.shuffle(draft.works)
    return draft.done()


def two_kinds(random: Random) -> Load:
    """Half H200, half L40, and engines for either."""
    draft = Draft(random, ("H200",) * 4 + ("L40",) * 4)
    for _ in range(random.randint(16, 30)):
        gpus, kind = random.choice(WIDTHS), random.choice(("H200", "L40"))
        draft.add(gpus, draft.lengths(random.uniform(4, 40), gpus, 600, 0.8), kind=kind)
    random.shuffle(draft.works)
    return draft.done()


FAMILIES: Mapping[str, Callable[[Random], Load]] = {
    "mixed": mixed,
    "few long, many short": few_long_many_short,
    "one key with 1,500 groups": one_huge_key,
    "wide ones last": wide_last,
    "100 to 250 small keys": many_keys,
    "mostly 16 GPUs": mostly_wide,
    "half H200, half L40": two_kinds,
}


def ratios(family: str, seeds: Sequence[int]) -> list[float]:
    """Makespan over lower bound, seed by seed."""
    rehearsed = (FAMILIES[family](Random(seed)).rehearsed() for seed in seeds)
    return [r.makespan_s / r.lower_bound_s for r in rehearsed]


def main() -> None:
    each = -(-int(sys.argv[1] if len(sys.argv) > 1 else 300) // len(FAMILIES))
    table = Table("load", "sweeps", "mean", "95th percentile", "worst", f"over {BAR}", "seconds")
    everything: list[float] = []
    for family in FAMILIES:
        began = time.perf_counter()
        found = ratios(family, range(each))
        everything += found
        table.add_row(family, *_figures(found), f"{time.perf_counter() - began:.0f}")
    table.add_row("all", *_figures(everything), "")
    Console(width=100).print(table)


def _figures(found: Sequence[float]) -> tuple[str, ...]:
    figures = np.mean(found), np.quantile(found, 0.95), max(found)
    return (f"{len(found)}", *(f"{x:.3f}" for x in figures), f"{sum(x > BAR for x in found)}")


if __name__ == "__main__":
    main()
