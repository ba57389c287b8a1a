"""Acceptance files of every form are read, and those that contradict themselves are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moesd_dist.records.serial import measurement_from_plain, to_plain
from moesd_dist.workloads.acceptance_files import Form, ImportedAcceptance, read_profile
from moesd_dist.workloads.acceptance_points import profile_of

POINTS = Path(__file__).parents[2] / "docs" / "results" / "quickstart_cpu" / "points.json"
RATES = (0.8, 0.75, 0.25)  # conditional; unconditional 0.8, 0.6, 0.15; length 2.55

# Figures as 0.32.0 spells them: 100 rounds of 3 drafts, of which 80, 60 and 15 were accepted.
METRICS = """\
# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 60.0
vllm:spec_decode_num_drafts_total{engine="1",model_name="m"} 40.0
# TYPE vllm:spec_decode_num_drafts_created gauge
vllm:spec_decode_num_drafts_created{engine="0",model_name="m"} 1.7e+09
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 300.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 155.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 50.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",model_name="m",position="0"} 30.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="1"} 60.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="2"} 15.0
vllm:spec_decode_num_accepted_tokens_per_pos_created{engine="0",model_name="m",position="0"} 1.7e+09
"""
SNAPSHOT = [
    {"name": "vllm:num_requests_running", "labels": {"model_name": "m"}, "value": 0},
    {"name": "vllm:spec_decode_num_drafts", "labels": {"model_name": "m"}, "value": 100},
    {"name": "vllm:spec_decode_num_draft_tokens", "labels": {"model_name": "m"}, "value": 300},
    {"name": "vllm:spec_decode_num_accepted_tokens", "labels": {"model_name": "m"}, "value": 155},
    {
        "name": "vllm:spec_decode_num_accepted_tokens_per_pos",
        "labels": {"model_name": "m"},
        "values": [80, 60, 15],
    },
]
COUNTERS = {
    "vllm:spec_decode_num_drafts": 100,
    "vllm:spec_decode_num_accepted_tokens_per_pos": {"0": 80, "1": 60, "2": 15},
}
BENCH = {
    "model_id": "m",
    "request_throughput": 3.0,
    "spec_decode_num_drafts": 100,
    "spec_decode_draft_tokens": 300,
    "spec_decode_accepted_tokens": 155,
    "spec_decode_acceptance_rate": 155 / 3,
    "spec_decode_acceptance_length": 2.55,
    "spec_decode_per_position_acceptance_rates": [0.8, 0.6, 0.15],
}
OURS = {"format": "moesd-acceptance", "convention": "conditional", "rates": list(RATES)}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., ImportedAcceptance]:
    def written(content: Any, **options: Any) -> ImportedAcceptance:
        file = tmp_path / "acceptance"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_profile(file, **options)

    return written


@pytest.mark.parametrize(
    ("content", "form", "tried"),
    [
        pytest.param(OURS, Form.profile, (), id="ours, conditional"),
        pytest.param(OURS | {"rounds": 100}, Form.profile, (100, 80, 60), id="ours with rounds"),
        pytest.param(
            OURS | {"tried": [100, 80, 60]}, Form.profile, (100, 80, 60), id="ours, tried"
        ),
        pytest.param(OURS | {"acceptance_length": 2.55}, Form.profile, (), id="ours with a length"),
        pytest.param(
            "{convention: unconditional, rates: [0.8, 0.6, 0.15], rounds: 100}",
            Form.profile,
            (100, 80, 60),
            id="unconditional in YAML's braces",
        ),
        pytest.param(METRICS, Form.vllm, (100, 80, 60), id="vLLM's metrics of two engines"),
        pytest.param(SNAPSHOT, Form.vllm, (100, 80, 60), id="LLM.get_metrics()"),
        pytest.param(COUNTERS, Form.vllm, (100, 80, 60), id="counters as a mapping"),
        pytest.param(BENCH, Form.vllm, (100, 80, 60), id="vllm bench serve"),
        pytest.param(
            "acceptance_length: {1: 1.8, 2: 2.4, 3: 2.55}\nbonus: included\nsource: a page\n",
            Form.lengths,
            (),
            id="lengths with the bonus token",
        ),
        pytest.param(
            "acceptance_length:\n  1: 0.8\n  2: 1.4\n  3: 1.55\nbonus: excluded\n",
            Form.lengths,
            (),
            id="lengths without it",
        ),
    ],
)
def test_every_form_gives_the_same_profile(read, content, form, tried):
    found = read(content)
    assert found.profile.conditional == pytest.approx(RATES)
    assert found.profile.tried == tried
    assert found.form is form
    assert not found.synthetic


def test_where_it_came_from_is_kept(read, tmp_path):
    found = read(OURS | {"synthetic": True, "setting": {"target": "m", "top_k": 4}})
    assert found.origin == str(tmp_path / "acceptance")
    assert found.synthetic
    assert found.setting == {"target": "m", "top_k": "4"}
    assert read(BENCH).setting == {"target": "m"}


def test_our_measurements_are_pooled_over_gamma_and_batch():
    found = read_profile(POINTS)
    assert found.form is Form.measurements
    plain = [p for p in json.loads(POINTS.read_text()) if p["point"]["role"] == "sd"]
    repeats = [r for p in plain for r in p["repeats"]]
    assert found.profile.rounds == sum(r["sequence_rounds"] for r in repeats)
    first = sum(r["accepted_per_position"][0] for r in repeats) / found.profile.rounds
    assert found.profile.conditional[0] == pytest.approx(first)
    assert len(found.profile.conditional) == max(p["point"]["gamma"] for p in plain)
    assert found.setting["target"].startswith("embedded")


def test_repeats_that_scatter_widen_the_error():
    (sd,) = [p for p in json.loads(POINTS.read_text()) if p["point"]["batch_size"] == 1 and p["point"]["gamma"] == 1]  # fmt: skip
    real = measurement_from_plain(sd)
    low, high = (replace(real.repeats[0], sequence_rounds=100, accepted=n, accepted_per_position=(n,)) for n in (70, 90))  # fmt: skip
    profile = profile_of([replace(real, repeats=(low, high))])
    binomial = (0.7 * 0.3 + 0.9 * 0.1) / 2 / 100  # of the rate; sigma is (1 + rate) / 2
    assert profile.dispersion == pytest.approx(0.02 / binomial)  # 0.02: variance of 0.7 and 0.9
    assert profile_of([replace(real, repeats=(low, low))]).dispersion == 1.0
    assert profile_of([replace(real, repeats=(low,))]).dispersion == 1.0


def test_measurements_of_two_settings_are_one_profile_only_if_one_is_chosen(read):
    content = json.loads(POINTS.read_text())
    hot = [p | {"point": p["point"] | {"temperature": 1.0}} for p in content]
    with pytest.raises(ValueError, match="temperature 0 and 1; split it with python -m analysis"):
        read([*content, *hot])
    found = read([*content, *hot], where={"temperature": "1"})
    assert found.profile == read_profile(POINTS).profile


def test_measurements_that_verified_nothing_are_left_out(read):
    sd = next(p for p in json.loads(POINTS.read_text()) if p["point"]["role"] == "sd")
    real = measurement_from_plain(sd)
    coin = replace(real.point, sd=replace(real.point.sd, synthetic_acceptance=(0.9,)))
    simulated = replace(real.point, engine="analytic")
    unreal = [to_plain(replace(real, point=point)) for point in (coin, simulated)]
    assert read([sd, *unreal]).profile == read([sd]).profile
    assert read(sd).profile == read([sd]).profile  # a run's measurement.json
    with pytest.raises(ValueError, match="no verified SD point in here: 2 points"):
        read(unreal)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(
            {"rates": [0.8]}, "convention must be conditional .* it is missing", id="no convention"
        ),
        pytest.param(OURS | {"convention": "raw"}, "got 'raw'", id="unknown convention"),
        pytest.param(OURS | {"format": "x"}, "the format is moesd-acceptance", id="format"),
        pytest.param(OURS | {"rate": 1}, "unknown key 'rate'; did you mean rates", id="key"),
        pytest.param(
            {"format": "moesd-acceptance", "convention": "conditional"}, "'rates' is", id="no rates"
        ),
        pytest.param(OURS | {"rates": "0.8"}, "list of numbers", id="rates as text"),
        pytest.param(OURS | {"rates": [80]}, "got 80.0; use", id="percent"),
        pytest.param(
            OURS | {"convention": "unconditional", "rates": [0.5, 0.6]},
            "never increase with position, got 0.5 then 0.6; pass conditional",
            id="rising, so conditional",
        ),
        pytest.param(
            OURS | {"convention": "unconditional", "acceptance_length": 2.55},
            "length of 2.8, but acceptance_length says 2.55; the rates are conditional ones",
            id="conditional rates given as unconditional",
        ),
        pytest.param(
            OURS | {"rates": [0.8, 0.6, 0.15], "acceptance_length": 2.55},
            "the rates are unconditional ones, given as conditional",
            id="unconditional rates given as conditional",
        ),
        pytest.param(OURS | {"acceptance_length": 1.55}, "leaves the bonus", id="length - 1"),
        pytest.param(OURS | {"rounds": 9, "tried": [9, 9, 9]}, "give rounds alone", id="both"),
        pytest.param(
            BENCH | {"spec_decode_per_position_acceptance_rates": list(RATES)},
            "length of 2.8, but spec_decode_acceptance_length says 2.55; the rates are conditional",
            id="vLLM's with conditional rates",
        ),
        pytest.param(
            BENCH | {"spec_decode_acceptance_length": 1.55}, "bonus token out", id="vLLM's length"
        ),
        pytest.param(
            BENCH | {"spec_decode_accepted_tokens": 120}, "accepted tokens / drafts says 2.2", id="n"
        ),
        pytest.param(
            BENCH | {"spec_decode_acceptance_rate": 0.52},
            "spec_decode_acceptance_rate says 1.0",
            id="a fraction where vLLM writes percent",
        ),
        pytest.param(
            BENCH | {"spec_decode_accepted_tokens": 400}, "got 400 of 300", id="more than drafted"
        ),
        pytest.param(
            {"spec_decode_acceptance_length": 2.55}, "no acceptance per position", id="length only"
        ),
        pytest.param(METRICS.replace('engine="1",model_name="m"', 'model_name="n"'), "got m, n", id="two models"),
        pytest.param(
            METRICS.replace('position="1"', 'position="4"'), r"got \[0, 2, 4\]", id="a gap"
        ),
        pytest.param(
            "acceptance_length: {3: 2.5}",
            r"bonus must be included \(as ours and vLLM's\) or excluded \(as TensorRT-LLM's\); it is",
            id="bonus left open",
        ),
        pytest.param(
            "{acceptance_length: {3: 0.7}, bonus: included}", "convention is wrong", id="below 1"
        ),
        pytest.param(
            "{acceptance_length: {3: 3.7}, bonus: excluded}", "convention is wrong", id="above K"
        ),
        pytest.param(
            "{acceptance_length: {3: 4.7}, bonus: included}", "bonus convention", id="above K + 1"
        ),
        pytest.param("{acceptance_length: 2.5, bonus: included}", "no acceptance in", id="no K"),
        pytest.param("{a: [", "neither JSON nor YAML nor vLLM's metrics: while parsing", id="neither JSON nor YAML"),
        pytest.param("", "no acceptance in here", id="empty"),
        pytest.param([1, 2], "no acceptance in here", id="numbers"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_in_one_line(read, tmp_path, content, says):
    with pytest.raises(ValueError, match=says) as caught:
        read(content)
    assert str(caught.value).startswith(str(tmp_path / "acceptance"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no acceptance file"):
        read_profile(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('{"convention": "unconditional", "rates": [0.5], "rounds": Infinity}', "rounds must be a finite number", id="endless rounds"),
        pytest.param('{"convention": "unconditional", "rates": [0.5], "rounds": -5}', "rounds must be a finite number", id="negative rounds"),
        pytest.param('{"convention": "unconditional", "rates": [true]}', "rates must be a finite number", id="a rate that is a truth"),
        pytest.param('{"convention": "unconditional", "rates": [0.5], "synthetic": "false"}', "synthetic must be true or false", id="synthetic as text"),
        pytest.param('{"convention": "unconditional", "rates": [0.5], "dispersion": null}', "dispersion must be a finite number", id="no dispersion"),
        pytest.param('{"acceptance_length": {"a": 1.5}, "bonus": "included"}', "a whole number from 1 on; got 'a'", id="a gamma in letters"),
        pytest.param('[{"name": "vllm:spec_decode_num_drafts", "value": 5}, 7]', "no acceptance per position", id="a metric that is a number"),
    ],
)  # fmt: skip
def test_what_is_no_figure_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "acceptance.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_profile(file)
    assert "\n" not in str(caught.value)
