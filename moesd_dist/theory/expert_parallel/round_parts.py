"""A round on ranks that share experts as values: where, by which causes, and the work behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moesd_dist.theory.expert_parallel.dispatch import Traffic
from moesd_dist.theory.expert_parallel.rank_law import RankExpectation
from moesd_dist.theory.steps.model import RoundSeconds

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpGrid:
    """Points to predict; numbers and arrays that broadcast. gamma 0 is plain decoding."""

    batch_size: npt.ArrayLike  # over all ranks
    gamma: npt.ArrayLike
    top_k: npt.ArrayLike
    context_tokens: npt.ArrayLike
    ranks: npt.ArrayLike

    def arrays(self) -> tuple[_Floats, ...]:
        """The fields in their order, in one shape."""
        points = (self.batch_size, self.gamma, self.top_k, self.context_tokens, self.ranks)
        return tuple(np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in points)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpSeconds:
    """A target forward by causes that add up; arrays of one shape. Measured ones serve as well."""

    rest_s: _Floats  # attention, dense layers, head, overheads: of the rank with most sequences
    experts_s: _Floats  # of the mean rank
    imbalance_s: _Floats  # what the busiest rank takes longer
    communication_s: _Floats  # that nothing hides
    packing_s: _Floats  # sorting rows by rank, and adding up what comes back

    @property
    def total_s(self) -> _Floats:
        computing = self.rest_s + self.experts_s + self.imbalance_s
        return computing + self.communication_s + self.packing_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """What an exchange takes of a rank's own time in one layer; nothing where experts are not shared."""

    layer_s: float = 0.0  # launches and bookkeeping, once
    row_s: float = 0.0  # of each row that it sends

    def seconds(self, rows: _Floats, ranks: _Floats) -> _Floats:
        return np.where(ranks > 1.0, self.layer_s + self.row_s * rows, 0.0)


FREE = Packing()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankWork:
    """What a layer does in one forward, expected; arrays of one shape."""

    tokens: _Floats  # of the mean rank
    most_tokens: _Floats  # of the rank with most sequences
    activated_experts: _Floats  # distinct ones on all ranks together
    experts: RankExpectation
    traffic: Traffic  # of the rank with most sequences


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpRoundSeconds:
    """Arrays of one shape; draft and rejection are of the rank with most sequences."""

    gamma: _Floats
    decode: EpSeconds
    verify: EpSeconds
    decode_work: RankWork
    verify_work: RankWork
    draft_step_s: _Floats  # a round's drafting over gamma
    reject_s: _Floats
    baseline_reject_s: _Floats  # sampling, of a step of plain decoding

    @property
    def step_s(self) -> _Floats:
        """One step of plain decoding, sampling included."""
        return self.decode.total_s + self.baseline_reject_s

    @property
    def round_s(self) -> _Floats:
        return self.verify.total_s + self.gamma * self.draft_step_s + self.reject_s

    @property
    def target_efficiency(self) -> _Floats:
        return self.decode.total_s / self.verify.total_s

    @property
    def whole(self) -> RoundSeconds:
        """The same, ranks and causes added up."""
        return RoundSeconds(
            gamma=self.gamma,
            target_decode_s=self.decode.total_s,
            target_verify_s=self.verify.total_s,
            draft_step_s=self.draft_step_s,
            reject_s=self.reject_s,
            baseline_reject_s=self.baseline_reject_s,
            decode_experts=self.decode_work.activated_experts,
            verify_experts=self.verify_work.activated_experts,
        )

    @property
    def communication_share(self) -> _Floats:
        """Of the verification's seconds."""
        return self.verify.communication_s / self.verify.total_s

    def speedup(self, sigma: npt.ArrayLike) -> _Floats:
        """MoESD's Eq. 4: sigma (gamma + 1) steps for the price of a round."""
        length = np.asarray(sigma, dtype=np.float64) * (self.gamma + 1.0)
        return length * self.step_s / self.round_s
