"""Published acceptance lengths, by gamma, turned back into the rates that explain them."""

from __future__ import annotations

from collections.abc import Mapping

from moesd_dist.theory import acceptance

ROUNDING = 1e-9  # of differences of lengths


def conditional_from_lengths(
    lengths: Mapping[int, float], *, bonus_included: bool = True
) -> tuple[float, ...]:
    """P(accepted, given all before it were), [largest gamma], from tokens per round by gamma.

    Where consecutive gammas are given, a difference of lengths is the unconditional rate of the
    next position. Across a gap one conditional rate is found that explains the difference. Every
    length is reproduced.

    Raises ValueError if a length is out of its bounds, or if they fall, or gain more from a later
    position than from an earlier one.
    """
    check_lengths(lengths, bonus_included=bonus_included)
    rates, reached, gamma, length = list[float](), 1.0, 0, 1.0
    for further in sorted(lengths):
        wanted = lengths[further] + (0.0 if bonus_included else 1.0)
        rate = _rate_of_gain(wanted - length, reached, gamma=gamma, further=further)
        rates += [rate] * (further - gamma)
        reached, gamma, length = reached * rate ** (further - gamma), further, wanted
    return tuple(rates)


def check_lengths(lengths: Mapping[int, float], *, bonus_included: bool) -> None:
    """Raise ValueError if a length can not be one: it lies in [1, gamma + 1] with the bonus token."""
    if not lengths or min(lengths) < 1:
        raise ValueError(
            f"acceptance lengths are given by gamma, at least 1, got {sorted(lengths)};"
            " give {3: 2.4}, 3 draft tokens a round"
        )
    for gamma, length in lengths.items():
        low, high = (1, gamma + 1) if bonus_included else (0, gamma)
        if not low <= length <= high:
            raise ValueError(
                f"an acceptance length at gamma {gamma} {_convention(bonus_included)} lies between "
                f"{low} and {high}, got {length}; {_way_out(gamma, length, bonus_included)}"
            )


def _convention(bonus_included: bool) -> str:
    return f"with the bonus token {'included' if bonus_included else 'excluded'}"


def _way_out(gamma: int, length: float, bonus_included: bool) -> str:
    low, high = (0, gamma) if bonus_included else (1, gamma + 1)
    if low <= length <= high:
        return f"the bonus convention is wrong: it fits {_convention(not bonus_included)}"
    return "check gamma and the bonus convention; gamma is a tree's depth, not its nodes"


def _rate_of_gain(gain: float, reached: float, *, gamma: int, further: int) -> float:
    """The conditional rate r with reached * (r + r^2 + ... + r^steps) = gain."""
    steps = further - gamma
    where = f"from gamma {gamma} to {further}"
    if gain < -ROUNDING:
        raise ValueError(
            f"acceptance length never falls with gamma, got {gain:+.3g} {where}; "
            "give lengths of one model, draft and workload"
        )
    if gain > steps * reached + ROUNDING:
        raise ValueError(
            f"a later position is never accepted more often than an earlier one ({reached:.3g}), got "
            f"{gain / steps:.3g} a position {where}; leave out the noisier gamma"
        )
    if reached == 0.0 or gain <= 0.0:
        return 0.0
    sigma = (1.0 + gain / reached) / (steps + 1)
    return acceptance.alpha_from_sigma(min(1.0, sigma), steps)
