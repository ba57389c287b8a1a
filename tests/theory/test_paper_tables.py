"""The paper's peak speedups: Eq. 4 can explain every row, Algorithm 1's line 11 cannot."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from moesd_dist.theory.acceptance import alpha_from_sigma
from moesd_dist.theory.moesd.forward_time import Denominator, MoesdParameters, predicted_speedup
from moesd_dist.theory.moesd.points import Points
from moesd_dist.theory.speedup import RoundTimes, speedup

DATA = Path(__file__).parents[2] / "analysis" / "data" / "moesd_peak_speedups.csv"
PRINTED_TO = 0.005  # sigma and the speedup are rounded to two places


class Row(NamedTuple):
    """One peak speedup; T_AR and T_SD are in the paper's unit."""

    target: str
    device: str
    dataset: str
    temperature: str
    gamma: int
    ar: float
    sd: float
    sigma: float
    speedup: float

    @property
    def setting(self) -> tuple[str, str, str, str]:
        return self.target.split("-")[0], self.device, self.dataset, self.temperature


def read() -> list[Row]:
    lines = csv.DictReader(DATA.read_text().splitlines())
    return [
        Row(
            *(line[name] for name in ("target", "device", "dataset", "temperature")),
            int(line["gamma"]),
            *(float(line[name]) for name in ("T_AR", "T_SD", "sigma", "x_peak_speedup")),
        )
        for line in lines
    ]


ROWS = read()
EACH_ROW = [pytest.param(row, id="-".join((*row.setting, str(row.gamma)))) for row in ROWS]
ODD_ONE_OUT = ("Qwen2", "2xH800", "humaneval", "1.0")


def test_the_table_has_three_gammas_in_each_of_twelve_settings() -> None:
    assert Counter(row.setting for row in ROWS) == dict.fromkeys({r.setting for r in ROWS}, 3)
    assert len(ROWS) == 36


@pytest.mark.parametrize("row", EACH_ROW)
def test_the_speedup_is_the_quotient_of_the_times(row: Row) -> None:
    assert row.speedup == pytest.approx(row.ar / row.sd, rel=0, abs=0.006)


@pytest.mark.parametrize("row", EACH_ROW)
def test_a_round_costs_more_than_a_plain_step(row: Row) -> None:
    assert row.sigma * (row.gamma + 1) / row.speedup > 1.0


@pytest.mark.parametrize("row", EACH_ROW)
def test_eq_4_has_times_that_give_the_speedup(row: Row) -> None:
    # What a round costs above a plain step goes in equal parts to verification and to drafting;
    # RoundTimes refuses a negative time.
    extra = row.ar * (row.sigma * (row.gamma + 1) / row.speedup - 1)
    times = RoundTimes(
        target_decode_s=row.ar,
        target_verify_s=row.ar + extra / 2,
        draft_step_s=extra / 2 / row.gamma,
    )
    assert speedup(row.sigma, row.gamma, times) == pytest.approx(row.speedup, rel=1e-12)


def test_line_11_as_printed_forbids_thirty_of_the_rows_whatever_the_rounding() -> None:
    forbidden = [
        row
        for row in ROWS
        if row.speedup - PRINTED_TO > min(row.sigma + PRINTED_TO, 1.0) * (row.gamma + 1) / 2
    ]
    assert len(forbidden) == 30


def random_parameters(random: np.random.Generator) -> MoesdParameters:
    """Any nonnegative times, over five powers of ten."""
    times = 10.0 ** random.uniform(-5, 0, 8)
    return MoesdParameters(
        bias=times[0],
        k1=times[1],
        k2=times[2],
        k3=times[3],
        draft_bias=times[4],
        draft_k=times[5],
        reject_bias=times[6],
        reject_k=times[7],
        lam=random.uniform(0.2, 1.0),
        s=1.0 + 10.0 ** random.uniform(-5, -1),
    )


def best_speedups(row: Row, denominator: Denominator, batches: np.ndarray) -> list[float]:
    """The best over batch sizes of each of 200 random sets of parameters."""
    random, ones = np.random.default_rng(0), np.ones(batches.size)
    points = Points(
        batch_size=batches,
        gamma=row.gamma * ones,
        top_k=8 * ones,
        sigma=row.sigma * ones,
        num_experts=64,
        ridge_point=156.0,
    )
    return [
        float(predicted_speedup(random_parameters(random), points, denominator=denominator).max())
        for _ in range(200)
    ]


@pytest.mark.parametrize("row", [ROWS[0], ROWS[2], ROWS[-1]], ids=str)
def test_no_parameters_lift_line_11_above_half_the_tokens_of_a_round(row: Row) -> None:
    batches, bound = np.array([1, 4, 16, 64]), row.sigma * (row.gamma + 1) / 2
    assert max(best_speedups(row, Denominator.LINE_11, batches)) <= bound
    assert max(best_speedups(row, Denominator.EQ_4, batches)) > bound


def alphas() -> dict[tuple[str, str, str, str], dict[int, float]]:
    """alpha by gamma in each setting, inverted from sigma."""
    found: dict[tuple[str, str, str, str], dict[int, float]] = defaultdict(dict)
    for row in ROWS:
        found[row.setting][row.gamma] = alpha_from_sigma(row.sigma, row.gamma)
    return found


def spread(values: dict[int, float]) -> float:
    return max(values.values()) - min(values.values())


@pytest.mark.parametrize(
    ("dataset", "least", "most"),
    [
        pytest.param("humaneval", 0.94, 0.95, id="HumanEval"),
        pytest.param("mtbench", 0.67, 0.70, id="MT-bench"),
    ],
)
def test_greedy_alpha_is_one_number_for_a_dataset(dataset: str, least: float, most: float) -> None:
    found = [alphas()["Qwen2", device, dataset, "0.0"] for device in ("2xA800", "2xH800")]
    both = [alpha for values in found for alpha in values.values()]
    assert [round(min(both), 2), round(max(both), 2)] == [least, most]


def test_alpha_agrees_across_gamma_for_a_draft_model_but_for_one_row() -> None:
    draft_model = {key: values for key, values in alphas().items() if key[0] == "Qwen2"}
    odd = draft_model.pop(ODD_ONE_OUT)
    assert max(map(spread, draft_model.values())) < 0.03
    assert spread({gamma: odd[gamma] for gamma in (2, 3)}) < 0.01
    assert odd[4] - odd[3] > 0.05


def test_one_alpha_is_a_coarser_law_for_a_draft_head() -> None:
    # EAGLE drafts from its own guesses, so a later draft is not accepted as the first one is.
    head = {key: values for key, values in alphas().items() if key[0] == "Mixtral"}
    assert 0.03 < max(map(spread, head.values())) < 0.055


def test_no_round_costs_more_than_two_and_a_third_plain_steps() -> None:
    dearest = max(row.sigma * (row.gamma + 1) / row.speedup for row in ROWS)
    assert dearest == pytest.approx(2.311, abs=5e-4)
