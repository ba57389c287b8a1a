"""Which measurement teaches most: how well questions can be answered before and after each candidate."""

# Everything is linear around a fit. Parameters have a covariance; a candidate, once measured, tells
# values that are linear in them, with noise; a question is linear in them too. Nothing else is needed
# to know what a measurement will teach before it is made (Bayesian A- and V-optimal design).

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]

_NOISE = 1e-3  # variance of a value over that of a term: the law is nearly unknown
_TIE = 1e-6


class Objective(StrEnum):
    """What the next points shall improve."""

    fit = "fit"  # the speedups predicted for every point that may be measured
    recommendation = "recommendation"  # the choice of gamma, SD off included, at every batch size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some parameters that no other part's measurements or questions depend on.

    The first `shared` values of a candidate come from its group's baseline: the first of the group
    to be measured tells them, the others tell nothing new with them.
    """

    covariance: _Floats  # [parameters, parameters]
    rows: _Floats  # [candidates, values, parameters], in units of a value's noise
    questions: _Floats  # [questions, parameters]
    shared: int = 0

    @property
    def variances(self) -> _Floats:
        """Of the answers as things stand, [questions]."""
        return np.asarray(np.einsum("mp,pq,mq->m", self.questions, self.covariance, self.questions))

    def after_each(self) -> _Floats:
        """Variances of the answers if one candidate were measured, [candidates, questions]."""
        gain = self.rows @ self.covariance
        innovation = gain @ self.rows.transpose(0, 2, 1) + np.eye(self.rows.shape[1])
        seen = gain @ self.questions.T
        removed = np.einsum("cvm,cvm->cm", seen, np.linalg.solve(innovation, seen))
        return np.asarray(self.variances - removed)

    def told(self, candidate: int, group: _Bools) -> Part:
        """Once that candidate is measured; `group` marks all candidates of its baseline."""
        rows = self.rows[candidate]
        gain = rows @ self.covariance
        innovation = gain @ rows.T + np.eye(len(rows))
        known = self.covariance - gain.T @ np.linalg.solve(innovation, gain)
        left = self.rows.copy()
        left[group, : self.shared] = 0.0
        return replace(self, covariance=known, rows=left)

    def asked(self, questions: _Floats) -> Part:
        """The same knowledge for other questions: combinations of these, [others, questions]."""
        return replace(self, questions=questions @ self.questions)


def log_linear_start(
    columns: _Floats, measured: _Bools, candidates: _Bools, count: int
) -> list[int]:
    """Where to begin without any fit: the points whose outcome a linear law leaves most open.

    `columns` [points, terms] of that law; of equal points the first is taken, so the choice is the
    same on every machine. Fewer than `count` if the candidates run out.
    """
    part = Part(
        covariance=np.eye(columns.shape[1]) / _NOISE,
        rows=columns[:, None, :],
        questions=columns,
    )
    alone = np.zeros(len(columns), dtype=np.bool_)
    for done in np.flatnonzero(measured).tolist():
        part = part.told(done, alone)
    left, chosen = candidates & ~measured, list[int]()
    while left.any() and len(chosen) < count:
        open_ = np.where(left, part.variances, -np.inf)
        place = int(np.argmax(open_ >= open_.max() * (1.0 - _TIE)))
        chosen.append(place)
        left[place] = False
        part = part.told(place, alone)
    return chosen
