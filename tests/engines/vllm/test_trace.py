"""Steps worked out by hand: which of them count, and what they add up to."""

from __future__ import annotations

from typing import Any

import pytest

from moesd_dist.engines.vllm.trace import (
    EndToEnd,
    Step,
    accepted_per_position,
    full,
    prefill_seconds,
    to_repeat,
)

ROWS = ("a", "b")


def step(**changes: Any) -> Step:
    """Both rows decode with three drafts each: two and no drafts accepted, 10 ms from begin to begin."""
    fields: dict[str, Any] = {
        "decoding": True,
        "tokens": 8,
        "context": 20.0,
        "rows": ROWS,
        "emitted": (3, 1),
        "drafted": (3, 3),
        "target_s": 0.006,
        "sample_s": 0.001,
        "draft_s": 0.002,
        "step_s": 0.0095,
        "period_s": 0.010,
    }
    return Step(**(fields | changes))


def repeat(steps: list[Step], **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "gamma": 3,
        "prompts": [16, 24],
        "prefill_s": 0.05,
        "foreign": 0.25,
        "end_to_end": None,
    }
    return to_repeat(steps, **(fields | changes))


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        pytest.param({}, True, id="the whole batch decodes"),
        pytest.param({"decoding": False}, False, id="a prompt is in it"),
        pytest.param({"rows": ("a",)}, False, id="a sequence has finished or waits"),
        pytest.param({"period_s": None}, False, id="the last of a run: nothing follows"),
        pytest.param({"drafted": (0, 0), "emitted": (1, 1)}, True, id="nothing was drafted"),
    ],
)
def test_only_decoding_steps_of_the_whole_batch_count(changes, counts):
    assert bool(full([step(**changes)], 2)) is counts


def test_the_order_of_the_steps_is_kept():
    first, last = step(tokens=1), step(tokens=2)
    assert full([first, step(decoding=False), last], 2) == [first, last]


def test_no_full_step_is_an_error_that_names_arguments_one_may_give():
    with pytest.raises(
        ValueError, match=r"kv_cache_memory_bytes, or lower sweep\.batch_size"
    ) as no:
        repeat([])
    assert "max_num_seqs" not in str(no.value)  # it is said by sweep.batch_size


@pytest.mark.parametrize(
    ("emitted", "expected"),
    [
        pytest.param([(1, 1)], (0, 0, 0), id="all rejected at once"),
        pytest.param([(4, 4)], (2, 2, 2), id="all accepted, the bonus token is no draft"),
        pytest.param([(3, 1), (2, 4)], (3, 2, 1), id="counts never rise with the position"),
    ],
)
def test_a_position_counts_the_rows_that_got_so_far(emitted, expected):
    assert accepted_per_position([step(emitted=e) for e in emitted], 3) == expected


def test_tokens_are_accepted_drafts_and_one_more_a_row():
    found = repeat([step(), step(emitted=(4, 2))])
    assert (found.tokens, found.drafted, found.accepted) == (10, 12, 6)
    assert found.sequence_rounds == 4
    assert found.tokens == found.accepted + found.sequence_rounds
    assert found.accepted_per_position == (3, 2, 1)
    assert sum(found.accepted_per_position) == found.accepted


def test_overhead_is_what_no_phase_took():
    found = repeat([step(), step(period_s=0.012, target_s=0.007)])
    assert found.seconds == pytest.approx(0.022)
    assert (found.target_s, found.draft_s, found.reject_s) == pytest.approx((0.013, 0.004, 0.002))
    assert found.overhead_s == pytest.approx(0.022 - 0.013 - 0.004 - 0.002)


def test_medians_and_contexts_are_of_the_steps():
    found = repeat([step(target_s=t, context=10 * t) for t in (1.0, 2.0, 6.0)])
    assert found.median_target_s == 2.0
    assert found.mean_context == pytest.approx(30.0)
    assert (found.rounds, found.tokens_per_forward, found.verified_tokens) == (3, 4, 24)


def test_verified_tokens_are_fewer_where_less_was_drafted():
    found = repeat([step(tokens=5, drafted=(3, 0), emitted=(2, 1))])
    assert (found.verified_tokens, found.drafted) == (5, 3)
    assert found.tokens_per_forward == 4


def test_prompts_and_foreign_load_are_passed_on():
    found = repeat([step()])
    assert (found.prompts, found.prompt_tokens) == (2, 40)
    assert (found.prefill_s, found.foreign_cpu) == (0.05, 0.25)
    assert (found.end_to_end_s, found.scheduled_steps) == (0.0, 0)


def test_prefill_lasts_until_decoding_alone_is_left():
    steps = [step(decoding=False, period_s=0.3), step(decoding=False, period_s=0.2), step()]
    assert prefill_seconds(steps) == pytest.approx(0.5)


def test_a_last_step_without_a_period_counts_with_its_own_seconds():
    assert prefill_seconds([step(decoding=False, period_s=None)]) == pytest.approx(0.0095)


def test_the_end_to_end_run_counts_its_tail_and_its_emptier_steps():
    run = EndToEnd(
        steps=(step(decoding=False), step(), step(rows=("b",), period_s=None)),
        prefill_s=0.01,
        prompts=2,
        prompt_tokens=40,
        output_tokens=24,
        request_s=0.04,
        request_tokens=22,
    )
    found = repeat([step()], end_to_end=run)
    assert found.end_to_end_s == pytest.approx(0.010 + 0.0095)
    assert (found.end_to_end_tokens, found.request_s, found.request_tokens) == (24, 0.04, 22)
    assert (found.scheduled_sequences, found.scheduled_steps) == (3, 2)


def test_a_step_crosses_the_border_as_plain_values():
    one = step()
    plain = {name: getattr(one, name) for name in Step.__slots__}
    as_sent = plain | {"rows": [*one.rows], "emitted": [3, 1], "drafted": [3, 3]}
    assert Step.from_plain(as_sent) == one
