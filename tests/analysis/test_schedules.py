"""Schedules as vLLM and SGLang read them, held against their rules."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from analysis.recommending.schedules import (
    sglang_config,
    static_vllm_config,
    vllm_config,
    vllm_method,
    write_csv,
)
from moesd_dist.records import DraftMethod, ModelSource, SdSpec
from moesd_dist.theory.choices.conditioning import Estimate
from moesd_dist.theory.choices.recommendation import Choice, intervals
from tests.analysis.conftest import SD

SPANS = [(1, 7, 3), (8, 40, 1), (41, 64, 0)]


def choice(batch_size: int, gamma: int, rivals: tuple[int, ...] = ()) -> Choice:
    return Choice(
        batch_size=batch_size,
        gamma=gamma,
        speedup=1.5,
        low=1.4,
        high=1.6,
        rivals=rivals,
        likeliest=rivals[0] if rivals else None,
        chance=0.3 if rivals else 0.0,
        measure_next=(batch_size, gamma) if rivals else None,
    )


def dense_lookup(config: dict, max_num_seqs: int) -> list[int]:
    """What vLLM 0.32 makes of the table, by its documented rules: K of batch sizes 1.. on."""
    table, most = config["num_speculative_tokens_per_batch_size"], config["num_speculative_tokens"]
    assert isinstance(table, list)
    assert table
    assert most > 0
    assert table[0][0] == 1
    end, found = 0, dict[int, int]()
    for entry in sorted(table):
        first, last, k = entry
        assert end < first <= last
        assert 0 <= k <= most
        found |= dict.fromkeys(range(first, last + 1), k)
        end = last
    last_k, dense = 0, []
    for size in range(1, max_num_seqs + 1):
        last_k = found.get(size, last_k)
        dense.append(last_k)
    return dense


def test_vllm_reads_the_table_as_it_was_meant():
    config = vllm_config(SPANS, SD)
    assert config is not None
    assert dense_lookup(config, 80) == [3] * 7 + [1] * 33 + [0] * 24 + [0] * 16
    assert config["num_speculative_tokens"] == 3


def test_choices_become_a_table_that_vllm_reads():
    choices = [choice(1, 0), choice(4, 2), choice(16, 5), choice(64, 1)]
    config = vllm_config(intervals(choices), SD)
    assert config is not None
    assert dense_lookup(config, 64) == [0] * 3 + [2] * 12 + [5] * 48 + [1]


def test_sd_off_throughout_is_no_config():
    assert vllm_config([(1, 64, 0)], SD) is None
    assert static_vllm_config(0, SD) is None


def test_a_static_config_has_no_table():
    assert static_vllm_config(3, SD) == vllm_method(SD) | {"num_speculative_tokens": 3}


@pytest.mark.parametrize(
    "spans",
    [
        pytest.param([], id="none"),
        pytest.param([(2, 8, 1)], id="not from 1 on"),
        pytest.param([(1, 4, 1), (6, 8, 2)], id="a gap"),
        pytest.param([(1, 4, 1), (4, 8, 2)], id="an overlap"),
        pytest.param([(1, 0, 1)], id="backwards"),
        pytest.param([(1, 8, -1)], id="a negative gamma"),
    ],
)
def test_a_table_that_vllm_would_refuse_or_fill_is_refused_here(spans):
    with pytest.raises(ValueError, match="span"):
        vllm_config(spans, SD)


@pytest.mark.parametrize(
    ("sd", "method"),
    [
        pytest.param(SD, {"method": "draft_model", "model": "embedded_draft"}, id="embedded"),
        pytest.param(
            replace(SD, draft=replace(SD.draft, source=ModelSource.checkpoint, location="/m/draft")),
            {"method": "draft_model", "model": "/m/draft"},
            id="a checkpoint stands with its path",
        ),
        pytest.param(
            SdSpec(method=DraftMethod.ngram, ngram_min=1, ngram_max=5),
            {"method": "ngram", "prompt_lookup_max": 5, "prompt_lookup_min": 1},
            id="ngram",
        ),
    ],
)  # fmt: skip
def test_the_method_has_vllm_s_names(sd, method):
    assert vllm_method(sd) == method


def test_sglang_has_a_slot_for_each_interval_with_open_rivals_as_candidates():
    choices = [choice(1, 3), choice(2, 3, (1, 2)), choice(3, 3), choice(8, 1), choice(16, 0)]
    assert sglang_config(choices) == {
        "1": {"candidate_steps": [1, 2, 3]},
        "8": {"candidate_steps": [1]},
        "16": {"candidate_steps": [0]},
    }


def test_the_csv_has_a_row_a_batch_size(tmp_path):
    found = Estimate(
        batch_sizes=(1, 8),
        gammas=(0, 2),
        log_speedup=np.array([[0.0, np.nan], [0.0, np.log(1.5)]]),
        covariance=np.zeros((2, 2, 2)),
    )
    path = tmp_path / "recommendation.csv"
    write_csv(path, [choice(1, 0), choice(8, 2, (0,))], found, {8: {2}}, source="simulated")
    rows = list(csv.DictReader(path.open()))
    assert [row["gamma"] for row in rows] == ["0", "2"]
    assert [row["decided"] for row in rows] == ["true", "false"]
    assert {row["source"] for row in rows} == {"simulated"}
    assert [row["measured_gammas"] for row in rows] == ["", "2"]
    assert [row["speedup_gamma_2"] for row in rows] == ["", "1.5000"]
    assert (rows[1]["measure_next_batch_size"], rows[1]["measure_next_gamma"]) == ("8", "2")
