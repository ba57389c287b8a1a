"""How few points an adaptive sweep needs: its choice replayed on a grid that was measured whole.

    python -m benchmarks.adaptive_replay docs/results/full_grid_cpu/points.json [--strided 21] [--random 200]

Prints the mean absolute error of predicted speedups on the points that neither the chosen subset nor the
strided one holds, after each number of SD points. Acceptance comes from the chosen points (pooled by
top_k and workload) or, in the second table, is taken as measured at the point, so that times alone err.
The third table is what the recommended gamma loses to the best measured one, mean over all batch sizes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from moesd_dist.models.counts import counts_of
from moesd_dist.records import Measurement, Role
from moesd_dist.records.serial import measurement_from_plain
from moesd_dist.sweep.adaptive.choice import Known, acceptance_by_setting
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.sweep.adaptive.pool import pool_of
from moesd_dist.sweep.adaptive.rounds import AdaptivePlan, AdaptiveRule
from moesd_dist.theory.choices.design import Objective
from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.theory.moesd.strides import evenly_spaced, grid_order
from moesd_dist.theory.steps.fit import fit_steps
from moesd_dist.theory.steps.model import Grid

Indices = list[int]


@dataclass(frozen=True)
class Errors:
    """Absolute relative errors of speedups, [held points]."""

    pooled: np.ndarray  # acceptance of the chosen points
    given: np.ndarray  # acceptance as measured
    regret: float


class Replay:
    """A whole grid, of which only chosen points are shown to the fit."""

    def __init__(self, measured: Sequence[Measurement]) -> None:
        self.sd = [m for m in measured if m.point.role is Role.sd]
        first = self.sd[0].point
        self.target = counts_of(first.target)
        self.draft = counts_of(first.sd.draft) if first.sd.draft else NO_MODEL
        self.grid = [p for m in self.sd for p in (m.point.baseline, m.point)]
        self.pool = pool_of(self.grid, own_top_k=self.target.top_k)
        self.data = step_data(self.sd)

    def strided(self, count: int) -> Indices:
        order = grid_order(self.data.batch_size, self.data.gamma, self.data.top_k)
        return [int(i) for i in order[evenly_spaced(count, len(self.sd))]]

    def adaptive(self, objective: Objective, count: int, *, start: int, per_round: int) -> Indices:
        """Places in the order of their measurement."""
        rule = AdaptiveRule(
            objective=objective,
            start=start,
            per_round=per_round,
            budget=count,
            target_interval=-1.0,
        )
        plan = AdaptivePlan(self.grid, rule, target=self.target, draft=self.draft)
        places = {m.point.point_id: i for i, m in enumerate(self.sd)}
        chosen: Indices = []
        while points := plan.next_round([self.sd[i] for i in chosen]).points:
            chosen += [places[p.point_id] for p in points if p.gamma]
        return chosen

    def predicted(self, chosen: Indices) -> tuple[np.ndarray, np.ndarray]:
        """Speedups of the whole grid, [points], with the acceptance of the chosen points and as measured."""
        seen = self.data.take(chosen)
        fit = fit_steps(seen, target=self.target, draft=self.draft)
        known = Known(places=np.array(chosen), data=seen, fit=fit)
        profiles = acceptance_by_setting(self.pool, known)
        pairs = zip(self.pool.setting, self.pool.gamma.astype(int), strict=True)
        grid = Grid(
            batch_size=self.pool.batch_size,
            gamma=self.pool.gamma,
            top_k=self.pool.top_k,
            context_tokens=seen.context_tokens.mean(),
        )
        times = fit.model.round_seconds(grid)
        sigma = np.array([profiles[setting].sigma(gamma) for setting, gamma in pairs])
        return times.speedup(sigma), times.speedup(self.data.sigma)

    def errors(self, chosen: Indices, held: Indices) -> Errors:
        pooled, given = self.predicted(chosen)
        wrong = [np.abs(found / self.data.speedup - 1.0)[held] for found in (pooled, given)]
        return Errors(pooled=wrong[0], given=wrong[1], regret=self.regret(pooled))

    def regret(self, predicted: np.ndarray) -> float:
        """1 - measured speedup of the recommended gamma over the best measured one; gamma 0 counts 1."""
        lost = []
        for group in np.unique(self.pool.group):
            members = np.flatnonzero(self.pool.group == group)
            promised = np.append(predicted[members], 1.0)
            found = np.append(self.data.speedup[members], 1.0)
            lost.append(1.0 - found[np.argmax(promised)] / found.max())
        return float(np.mean(lost))

    def held(self, *used: Indices) -> Indices:
        return [i for i in range(len(self.sd)) if not any(i in chosen for chosen in used)]

    def random(self, count: int, draws: int) -> Iterator[Indices]:
        rng = np.random.default_rng(count)
        while draws:
            chosen = rng.choice(len(self.sd), size=count, replace=False)
            if np.unique(self.data.batch_size[chosen]).size > 1:
                draws -= 1
                yield [int(i) for i in chosen]


def rows(
    replay: Replay, orders: dict[str, Indices], counts: Sequence[int], strided: Indices, draws: int
) -> Iterator[tuple[int, dict[str, tuple[Errors, Errors]], list[Errors]]]:
    """For each count: (its own error, the strided one's on the same points) by name; random ones."""
    for count in counts:
        found = {}
        for name, order in orders.items():
            held = replay.held(order[:count], strided)
            found[name] = replay.errors(order[:count], held), replay.errors(strided, held)
        drawn = [replay.errors(c, replay.held(c, strided)) for c in replay.random(count, draws)]
        yield count, found, drawn


def table(title: str, found: list, of: Callable[[Errors], np.ndarray]) -> Table:
    """Beside each error the strided one on the same points, and their difference, paired."""
    heads = [h for name in found[0][1] for h in (name, "strided there", "difference ± its error")]
    made = Table("points", *heads, "random: median [5 %, 95 %]", title=title)
    for count, errors, drawn in found:
        cells = []
        for own, strided in errors.values():
            more = of(own) - of(strided)
            spread = more.std(ddof=1) / np.sqrt(len(more))
            cells += [f"{of(own).mean():.2%}", f"{of(strided).mean():.2%}"]
            cells += [f"{100 * more.mean():+.2f} ± {100 * spread:.2f}"]
        low, middle, high = np.percentile([of(e).mean() for e in drawn], [5, 50, 95])
        made.add_row(str(count), *cells, f"{middle:.2%} [{low:.2%}, {high:.2%}]")
    return made


def regrets(title: str, found: list) -> Table:
    """The strided subset's is the same in every row."""
    names = list(found[0][1])
    made = Table("points", *names, "strided", "random: median [5 %, 95 %]", title=title)
    for count, errors, drawn in found:
        low, middle, high = np.percentile([e.regret for e in drawn], [5, 50, 95])
        own = [f"{errors[name][0].regret:.2%}" for name in names]
        cells = [*own, f"{errors[names[0]][1].regret:.2%}"]
        made.add_row(str(count), *cells, f"{middle:.2%} [{low:.2%}, {high:.2%}]")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("points", type=Path, help="points.json of analysis.export")
    parser.add_argument("--counts", type=int, nargs="+", default=[4, 6, 8, 10, 12, 16, 18, 21])
    parser.add_argument("--strided", type=int, default=21)
    parser.add_argument("--random", type=int, default=200)
    parser.add_argument("--start", type=int, default=4)
    parser.add_argument("--per-round", type=int, default=2)
    options = parser.parse_args()
    replay = Replay([measurement_from_plain(m) for m in json.loads(options.points.read_text())])
    orders = {
        objective.value: replay.adaptive(
            objective, max(options.counts), start=options.start, per_round=options.per_round
        )
        for objective in Objective
    }
    console = Console(width=150)
    for name, order in orders.items():
        names = (replay.sd[i].point for i in order)
        text = ", ".join(f"{p.batch_size}/{p.gamma}/{p.top_k or '-'}" for p in names)
        console.print(f"{name} measures (batch size/gamma/top_k): {text}", highlight=False)
    strided = replay.strided(options.strided)
    found = list(rows(replay, orders, options.counts, strided, options.random))
    against = f"error on points in neither set; {options.strided} strided points beside it"
    console.print(table(f"acceptance of the chosen points: {against}", found, lambda e: e.pooled))
    console.print(table(f"acceptance given: {against}", found, lambda e: e.given))
    console.print(regrets(f"lost to the best measured gamma; {options.strided} strided", found))


if __name__ == "__main__":
    main()
