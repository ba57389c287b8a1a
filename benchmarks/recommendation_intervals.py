"""Whether intervals of speedup differences between two gammas hold what was measured.

    python -m benchmarks.recommendation_intervals docs/results/full_grid_cpu/points.json

Draws 12 of a setting's points, fits and joins them, and compares every pair of gammas that was held
out at one batch size with its 90 % interval. Forty draws for each top_k.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats

from analysis.acceptance import read_points
from analysis.recommending.evidence import observed
from moesd_dist.models.counts import counts_of
from moesd_dist.records import Measurement
from moesd_dist.sweep.adaptive.observations import step_data
from moesd_dist.theory.choices.conditioning import Estimate, estimate
from moesd_dist.theory.choices.decision import difference_variance
from moesd_dist.theory.steps.fit import fit_steps
from moesd_dist.theory.steps.prediction_errors import Place
from moesd_dist.workloads.acceptance_points import profile_of, speculative

KEPT, DRAWS, LEVEL = 12, 40, 0.9


def deviations(points: Sequence[Measurement], seed: int) -> list[float]:
    """Of each held-out difference from its estimate, in standard deviations."""
    order = np.random.default_rng(seed).permutation(len(points))
    kept, held_out = ([points[i] for i in part] for part in (order[:KEPT], order[KEPT:]))
    return list(_compared(_estimate(kept, points), held_out))


def _estimate(kept: Sequence[Measurement], points: Sequence[Measurement]) -> Estimate:
    data, spec = step_data(kept), kept[0].point
    assert spec.sd.draft is not None
    fit = fit_steps(data, target=counts_of(spec.target), draft=counts_of(spec.sd.draft))
    place = Place(top_k=data.top_k[0], context_tokens=data.context_tokens.mean())
    sizes = sorted({m.point.batch_size for m in points})
    gammas = sorted({m.point.gamma for m in points})
    return estimate(fit, profile_of(kept), sizes, gammas, place, observed(kept))


def _compared(found: Estimate, held_out: Sequence[Measurement]) -> Iterator[float]:
    seen = observed(held_out)
    for i, j in combinations(range(len(held_out)), 2):
        one, other = held_out[i].point, held_out[j].point
        if one.batch_size == other.batch_size:
            row = found.batch_sizes.index(one.batch_size)
            a, b = found.gammas.index(one.gamma), found.gammas.index(other.gamma)
            noise = difference_variance(seen.noise, i, j)
            variance = difference_variance(found.covariance[row], a, b) + noise
            measured = seen.log_speedup[i] - seen.log_speedup[j]
            expected = found.log_speedup[row, a] - found.log_speedup[row, b]
            yield float((measured - expected) / np.sqrt(variance))


def main() -> None:
    points = speculative(read_points(Path(sys.argv[1])))
    for top_k in sorted({m.top_k for m in points}):
        setting = [m for m in points if m.top_k == top_k]
        found = np.concatenate([deviations(setting, seed) for seed in range(DRAWS)])
        inside = np.mean(np.abs(found) < stats.norm.ppf(0.5 + LEVEL / 2))
        print(
            f"top_k {top_k}: {100 * inside:.0f} % of {len(found)} differences inside their "
            f"{100 * LEVEL:.0f} % interval, rms {np.sqrt(np.mean(found**2)):.2f} standard deviations"
        )


if __name__ == "__main__":
    main()
