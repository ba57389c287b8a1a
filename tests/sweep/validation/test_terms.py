"""A calibration as the terms of a layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesd_dist.records import LayoutSpec
from moesd_dist.records.calibration import COUNTS, CollectiveTimes, RankRates
from moesd_dist.sweep.validation.terms import means, terms_of
from tests.sweep.validation.known_cluster import calibration, exchange_s, over


def rates(ranks: int, host: str, **changes: float) -> RankRates:
    values = {"read_bytes_per_s": 1e10, "gemm_flops": 1e11} | changes
    return RankRates(ranks=ranks, nodes=1, host=host, **values)


SPREAD = np.log(1.03 / 0.97) / 1.349  # of the calibration's quartiles
SLOW = np.exp(SPREAD**2 / 2)  # the mean of calls that scatter so much, over their median


def test_collectives_take_what_was_timed():
    terms = terms_of(calibration(), over(2))
    assert terms.cost.all_to_all_s(4096.0, 2) == pytest.approx(SLOW * exchange_s(4096))


def test_more_bytes_never_take_less_time():
    seconds = (2e-4, 8e-4, 2e-4, 9e-4)
    times = CollectiveTimes(
        collective="all_to_all", ranks=2, nodes=1, row_bytes=(64, 256, 1024, 4096),
        seconds=seconds, low_s=seconds, high_s=seconds,
    )  # fmt: skip
    cost = terms_of(replace(calibration((2,)), collectives=(times,)), over(2)).cost
    found = [float(cost.all_to_all_s(size, 2)) for size in times.row_bytes]
    assert found == pytest.approx([2e-4, 4e-4, 4e-4, 9e-4])


def test_the_mean_of_calls_is_that_of_a_law_with_their_quartiles():
    """Held against draws: slow calls count in a sum, though not in a median."""
    drawn = np.random.default_rng(0).lognormal(np.log(2e-4), 0.8, size=200_000)
    low, middle, high = np.quantile(drawn, (0.25, 0.5, 0.75))
    times = CollectiveTimes(
        collective="all_to_all", ranks=2, nodes=1, row_bytes=(64,),
        seconds=(middle,), low_s=(low,), high_s=(high,),
    )  # fmt: skip
    assert means(times) == pytest.approx([drawn.mean()], rel=0.02)


def test_counts_that_were_timed_are_taken_as_they_are():
    counts = CollectiveTimes(
        collective=COUNTS, ranks=2, nodes=1, row_bytes=(8,), seconds=(7e-5,), low_s=(7e-5,), high_s=(7e-5,)
    )  # fmt: skip
    known = replace(calibration(), counts=(counts,))
    assert np.asarray(terms_of(known, over(2)).cost.counts_s([2, 2])) == pytest.approx(7e-5)
    assert terms_of(calibration(), over(2)).cost.counts_s(2) == pytest.approx(SLOW * exchange_s(64))


def test_the_spread_is_that_of_the_quartiles():
    assert terms_of(calibration(), over(4)).spread == pytest.approx(SPREAD)


def test_a_kept_error_of_the_mean_counts_twice_there_and_here():
    known = calibration()
    exact = tuple(
        replace(c, mean_s=c.seconds, error_s=tuple(0.1 * s for s in c.seconds))
        for c in known.collectives
    )
    spread = terms_of(replace(known, collectives=exact), over(4)).spread
    assert spread == pytest.approx(0.1 * np.sqrt(2.0))


def test_ranks_have_the_share_of_the_one_that_loses_most_beside_its_own_host():
    known = replace(
        calibration(),
        rates=(
            rates(1, "fast", read_bytes_per_s=2e10),
            replace(rates(1, "slow"), nodes=1),
            rates(2, "fast", read_bytes_per_s=1.8e10),
            rates(2, "slow", read_bytes_per_s=0.7e10),
        ),
    )
    terms = terms_of(known, over(2))
    assert terms.memory == pytest.approx(0.7)
    assert terms.compute == 1.0


def test_cores_are_judged_by_what_stays_in_their_cache():
    known = replace(
        calibration(),
        rates=(rates(1, "here", kernel_s=1e-3), rates(2, "here", kernel_s=2e-3, gemm_flops=9e10)),
    )
    assert terms_of(known, over(2)).compute == pytest.approx(0.5)


def test_ranks_together_are_never_faster_than_alone():
    known = replace(
        calibration(), rates=(rates(1, "here"), rates(2, "here", read_bytes_per_s=1.1e10))
    )
    assert terms_of(known, over(2)).memory == 1.0


def test_a_layout_that_was_not_calibrated_is_named():
    with pytest.raises(
        ValueError, match=r"knows \(ranks, nodes\) \[\(2, 1\), \(4, 1\)\].*\(4, 2\)"
    ):
        terms_of(calibration(), LayoutSpec(dp_size=4, ep_size=4, nodes=2))
