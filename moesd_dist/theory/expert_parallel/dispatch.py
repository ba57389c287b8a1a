"""What a MoE layer sends: which ranks a token visits, as how many rows, of how many bytes, and back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln  # type: ignore[import-untyped, unused-ignore]

from moesd_dist.theory.expert_parallel.collectives import ExchangeCost

_Floats = npt.NDArray[np.float64]

ROUTE_BYTES = (
    8.0  # of each chosen expert, along with a row: its number and its weight, 4 bytes each
)
SUM_BYTES = 2.0  # of a value on its way back, at least


class Dispatch(Enum):
    """How tokens reach their experts' ranks."""

    ONCE_A_RANK = "a row to each rank that has any of its experts"
    ONCE_AN_EXPERT = "a row for each expert, however many share a rank"
    TO_ALL = "gathered on every rank, sums scattered back"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traffic:
    """Of one rank in one layer and forward; arrays of one shape.

    Rows and bytes are those that leave it, as many as reach it: rows for its tokens out, and sums
    for others' tokens back.
    """

    rows: _Floats  # sent out
    dispatch_bytes: _Floats
    combine_bytes: _Floats
    counts_s: _Floats
    dispatch_s: _Floats
    combine_s: _Floats

    @property
    def seconds(self) -> _Floats:
        return self.counts_s + self.dispatch_s + self.combine_s


def other_ranks_reached(num_experts: int, top_k: npt.ArrayLike, ranks: npt.ArrayLike) -> _Floats:
    """Expected ranks, the own one aside, with any of a token's top_k distinct experts.

    Every choice of top_k is as likely as any other, so a rank with L of E experts is missed with
    chance C(E - L, K) / C(E, K). Where ranks do not divide E, the first E mod R hold one more.
    """
    chosen, size = (np.asarray(v, np.float64) for v in (top_k, ranks))
    fewest = np.floor(num_experts / size)
    larger = num_experts - fewest * size  # ranks with one expert more
    missed = larger * _missed(num_experts, chosen, fewest + 1.0)
    missed = missed + (size - larger) * _missed(num_experts, chosen, fewest)
    return np.asarray((1.0 - missed / size) * (size - 1.0))


def rows_sent(
    dispatch: Dispatch, num_experts: int, top_k: npt.ArrayLike, ranks: npt.ArrayLike
) -> _Floats:
    """Expected rows for one token that leave its rank."""
    chosen, size = (np.asarray(v, np.float64) for v in (top_k, ranks))
    match dispatch:
        case Dispatch.ONCE_A_RANK:
            return other_ranks_reached(num_experts, chosen, size)
        case Dispatch.ONCE_AN_EXPERT:
            return np.asarray(chosen * (size - 1.0) / size)
        case Dispatch.TO_ALL:
            return np.asarray(size - 1.0 + 0.0 * chosen)


def traffic(
    cost: ExchangeCost,
    dispatch: Dispatch,
    *,
    tokens: npt.ArrayLike,
    num_experts: int,
    top_k: npt.ArrayLike,
    ranks: npt.ArrayLike,
    hidden_size: int,
    bytes_per_value: float,
) -> Traffic:
    """Of a rank with `tokens` tokens.

    A row out is the hidden state and top_k routes, a row back the hidden state, in 16 bits at least:
    sums of 8-bit models are not rounded to 8. The ranks tell each other first how many rows will come.
    """
    own, chosen, size = (np.asarray(v, np.float64) for v in (tokens, top_k, ranks))
    own, chosen, size = np.broadcast_arrays(own, chosen, size)
    rows = own * rows_sent(dispatch, num_experts, chosen, size)
    row_out = hidden_size * bytes_per_value + ROUTE_BYTES * chosen
    row_back = hidden_size * max(bytes_per_value, SUM_BYTES)
    if dispatch is Dispatch.TO_ALL:
        out = cost.all_gather_s(own * row_out, size)
        back = cost.reduce_scatter_s(size * own * row_back, size)
    else:
        out = cost.all_to_all_s(rows * row_out, size)
        back = cost.all_to_all_s(rows * row_back, size)
    return Traffic(
        rows=rows,
        dispatch_bytes=rows * row_out,
        combine_bytes=rows * row_back,
        counts_s=np.broadcast_to(cost.counts_s(size), size.shape),
        dispatch_s=out,
        combine_s=back,
    )


def _missed(num_experts: int, top_k: _Floats, held: _Floats) -> _Floats:
    """C(E - L, K) / C(E, K): that none of K distinct experts is among the L held."""
    held = np.minimum(held, float(num_experts))
    free = num_experts - held - top_k + 1.0
    possible = free > 0.0
    free = np.where(possible, free, 1.0)
    rise = gammaln(num_experts - held + 1.0) - gammaln(free)
    fall = gammaln(num_experts + 1.0) - gammaln(num_experts - top_k + 1.0)
    return np.where(possible, np.exp(rise - fall), 0.0)
