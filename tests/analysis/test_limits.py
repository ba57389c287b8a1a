"""What limits you: factors whose product is the speedup, shares that add up to 1."""

from __future__ import annotations

import math

import pytest

from analysis.recommending.limits import CAUSES, limits, of_measured, of_model, sentence
from moesd_dist.sweep.statistics import speedup
from moesd_dist.theory.speedup import RoundTimes
from moesd_dist.theory.steps.model import Grid
from tests.analysis.known_sweep import ALPHA, CONTEXT, KNOWN, sweep


def of(sigma: float = 1.0, gamma: int = 3, sampling_s: float = 0.0, **seconds: float):
    times = RoundTimes(**({"target_decode_s": 1.0, "target_verify_s": 1.0} | seconds))
    return limits(8, sigma, gamma, times, sampling_s=sampling_s, measured=True)


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        pytest.param(of(sigma=0.5), "acceptance", id="half the drafts rejected"),
        pytest.param(of(target_verify_s=2.0), "target efficiency", id="verification twice as long"),
        pytest.param(of(draft_step_s=0.5), "drafting", id="a slow draft"),
        pytest.param(of(reject_s=1.0), "rejection", id="a slow acceptance rule"),
    ],
)
def test_the_only_cause_takes_all_of_the_loss(found, cause):
    assert found.shares == pytest.approx({name: float(name == cause) for name in CAUSES})


def test_nothing_lost_has_no_shares():
    assert of().speedup == 4.0
    assert set(of().shares.values()) == {0.0}
    assert (
        sentence(of()) == "B=8 gamma=3: of the ideal 4.00x, measured 4.00x is left; lost: nothing."
    )


def test_sampling_that_plain_decoding_also_does_is_no_loss():
    both = of(reject_s=0.5, sampling_s=0.5)
    assert both.factors["rejection"] == pytest.approx(1.0)
    assert both.speedup == pytest.approx(4.0)


def test_shares_add_up_and_the_product_is_eq_4():
    found = of(sigma=0.6, target_verify_s=1.4, draft_step_s=0.1, reject_s=0.05, sampling_s=0.01)
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert found.speedup == pytest.approx(4 * 0.6 * 1.01 / (1.4 + 0.3 + 0.05))
    assert -math.log(found.speedup / found.ideal) > 0


def test_the_sentence_says_what_is_left_and_where_the_rest_went():
    found = of(sigma=0.5, target_verify_s=2.0)
    assert sentence(found) == (
        "B=8 gamma=3: of the ideal 4.00x, measured 1.00x is left; "
        "lost: 50 % to acceptance, 50 % to target efficiency."
    )


def test_what_gains_is_said_to_win_back():
    assert "won back: 59 % by target efficiency" in sentence(of(sigma=0.3, target_verify_s=0.64))


def test_a_measured_point_has_its_measured_speedup():
    for m in sweep(noise=0.0):
        assert of_measured(m).speedup == pytest.approx(speedup(m), rel=1e-9)


def test_model_and_measurement_agree_where_the_model_is_the_truth():
    m = sweep((8,), (3,), noise=0.0)[0]
    seconds = KNOWN.round_seconds(Grid(batch_size=8, gamma=3, top_k=8, context_tokens=CONTEXT))
    sigma = sum(ALPHA**i for i in range(4)) / 4
    model, measured = of_model(8, sigma, seconds), of_measured(m)
    assert model.factors == pytest.approx(measured.factors, rel=0.01)
    assert f"predicted {model.speedup:.2f}x would be left" in sentence(model)
