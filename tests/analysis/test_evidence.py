"""Errors as repeats show them: shared by gammas of a batch, and wider than a coin's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.recommending.evidence import at_acceptance, correlation, observed, outside
from analysis.recommending.selection import one_setting
from moesd_dist.records import Measurement, Repeat
from moesd_dist.sweep.statistics import paired_interval, speedup
from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from tests.analysis.conftest import untimed
from tests.analysis.known_sweep import REPEATS, sweep


def noisy_baseline(spread: float) -> list[Measurement]:
    """All noise in the baseline, which the gammas of a batch size share."""
    random = np.random.default_rng(1)
    found = []
    for size in (1, 4, 16):
        scales = np.exp(spread * random.standard_normal(REPEATS))
        for m in sweep((size,), noise=0.0):
            baseline = [_slower(r, x) for r, x in zip(m.baseline, scales, strict=True)]
            found.append(replace(m, baseline=tuple(baseline)))
    return found


def _slower(repeat: Repeat, scale: float) -> Repeat:
    return replace(repeat, seconds=repeat.seconds * float(scale))


def test_a_normal_interval_of_the_noise_is_student_s():
    points = sweep()
    seen = observed(points)
    for place, m in enumerate(points):
        interval = paired_interval(m.paired_speedups())
        half = 1.959964 * np.sqrt(seen.noise[place, place])
        assert np.exp(seen.log_speedup[place] + half) == pytest.approx(interval.high, rel=1e-6)
        assert np.exp(seen.log_speedup[place]) == pytest.approx(speedup(m))


def test_noise_of_the_baseline_is_shared_by_the_gammas_of_a_batch_size():
    points = noisy_baseline(0.05)
    assert correlation(points) == pytest.approx(0.95)
    noise = observed(points).noise
    assert noise[0, 1] == pytest.approx(0.95 * np.sqrt(noise[0, 0] * noise[1, 1]))
    assert noise[0, 2] == 0.0  # another batch size
    assert np.linalg.eigvalsh(noise).min() > 0


def test_noise_of_its_own_is_not():
    assert correlation(sweep(noise=0.01)) < 0.8


def test_a_single_repeat_is_as_noisy_as_the_others_usually_are():
    points = sweep()
    lone = replace(points[0], repeats=points[0].repeats[:1], baseline=points[0].baseline[:1])
    usual = np.sort(np.sqrt(np.diag(observed(points[1:]).noise)))
    found = np.sqrt(observed([lone, *points[1:]]).noise[0, 0])
    assert usual[0] <= found <= usual[-1]
    assert np.sqrt(observed([lone]).noise[0, 0]) == pytest.approx(0.05)


def test_another_acceptance_scales_the_tokens_of_the_measured_rounds():
    points = sweep(gammas=(3,))
    seen = observed(points)
    perfect = at_acceptance(seen, points, AcceptanceProfile(conditional=(1.0, 1.0, 1.0)))
    gained = np.exp(perfect.log_speedup - seen.log_speedup)
    assert gained == pytest.approx([4.0 / m.acceptance_length for m in points])


def test_only_batch_sizes_outside_the_measured_ones_are_remarked_on():
    assert outside([2, 8], [1, 4, 8]) == []
    assert "Outside B=1..8" in outside([2, 9], [1, 4, 8])[0]


def test_untimed_points_are_no_evidence() -> None:
    with pytest.raises(ValueError, match="untimed points have no speedup to fit or compare"):
        one_setting([untimed(8, 3), untimed(16, 3)], {})
