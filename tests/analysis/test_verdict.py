"""Sentences claim what was measured and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.report import verdict
from moesd_dist.records import DraftMethod, Failed, Infeasible, Measurement, Role, SdSpec
from tests.analysis.conftest import control, hump, measure, point, untimed

Efficiencies = dict[int, float]


def line(efficiencies: Efficiencies, repeats: int = 5) -> list[Measurement]:
    return [measure(point(b, 3), efficiency=e, repeats=repeats) for b, e in efficiencies.items()]


@pytest.mark.parametrize(
    ("efficiencies", "expected"),
    [
        pytest.param({1: 0.5, 8: 0.8, 32: 0.5}, "rises then falls inside B=1..32", id="a hump"),
        pytest.param(
            {1: 0.8, 8: 0.7}, "at the lower edge of the measured range B=1..8", id="falls"
        ),
        pytest.param(
            {2: 0.8, 8: 0.7},
            "at the lower edge of the measured range B=2..8, so a smaller batch may gain more",
            id="falls from B=2",
        ),
        pytest.param(
            {1: 0.6, 8: 0.7},
            "at the upper edge of the measured range B=1..8, so it may rise further",
            id="rises",
        ),
        pytest.param(
            {1: 0.7, 8: 0.702, 32: 0.5},
            "inside B=1..32, but not clear of both ends",
            id="a peak within the noise of an end",
        ),
        pytest.param({8: 0.7}, "no other batch size was measured", id="one batch size"),
    ],
)
def test_where_the_peak_lies(efficiencies: Efficiencies, expected: str) -> None:
    (sentence,) = verdict(line(efficiencies))
    assert f"; {expected}" in sentence


def test_a_peak_comes_with_interval_batch_size_and_what_limits_it() -> None:
    one, three = verdict(hump())
    assert one.startswith("gamma=1: highest speedup 1.16 [1.15, 1.18] at B=8, faster than the")
    assert three.startswith("gamma=3: highest speedup 1.58 [1.57, 1.60] at B=8")
    assert "limited most by target efficiency 0.62 (acceptance 0.70, drafting 0.92" in three


def test_a_hump_after_single_repeats_is_no_claim() -> None:
    (sentence,) = verdict(line({1: 0.5, 8: 0.8, 32: 0.5}, repeats=1))
    assert "(one repeat, no interval)" in sentence
    assert "rises then falls" not in sentence


@pytest.mark.parametrize(
    ("efficiency", "expected"),
    [
        pytest.param(0.8, ", faster than the baseline", id="above 1"),
        pytest.param(0.376, ", its interval contains 1", id="around 1"),
        pytest.param(0.2, ", slower than the baseline", id="below 1"),
    ],
)
def test_the_interval_decides_what_is_said_of_the_baseline(
    efficiency: float, expected: str
) -> None:
    (sentence,) = verdict(line({8: efficiency}))
    assert expected in sentence


def test_each_setting_has_its_own_sentence() -> None:
    sentences = verdict([*hump(top_k=4), *hump(top_k=8)])
    names = ["gamma=1 (top_k 4)", "gamma=3 (top_k 4)", "gamma=1 (top_k 8)", "gamma=3 (top_k 8)"]
    assert [sentence.split(":")[0] for sentence in sentences] == names


def test_a_control_whose_interval_contains_1() -> None:
    (sentence,) = verdict([control(1), control(8)])
    assert sentence.startswith("A/A control: the interval contains 1 at all of B=1, 8")


def test_a_control_that_misses_1_is_named() -> None:
    (sentence,) = verdict([control(1), control(8, slower=1.05)])
    assert "does not contain 1 at 1 of 2 batch sizes, 0.95 [0.94, 0.96] at B=8" in sentence


def test_a_control_of_one_repeat_claims_nothing() -> None:
    one = control(8)
    (sentence,) = verdict([replace(one, repeats=one.repeats[:1], baseline=one.baseline[:1])])
    assert sentence == "A/A control: one repeat, no interval; 1.01 at B=8."


def test_missing_points_are_named_with_their_reasons() -> None:
    broken = [Failed(point=point(b, 1), reason="RuntimeError: boom") for b in (32, 64)]
    large = Infeasible(point=point(64, 3), reason="needs 12.0 GiB of cpu memory")
    assert verdict([*broken, large]) == [
        "Failed: B=32 gamma=1; B=64 gamma=1: RuntimeError: boom.",
        "Infeasible: B=64 gamma=3: needs 12.0 GiB of cpu memory.",
    ]


def test_cautions_come_first() -> None:
    coin = SdSpec(method=DraftMethod.ngram, synthetic_acceptance=(0.8,))
    caution, flags, _ = verdict([measure(point(8, 3, sd=coin), flags=("foreign_load",))])
    assert caution.startswith("SYNTHETIC ACCEPTANCE: ")
    assert flags == "Flagged: foreign_load at 1 of 1 points."


def test_baselines_alone_claim_no_speedup() -> None:
    assert verdict([measure(point(1, 0))]) == [
        "Only baselines were measured: there is no speedup to report."
    ]


def test_controlled_acceptance_is_a_caution() -> None:
    oracle = SdSpec(method=DraftMethod.oracle, alpha=0.8)
    caution, _ = verdict([measure(point(8, 3, sd=oracle))])
    assert caution.startswith("CONTROLLED ACCEPTANCE: drafts were made to be accepted at a chosen")


UNTIMED = (
    "(repaired so that expert or data parallelism works on vLLM's CPU build, where seconds mean "
    "nothing: only counts are reported)"
)


def test_untimed_points_claim_acceptance_alone() -> None:
    fixed, caution, line = verdict([untimed(8, 0), untimed(8, 3), untimed(16, 3)])
    assert fixed == ("Flagged: cpu_fixes at 3 of 3 points (with our repairs of vLLM's CPU build).")
    assert caution == f"Flagged: untimed at 3 of 3 points {UNTIMED}."
    assert line == ("gamma=3: untimed, so no speedup; acceptance length 2.80 at B=8, 2.80 at B=16.")


def test_timed_points_keep_their_sentence_beside_untimed_ones() -> None:
    sentences = verdict([*hump(), untimed(64, 3), untimed(64, 0)])
    assert f"Flagged: untimed at 2 of 20 points {UNTIMED}." in sentences
    (peak,) = [s for s in sentences if "highest speedup 1.58 [1.57, 1.60] at B=8" in s]
    assert "B=1..32" in peak
    assert any("untimed, so no speedup; acceptance length 2.80 at B=64." in s for s in sentences)


def test_an_untimed_control_claims_nothing() -> None:
    of = replace(untimed(8, 0).point, role=Role.control)
    sentences = verdict([replace(untimed(8, 0), point=of)])
    assert all(sentence.startswith("Flagged: ") for sentence in sentences)


def test_recorded_overhead_is_among_what_limits_a_speedup() -> None:
    m = measure(point(8, 3))
    repeats = tuple(replace(r, seconds=5 * r.seconds, overhead_s=4 * r.seconds) for r in m.repeats)
    (sentence,) = verdict([replace(m, repeats=repeats)])
    assert "limited most by engine overhead 0.20 (acceptance 0.70, target efficiency" in sentence
