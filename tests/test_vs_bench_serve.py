"""Our figures beside `vllm bench serve`: its command lines, both sides' counts, the table; no vLLM."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import replace
from itertools import pairwise

import psutil
import pytest

from benchmarks.vs_serve import commands, counts, server
from benchmarks.vs_serve.point import point_of
from benchmarks.vs_serve.rows import rows
from benchmarks.vs_serve.table import Row, markdown
from moesd_dist.records import Measurement, Repeat, SweepPoint

STEPS = [
    {"drafted": [0, 0], "emitted": [1, 1]},  # the prefill
    {"drafted": [2, 2], "emitted": [3, 1]},
    {"drafted": [2, 0], "emitted": [2, 1]},  # one row without a draft
]
COUNTED = counts.Counts(rounds=3, drafted=6, accepted=3, per_position=(2, 1))
BENCH = {
    "spec_decode_num_drafts": 3,
    "spec_decode_draft_tokens": 6,
    "spec_decode_accepted_tokens": 3,
    "spec_decode_per_position_acceptance_rates": [2 / 3, 1 / 3],
    "total_output_tokens": 8,
    "output_throughput": 100.0,
    "mean_tpot_ms": 20.0,
    "median_tpot_ms": 19.0,
    "mean_ttft_ms": 50.0,
    "median_ttft_ms": 49.0,
    "mean_itl_ms": 40.0,
    "median_itl_ms": 39.0,
    "p99_itl_ms": 80.0,
    "max_concurrent_requests": 2,
}
REPEAT = Repeat(
    seconds=0.03, rounds=2, tokens=7, drafted=8, accepted=3, accepted_per_position=(2, 1),
    sequence_rounds=4, draft_s=0.008, target_s=0.018, reject_s=0.002, overhead_s=0.002,
    tokens_per_forward=3, median_target_s=0.009, median_draft_s=0.004, prefill_s=0.05,
    end_to_end_s=0.04, end_to_end_tokens=8, request_s=0.06, request_tokens=6,
    scheduled_sequences=6, scheduled_steps=4, experts_seen=(12, 16), layer_forwards=4,
)  # fmt: skip


def point(*, prompts: int = 4) -> SweepPoint:
    return point_of(prompts=prompts, batch_size=2, gamma=2, output_tokens=4)


def measured() -> Measurement:
    baseline = replace(REPEAT, tokens=4, median_target_s=0.006)
    return Measurement(
        point=point(prompts=2), repeats=(REPEAT,), baseline=(baseline,), num_experts=8
    )


def row(quantity: str) -> Row:
    (found,) = (r for r in rows(BENCH, COUNTED, measured()) if r.quantity == quantity)
    return found


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        pytest.param({"max_model_len": 512}, ["--max-model-len", "512"], id="a number"),
        pytest.param({"enforce_eager": True}, ["--enforce-eager"], id="a switch turned on"),
        pytest.param({"async_scheduling": False}, ["--no-async-scheduling"], id="and off"),
        pytest.param({"a": {"b": [1, 2]}}, ["--a", '{"b": [1, 2]}'], id="a mapping as JSON"),
    ],
)
def test_arguments_become_flags(argument, words):
    assert commands.flags(argument) == words


def test_the_server_gets_our_engines_arguments_without_our_probe():
    words = commands.serve(point(), 8000)
    model = words[words.index("serve") + 1]
    assert model.endswith("target")
    assert words[words.index("--port") + 1] == "8000"
    assert '"num_speculative_tokens": 2' in words[words.index("--speculative-config") + 1]
    assert "--no-enable-prefix-caching" in words
    assert not any("worker" in word or "log-stats" in word for word in words)


def test_bench_serve_is_asked_for_every_prompt_in_order_and_full_length(tmp_path):
    words = commands.bench(point(), "http://x", tmp_path / "p.jsonl", 4, tmp_path / "r.json")
    told = dict(pairwise(words))
    assert told["--num-prompts"] == "4"
    assert told["--max-concurrency"] == "2"
    assert told["--custom-output-len"] == "4"
    assert {"--ignore-eos", "--disable-shuffle", "--skip-chat-template"} <= set(words)


def test_prompts_that_fill_no_batch_are_refused():
    with pytest.raises(ValueError, match="multiple of --batch-size 2, got 3"):
        point(prompts=3)


def test_probe_counters_and_bench_serve_are_counted_alike():
    before = {"spec_decode_num_drafts": [2.0], "spec_decode_num_draft_tokens": [4.0],
              "spec_decode_num_accepted_tokens": [1.0], "spec_decode_num_accepted_tokens_per_pos": [1.0, 0.0]}  # fmt: skip
    after = {"spec_decode_num_drafts": [5.0], "spec_decode_num_draft_tokens": [10.0],
             "spec_decode_num_accepted_tokens": [4.0], "spec_decode_num_accepted_tokens_per_pos": [3.0, 1.0]}  # fmt: skip
    assert counts.of_counters(before, after) == COUNTED
    assert counts.of_bench(BENCH) == COUNTED
    by_probe = counts.of_steps(STEPS, 2)
    assert by_probe == counts.Counts(rounds=3, drafted=6, accepted=3, per_position=(2, 1))
    assert by_probe.length == 2.0


def test_a_server_that_did_not_speculate_is_noticed():
    with pytest.raises(ValueError, match="no speculative decoding"):
        counts.of_bench({"completed": 4})


@pytest.mark.parametrize(
    ("quantity", "theirs", "end", "window"),
    [
        pytest.param("acceptance length", 2.0, 2.0, 1.75, id="of all prompts, and of windows"),
        pytest.param("accepted at position 2, %", 100 / 3, 100 / 3, 25.0, id="per position"),
        pytest.param("output tokens/s", 100.0, 200.0, 7 / 0.03, id="tokens over seconds"),
        pytest.param("TPOT mean, ms", 20.0, 10.0, 60 / 7, id="of requests, and of a full batch"),
        pytest.param("ITL mean, ms", 40.0, None, 15.0, id="a chunk is a round"),
        pytest.param("ITL p99, ms", 80.0, None, None, id="theirs alone"),
        pytest.param("sequences in a step", None, 1.5, 2.0, id="ours alone"),
        pytest.param("target efficiency", None, None, 6 / 9, id="baseline over verification"),
        pytest.param("activated experts", None, None, 7.0, id="over layers and forwards"),
    ],
)
def test_a_row_holds_what_each_side_reports(quantity, theirs, end, window):
    found = row(quantity)
    expected = (theirs, end, window)
    assert (found.theirs, found.end, found.window) == tuple(
        value if value is None else pytest.approx(value) for value in expected
    )


def test_a_ratio_is_of_what_both_report_to_the_end():
    assert row("output tokens/s").ratio == pytest.approx(2.0)
    assert row("ITL mean, ms").ratio is None


def test_the_table_says_nothing_where_nothing_was_reported():
    lines = markdown(rows(BENCH, COUNTED, measured())).splitlines()
    assert lines[0].startswith("| quantity | bench serve |")
    assert "| peak requests | 2 | - | - | - |" in "\n".join(lines)
    assert len({line.count("|") for line in lines}) == 1


def test_a_server_that_ends_too_soon_is_told_in_one_line(tmp_path):
    command = [sys.executable, "-c", "raise ValueError('no such model')"]
    with (
        pytest.raises(server.CommandFailed, match=r"serve ended with 1 .*: no such model; see"),
        server.serving(command, "http://127.0.0.1:9", {}, tmp_path / "serve.log", start_s=30),
    ):
        pass


def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path):
    program = "import subprocess, sys; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); c.wait()"
    with pytest.raises(server.CommandFailed, match="did not end within 2 s"):
        server.run([sys.executable, "-c", program], {}, tmp_path / "bench.log", limit_s=2)
    time.sleep(0.1)
    child = int((tmp_path / "bench.log").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_command_that_fails_is_told_with_the_servers_own_error(tmp_path):
    port = server.free_port()
    program = (
        "from http.server import BaseHTTPRequestHandler as H, HTTPServer\n"
        "H.do_GET = lambda self: (self.send_response(200), self.end_headers())\n"
        "print('MemoryError: no room', flush=True)\n"
        f"HTTPServer(('127.0.0.1', {port}), H).serve_forever()"
    )
    asking = [sys.executable, "-c", "raise ValueError('no answer')"]
    with (
        pytest.raises(server.CommandFailed, match=r"bench ended with 1: .*no answer.*no room"),
        server.serving(
            [sys.executable, "-c", program],
            f"http://127.0.0.1:{port}",
            {},
            tmp_path / "serve.log",
            start_s=30,
        ),
    ):
        server.run(asking, {}, tmp_path / "bench.log", limit_s=30)
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port)):
        pass
