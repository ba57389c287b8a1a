"""The expected largest of several independent random counts whose sum is known."""

# P(all <= m | sum n) = P(sum = n, all <= m) / P(sum = n). Both are coefficients of products of
# characteristic functions, of counts cut off at m and of whole ones: a power for equal counts.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Complex = npt.NDArray[np.complex128]

_DEVIATIONS = 9.0  # beyond so many standard deviations nothing happens
_TAIL = 35.0  # e^-35 is nothing
_MANY = 40.0  # independent parts make a sum nearly normal, and its characteristic function narrow
_CELLS = 400  # of the integral over large counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """So many equal counts, each with this share of the sum in the mean."""

    count: int
    share: float


class CountLaw(Protocol):
    """One count before the sum is fixed, by its share of the sum; smooth between whole numbers."""

    @property
    def total(self) -> int:
        """The sum of all counts."""
        ...

    @property
    def spread(self) -> float:
        """Variance over mean; a tail falls by at least e over so many counts (or over one)."""
        ...

    def most(self, share: float) -> int:
        """The largest possible count."""
        ...

    def log_mass(self, counts: _Floats, share: float) -> _Floats:
        """ln P(count), [counts], for counts in 0..most."""
        ...


def expected_largest(law: CountLaw, kinds: Sequence[Kind]) -> float:
    """E[largest count | the sum]; the first kind has the largest share. Exact for these counts."""
    first, last = _window(law, kinds)
    counts = np.arange(math.floor(first), math.ceil(last) + 1.0)
    angles, weights = _angles(law, kinds)
    product: _Complex = np.exp(-1j * angles * law.total)
    for kind in kinds:
        waves = _mass(law, counts, kind)[:, None] * np.exp(1j * counts[:, None] * angles)
        product = product * _power(np.cumsum(waves, axis=0), kind.count)  # [limit, angle]
    found = (product.real @ weights).clip(min=0.0)
    within = np.minimum(found / found[-1], 1.0)
    return float(counts[0] + np.sum(1.0 - within[:-1]))


def expected_largest_free(law: CountLaw, kinds: Sequence[Kind]) -> float:
    """The same for large counts, where fixing their sum no longer matters: sums become integrals."""
    first, last = _window(law, kinds[:1])  # below, the largest never is
    edges = first + (last - first) * np.linspace(0.0, 1.0, _CELLS + 1) ** 2
    middle, width = (edges[1:] + edges[:-1]) / 2.0, np.diff(edges)
    within = np.ones_like(edges)
    for kind in kinds:
        above = np.cumsum((_mass(law, middle, kind) * width)[::-1])[::-1]
        within *= np.append(1.0 - above, 1.0).clip(min=0.0) ** kind.count
    more = 1.0 - within
    return float(first + np.sum((more[1:] + more[:-1]) / 2.0 * width))


def _window(law: CountLaw, kinds: Sequence[Kind]) -> tuple[float, float]:
    """Where counts of any kind lie."""
    most, least = (law.total * kind.share for kind in (kinds[0], kinds[-1]))
    tail = _TAIL * max(law.spread, 1.0)
    low = least - _DEVIATIONS * math.sqrt(least * law.spread) - tail
    high = most + _DEVIATIONS * math.sqrt(most * law.spread) + tail
    return max(0.0, low), min(float(law.total), law.most(kinds[0].share), high)


def _mass(law: CountLaw, counts: _Floats, kind: Kind) -> _Floats:
    """P(count), [counts]; the kinds differ in what is possible."""
    possible = counts <= law.most(kind.share)
    return np.where(possible, np.exp(law.log_mass(np.where(possible, counts, 0.0), kind.share)), 0)


def _angles(law: CountLaw, kinds: Sequence[Kind]) -> tuple[_Floats, _Floats]:
    """Where the characteristic function is taken, and weights [angle] that give one coefficient.

    So many angles that sums which differ by their number never meet; those at which a product of so
    many factors vanishes are left out.
    """
    number = sum(kind.count for kind in kinds)
    deviation = math.sqrt(law.total * law.spread)
    whole = math.ceil(20.0 * deviation + 2.0 * _TAIL * max(law.spread, 1.0)) | 1
    one = deviation * math.sqrt(kinds[0].share)
    reach = max(12.0 / math.sqrt(number), 10.0 ** (8.0 / number)) / one
    last = (whole - 1) // 2
    if law.total >= _MANY * law.spread:
        last = min(last, math.ceil(whole * reach / (2.0 * math.pi)))
    angles = 2.0 * math.pi * np.arange(last + 1) / whole
    return angles, np.where(angles > 0.0, 2.0, 1.0) / whole


def _power(base: _Complex, exponent: int) -> _Complex:
    """Whole powers by squaring: numpy's own are several times slower for complex numbers."""
    result = base if exponent & 1 else np.ones_like(base)
    while exponent := exponent >> 1:
        base = base * base
        if exponent & 1:
            result = result * base
    return result
