"""Measured rounds as arrays: what a fit of step times reads, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepData:
    """Points of one target, one draft, one workload and one device; every array is [points].

    Seconds are means over rounds. Points of one `group` share a baseline, so its seconds are equal
    in all of them and are used once.

    Raises ValueError if the arrays' lengths differ or there are none.
    """

    batch_size: _Floats
    gamma: _Floats  # at least 1
    top_k: _Floats
    group: _Floats
    context_tokens: _Floats
    target_decode_s: _Floats
    target_verify_s: _Floats
    draft_step_s: _Floats  # one draft forward: a round's drafting over gamma
    reject_s: _Floats
    baseline_reject_s: _Floats  # sampling in a step of plain decoding
    decode_experts: _Floats  # measured, distinct in a layer; 0 for a dense target
    verify_experts: _Floats
    sequence_rounds: _Floats  # rounds times sequences: what acceptance was counted over
    accepted: _Floats  # [points, positions]: unconditional counts, 0 behind gamma
    dispersion: (
        _Floats  # of acceptance in its setting: real variance over that of independent rounds
    )
    speedup: _Floats
    speedup_spread: _Floats  # standard error of its logarithm over paired repeats; 0 unknown
    ranks: _Floats = field(default_factory=lambda: np.ones(1))  # that share the experts and batch

    def __post_init__(self) -> None:
        if np.size(self.ranks) == 1:
            object.__setattr__(self, "ranks", np.full(len(self.batch_size), np.ravel(self.ranks)))
        for one in fields(self):
            values = np.asarray(getattr(self, one.name), dtype=np.float64)
            if len(values) != len(self.batch_size) or not len(values):
                raise ValueError(
                    f"{one.name} holds one row per point, got {len(values)} of"
                    f" {len(self.batch_size)}; give at least one point"
                )
            object.__setattr__(self, one.name, values)

    def __len__(self) -> int:
        return len(self.batch_size)

    @property
    def acceptance_length(self) -> _Floats:
        """1 + accepted / rounds, the bonus token included."""
        accepted: _Floats = self.accepted.sum(axis=1)
        return 1.0 + accepted / self.sequence_rounds

    @property
    def sigma(self) -> _Floats:
        return self.acceptance_length / (self.gamma + 1.0)

    @property
    def of_a_rank(self) -> StepData:
        """The same points as the rank with most sequences sees its own."""
        return replace(self, batch_size=np.ceil(self.batch_size / self.ranks))

    @property
    def baselines(self) -> _Indices:
        """The first point of every group."""
        return np.unique(self.group, return_index=True)[1]

    def take(self, indices: npt.ArrayLike) -> StepData:
        """Some of the points, in that order."""
        chosen = np.asarray(indices)
        return replace(self, **{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def regrouped(self, labels: npt.ArrayLike) -> StepData:
        """The same points under other labels of their baselines, [points]."""
        return replace(self, group=np.asarray(labels, dtype=np.float64))
