"""The ridge point and the growth function: smooth at the knee, convex, safe where s^t is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moesd_dist.theory.roofline import growth, log_growth, ridge_point

# s, ridge, lam; the knee is at lam * ridge tokens.
CURVES = [
    pytest.param(1.002, 295.0, 0.5, id="almost flat"),
    pytest.param(1.02, 156.0, 0.3, id="as the paper fits it"),
    pytest.param(2.0, 206.0, 1.0, id="at the upper bounds"),
    pytest.param(1.3, 2.0, 0.2, id="a knee below one token"),
]


@pytest.mark.parametrize(
    ("flops", "bytes_per_s", "expected"),
    [
        pytest.param(312e12, 2.0e12, 156.0, id="an A100-like device"),
        pytest.param(1.0, 1.0, 1.0, id="one for one"),
    ],
)
def test_ridge_point_is_operations_per_byte(
    flops: float, bytes_per_s: float, expected: float
) -> None:
    assert ridge_point(flops, bytes_per_s) == pytest.approx(expected)


@pytest.mark.parametrize(("s", "ridge", "lam"), CURVES)
def test_growth_is_the_papers_two_branches(s: float, ridge: float, lam: float) -> None:
    knee = lam * ridge
    below, above = knee * np.array([0.1, 0.5, 0.9]), knee * np.array([1.1, 2.0, 10.0])
    tangent = s**knee * (1 + np.log(s) * (above - knee))
    assert growth(below, s=s, ridge=ridge, lam=lam) == pytest.approx(s**below, rel=1e-12)
    assert growth(above, s=s, ridge=ridge, lam=lam) == pytest.approx(tangent, rel=1e-12)


@pytest.mark.parametrize(("s", "ridge", "lam"), CURVES)
def test_growth_of_no_tokens_is_one(s: float, ridge: float, lam: float) -> None:
    assert growth(0, s=s, ridge=ridge, lam=lam) == 1.0


def test_growth_with_s_one_is_one_everywhere() -> None:
    tokens = np.array([0, 1, 50, 51, 10**9])
    assert growth(tokens, s=1.0, ridge=100.0, lam=0.5).tolist() == [1.0] * 5


@pytest.mark.parametrize(("s", "ridge", "lam"), CURVES)
def test_growth_and_its_slope_are_continuous_at_the_knee(
    s: float, ridge: float, lam: float
) -> None:
    knee, step = lam * ridge, 1e-5 * lam * ridge
    before, at, after = growth(knee + step * np.array([-1, 0, 1]), s=s, ridge=ridge, lam=lam)
    assert at == pytest.approx(s**knee, rel=1e-12)
    # One-sided slopes differ by about log(s) * step / 2 relative, 1e-3 at the steepest curve.
    assert (after - at) / (at - before) == pytest.approx(1.0, abs=2 * math.log(s) * step + 1e-6)
    assert (after - at) / step == pytest.approx(s**knee * math.log(s), rel=1e-6)


@pytest.mark.parametrize(("s", "ridge", "lam"), CURVES)
def test_growth_rises_and_is_convex(s: float, ridge: float, lam: float) -> None:
    values = growth(np.linspace(0, 3 * lam * ridge, 301), s=s, ridge=ridge, lam=lam)
    slopes = np.diff(values)
    assert (slopes > 0).all()
    assert (np.diff(slopes) >= -1e-9 * slopes[1:]).all()


@pytest.mark.parametrize("tokens", [1.0, 30.0, 90.0])
def test_growth_rises_with_s(tokens: float) -> None:
    values = [growth(tokens, s=s, ridge=100.0, lam=0.4) for s in (1.0, 1.01, 1.1, 2.0)]
    assert (np.diff(values) > 0).all()


@pytest.mark.filterwarnings("error")
def test_a_knee_that_overflows_does_no_harm_below_it() -> None:
    assert growth(10.0, s=2.0, ridge=5000.0, lam=1.0) == pytest.approx(1024.0)
    assert log_growth(4999.0, s=2.0, ridge=5000.0, lam=1.0) == pytest.approx(4999 * math.log(2))


@pytest.mark.filterwarnings("error")
def test_log_growth_is_finite_and_linear_where_growth_overflows() -> None:
    far = log_growth(np.array([5000.0, 5000.0 + 1 / math.log(2)]), s=2.0, ridge=5000.0, lam=1.0)
    assert far[1] - far[0] == pytest.approx(math.log(2))  # the tangent doubles the value


def test_growth_too_large_for_a_double_says_so() -> None:
    with pytest.raises(ValueError, match=r"got exp\(3465\.74\) at s 2\.0 .* use log_growth"):
        growth(np.array([1.0, 5000.0]), s=2.0, ridge=5000.0, lam=1.0)


@pytest.mark.parametrize("law", [growth, log_growth])
def test_an_array_is_the_law_at_each_of_its_numbers(law: Callable[..., Any]) -> None:
    tokens = np.array([[0, 1, 20], [21, 22, 400]])
    each = [[law(int(t), s=1.05, ridge=70.0, lam=0.3) for t in row] for row in tokens]
    np.testing.assert_allclose(law(tokens, s=1.05, ridge=70.0, lam=0.3), each, rtol=1e-15)
    assert type(law(5, s=1.05, ridge=70.0, lam=0.3)) is float


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(
            lambda: ridge_point(0.0, 1.0), r"peak_flops .* got 0\.0; see", id="no operations"
        ),
        pytest.param(
            lambda: ridge_point(1.0, -2.0), r"peak_bytes_per_s .* got -2\.0", id="no bandwidth"
        ),
        pytest.param(
            lambda: growth(1.0, s=0.9, ridge=100.0, lam=0.5), r"s must .* got 0\.9", id="s shrinks"
        ),
        pytest.param(
            lambda: growth(1.0, s=math.nan, ridge=100.0, lam=0.5), "s must .* nan", id="s is nan"
        ),
        pytest.param(
            lambda: growth(1.0, s=1.1, ridge=0.0, lam=0.5), r"ridge .* got 0\.0", id="no ridge"
        ),
        pytest.param(
            lambda: growth(1.0, s=1.1, ridge=100.0, lam=0.0),
            r"lam .* got 0\.0; the paper",
            id="a knee at nothing",
        ),
        pytest.param(
            lambda: growth(np.array([1, -4]), s=1.1, ridge=100.0, lam=0.5),
            r"tokens must be >= 0, got -4\.0",
            id="a negative count among others",
        ),
    ],
)
def test_errors_say_the_rule_and_the_value(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
