"""Activated experts, the full-activation threshold and the load per expert, against many routes."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from moesd_dist.theory import experts

ROUTERS = [(64, 8), (8, 2), (128, 8), (256, 8), (60, 4)]
PRINTED_TOKENS = np.array([1, 2, 4, 8, 16, 32, 64])


@pytest.mark.parametrize(
    ("num_experts", "top_k", "printed"),
    [
        pytest.param(64, 8, [8, 15, 26.484, 42.009, 56.444, 63.108, 63.988], id="64 choose 8"),
        pytest.param(8, 2, [2, 3.5, 5.469, 7.199, 7.920, 7.999, 8], id="8 choose 2"),
        pytest.param(
            128, 8, [8, 15.5, 29.123, 51.620, 82.423, 111.771, 125.942], id="128 choose 8"
        ),
        pytest.param(
            256, 8, [8, 15.75, 30.531, 57.421, 101.962, 163.314, 222.442], id="256 choose 8"
        ),
        pytest.param(60, 4, [4, 7.733, 14.470, 25.450, 40.105, 53.403, 59.275], id="60 choose 4"),
    ],
)
def test_the_printed_table_of_activated_experts(
    num_experts: int, top_k: int, printed: list[float]
) -> None:
    found = experts.expected_activated_experts(num_experts, top_k, PRINTED_TOKENS)
    assert found == pytest.approx(printed, rel=0, abs=0.000501)


@pytest.mark.parametrize(
    ("num_experts", "top_k", "printed"),
    [(64, 8, 23), (8, 2, 11), (128, 8, 47), (256, 8, 95), (60, 4, 44)],
)
def test_the_printed_thresholds(num_experts: int, top_k: int, printed: int) -> None:
    assert experts.full_activation_threshold(num_experts, top_k) == printed


def test_the_printed_loads_of_64_choose_8() -> None:
    found = experts.expected_expert_load(64, 8, 2 ** np.arange(8))
    printed = [1, 1.0667, 1.2083, 1.5235, 2.2677, 4.0565, 8.0016, 16.0000]
    assert found == pytest.approx(printed, rel=0, abs=0.0000501)


@pytest.mark.parametrize(("num_experts", "top_k"), ROUTERS)
@pytest.mark.parametrize("gate_tokens", [1, 3, 17, 200])
def test_activated_experts_agree_with_exact_fractions(
    num_experts: int, top_k: int, gate_tokens: int
) -> None:
    exact = num_experts * (1 - (1 - Fraction(top_k, num_experts)) ** gate_tokens)
    found = experts.expected_activated_experts(num_experts, top_k, gate_tokens)
    assert found == pytest.approx(float(exact), rel=1e-14)


@pytest.mark.parametrize(("num_experts", "top_k"), ROUTERS)
def test_one_token_activates_its_top_k(num_experts: int, top_k: int) -> None:
    found = experts.expected_activated_experts(num_experts, top_k, 1)
    assert found == pytest.approx(top_k, rel=1e-14)


@pytest.mark.parametrize(("num_experts", "top_k"), [*ROUTERS, (1, 1), (4, 4)])
def test_activated_experts_run_from_none_to_all(num_experts: int, top_k: int) -> None:
    assert experts.expected_activated_experts(num_experts, top_k, 0) == 0.0
    assert experts.expected_activated_experts(num_experts, top_k, 1_000_000) == num_experts


def test_activated_experts_keep_their_digits_when_almost_none_are_hit() -> None:
    # One token of a million experts, a millionth of the time: 1 - (1 - 1e-6)^1e-6 has no digits.
    found = experts.expected_activated_experts(10**6, 1, 1e-6)
    assert found == pytest.approx(1e-6 * (1 + 0.5e-6), rel=1e-11, abs=0)


@pytest.mark.parametrize(("num_experts", "top_k"), ROUTERS)
def test_each_further_token_activates_fewer_new_experts(num_experts: int, top_k: int) -> None:
    new = np.diff(experts.expected_activated_experts(num_experts, top_k, np.arange(40)))
    assert (new > 0).all()
    assert (np.diff(new) < 0).all()


def test_sampled_routing_activates_as_many() -> None:
    rng = np.random.default_rng(11)
    scores = rng.random((4000, 6, 16))  # [forward, token, expert]
    chosen = np.argsort(scores, axis=2)[:, :, :3]
    distinct = [len(np.unique(forward)) for forward in chosen]
    # The standard error of the mean is about 0.02.
    assert np.mean(distinct) == pytest.approx(
        experts.expected_activated_experts(16, 3, 6), abs=0.08
    )


@pytest.mark.parametrize(("num_experts", "top_k"), [*ROUTERS, (32, 32), (512, 1)])
@pytest.mark.parametrize("tau", [0.01, 0.5, 0.95, 0.999])
def test_the_threshold_is_the_first_count_that_reaches_tau(
    num_experts: int, top_k: int, tau: float
) -> None:
    hit = experts.expected_activated_experts(num_experts, top_k, np.arange(5000)) / num_experts
    first = int(np.argmax(hit >= tau))
    assert experts.full_activation_threshold(num_experts, top_k, tau) == first


@pytest.mark.parametrize("tokens", range(1, 12))
@pytest.mark.parametrize(("num_experts", "top_k"), [(10, 1), (4, 1), (5, 2), (3, 1)])
def test_a_threshold_that_is_a_whole_number_is_not_rounded_up(
    num_experts: int, top_k: int, tokens: int
) -> None:
    tau = float(1 - (1 - Fraction(top_k, num_experts)) ** tokens)
    assert experts.full_activation_threshold(num_experts, top_k, tau) == tokens


@pytest.mark.parametrize(("num_experts", "top_k"), [*ROUTERS, (4, 4)])
def test_load_times_activated_experts_is_every_choice_made(num_experts: int, top_k: int) -> None:
    tokens = np.arange(1, 300)
    load = experts.expected_expert_load(num_experts, top_k, tokens)
    activated = experts.expected_activated_experts(num_experts, top_k, tokens)
    assert load * activated == pytest.approx(tokens * top_k, rel=1e-13)


def test_an_expert_that_every_token_takes_carries_every_token() -> None:
    tokens = np.array([1, 2, 77])
    assert experts.expected_expert_load(8, 8, tokens).tolist() == [1.0, 2.0, 77.0]


def test_load_grows_with_the_activation_ratio_from_two_tokens_on() -> None:
    load = np.array(
        [experts.expected_expert_load(64, k, np.array([1, 2, 9])) for k in range(1, 65)]
    )
    assert load[:, 0] == pytest.approx(1.0)
    assert (np.diff(load[:, 1:], axis=0) > 0).all()


@pytest.mark.parametrize("law", [experts.expected_activated_experts, experts.expected_expert_load])
def test_an_array_is_the_law_at_each_of_its_numbers(law: Callable[..., object]) -> None:
    tokens = np.array([[1, 2, 3], [40, 50, 60]])
    each = [[law(60, 4, int(t)) for t in row] for row in tokens]
    np.testing.assert_array_equal(law(60, 4, tokens), each)
    assert type(law(60, 4, 5)) is float


def test_activation_ratio_is_the_share_one_token_uses() -> None:
    assert experts.activation_ratio(64, 8) == 0.125
    assert experts.activation_ratio(8, 8) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: experts.activation_ratio(8, 9),
            r"top_k 9 exceeds num_experts 8; use 1\.\.8",
            id="more experts per token than experts",
        ),
        pytest.param(lambda: experts.activation_ratio(8, 0), "top_k .* got 0", id="no expert used"),
        pytest.param(
            lambda: experts.activation_ratio(0, 0), "num_experts .* got 0", id="a dense model"
        ),
        pytest.param(
            lambda: experts.expected_activated_experts(8, 2, np.array([3, -1])),
            r">= 0, got -1\.0",
            id="a negative count among others",
        ),
        pytest.param(
            lambda: experts.expected_activated_experts(8, 2, math.nan), "got nan", id="not a count"
        ),
        pytest.param(
            lambda: experts.expected_expert_load(8, 2, 0), r"> 0, got 0\.0; an idle", id="idle gate"
        ),
        pytest.param(
            lambda: experts.expected_expert_load(8, 9, 4), "top_k 9 exceeds", id="load checks top_k"
        ),
        pytest.param(
            lambda: experts.full_activation_threshold(8, 2, 1.0),
            r"tau .* got 1\.0; try",
            id="all experts are never certain",
        ),
        pytest.param(
            lambda: experts.full_activation_threshold(8, 8, 0.0), r"got 0\.0", id="tau of nothing"
        ),
    ],
)
def test_errors_say_the_rule_and_the_value(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
