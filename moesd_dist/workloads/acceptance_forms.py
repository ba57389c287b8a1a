"""The two forms of acceptance that people write: rates by position, and lengths by gamma."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

from moesd_dist.theory.acceptance import unconditional_from_conditional
from moesd_dist.theory.acceptance_profile import AcceptanceProfile

E = TypeVar("E", bound=StrEnum)

FORMAT = "moesd-acceptance"
DECIMALS = 0.01  # figures are copied with two decimals
_RATES_KEYS = frozenset(
    {"format", "convention", "rates", "rounds", "tried", "dispersion", "acceptance_length", "synthetic",
     "setting", "source"}
)  # fmt: skip
_LENGTHS_KEYS = frozenset({"acceptance_length", "bonus", "source", "setting"})
_CONVENTIONS = "conditional (given all before were accepted) or unconditional (over all rounds, as vLLM's)"  # fmt: skip
_BONUSES = "included (as ours and vLLM's) or excluded (as TensorRT-LLM's)"


class Convention(StrEnum):
    """What a rate is a share of: rounds that accepted all before it, or all rounds."""

    conditional = "conditional"
    unconditional = "unconditional"


class Bonus(StrEnum):
    """Whether a length counts the token that the target adds itself."""

    included = "included"  # ours, vLLM's
    excluded = "excluded"  # TensorRT-LLM's


def of_rates(content: Mapping[str, Any]) -> AcceptanceProfile:
    """From {format, convention, rates}, and {rounds or tried, dispersion, acceptance_length} if known.

    `rounds` is the number that drafted every position, `tried` [gamma] those in which each
    position's turn came. Raises ValueError for what does not fit.
    """
    _check_keys(content, _RATES_KEYS)
    if (named := content.get("format", FORMAT)) != FORMAT:
        raise ValueError(f"the format is {FORMAT}, got {named!r}")
    convention = _chosen(Convention, content, "convention", _CONVENTIONS)
    rates = _numbers("rates", content["rates"])
    rounds = round(number("rounds", content.get("rounds", 0)))
    if "tried" in content and (rounds or convention is Convention.unconditional):
        raise ValueError("tried belongs to conditional rates, got rounds or unconditional ones; give rounds alone")  # fmt: skip
    if convention is Convention.unconditional:
        profile = AcceptanceProfile.from_unconditional(rates, rounds=rounds)
    else:
        profile = _conditional(rates, content.get("tried"), rounds)
    profile = replace(profile, dispersion=number("dispersion", content.get("dispersion", 1.0)))
    stated = {k: number(k, content[k]) for k in ("acceptance_length",) if k in content}
    return checked(profile, stated, positions=len(rates))


def of_lengths(content: Mapping[str, Any]) -> AcceptanceProfile:
    """From {acceptance_length: {gamma: tokens a round}, bonus}; ValueError for what does not fit."""
    _check_keys(content, _LENGTHS_KEYS)
    bonus = _chosen(Bonus, content, "bonus", _BONUSES)
    given = content["acceptance_length"].items()
    lengths = {_gamma(gamma): number("acceptance_length", length) for gamma, length in given}
    return AcceptanceProfile.from_lengths(lengths, bonus_included=bonus is Bonus.included)


def checked(
    profile: AcceptanceProfile, lengths: Mapping[str, float], *, positions: int = 0
) -> AcceptanceProfile:
    """The profile, if the acceptance lengths stated elsewhere agree with it to two decimals.

    Raises ValueError that names the figure, and the convention that would explain it.
    """
    gamma = positions or len(profile.conditional)
    found = profile.acceptance_length(gamma)
    for name, stated in lengths.items():
        if abs(stated - found) > DECIMALS:
            raise ValueError(
                f"the rates make an acceptance length of {found:.4g}, but {name} says {stated:.4g}; "
                f"{_explanation(profile, gamma, stated)}"
            )
    return profile


def _explanation(profile: AcceptanceProfile, gamma: int, stated: float) -> str:
    """Which other reading of the same figures gives the stated length, if any does."""
    found = profile.acceptance_length(gamma)
    if abs(stated + 1.0 - found) <= DECIMALS:
        return "it leaves the bonus token out; add 1"
    compounded = unconditional_from_conditional(profile.unconditional(gamma))
    if abs(1.0 + float(compounded.sum()) - stated) <= DECIMALS:
        return "the rates are conditional ones, given as unconditional"
    if abs(1.0 + sum(profile.rates(gamma)) - stated) <= DECIMALS:
        return "the rates are unconditional ones, given as conditional"
    return "take both from the same run"


def _conditional(rates: Sequence[float], tried: Any, rounds: int) -> AcceptanceProfile:
    if tried is not None:
        counts = tuple(int(count) for count in _numbers("tried", tried))
        return AcceptanceProfile(conditional=tuple(rates), tried=counts)
    if not rounds:
        return AcceptanceProfile(conditional=tuple(rates))
    unconditional = unconditional_from_conditional(rates).tolist()
    return AcceptanceProfile.from_unconditional(unconditional, rounds=rounds)


def _chosen(kind: type[E], content: Mapping[str, Any], key: str, choices: str) -> E:
    """No default: a wrong guess would go unseen."""
    if content.get(key) not in list(kind):
        given = f"got {content[key]!r}" if key in content else "it is missing"
        raise ValueError(f"{key} must be {choices}; {given}")
    return kind(content[key])


def number(name: str, value: Any) -> float:
    """A finite number from 0 on; ValueError for anything else, also for true and false."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain or not 0.0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number, 0 or more, got {value!r}")
    return float(value)


def _gamma(key: Any) -> int:
    if not str(key).isdecimal():
        raise ValueError(f"acceptance_length is by gamma, a whole number from 1 on; got {key!r}")
    return int(key)


def _numbers(name: str, values: Any) -> list[float]:
    if not isinstance(values, list):
        raise ValueError(f"{name} must be a list of numbers, one a draft position, got {values!r}")
    return [number(name, value) for value in values]


def _check_keys(content: Mapping[str, Any], known: frozenset[str]) -> None:
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise ValueError(f"unknown key {key!r}; {hint}")
