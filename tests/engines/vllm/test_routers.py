"""Routing is counted as it was chosen; a trace that cannot be right is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from moesd_dist.engines.vllm.routers import CERTAIN, RouterTrace

EXPERTS = 4


class Router:
    """As vLLM's: tells a function which experts it chose, if it was given one."""

    global_num_experts = EXPERTS

    def __init__(self) -> None:
        self.capture: Callable[[Any], None] | None = None

    def set_capture_fn(self, capture: Callable[[Any], None] | None) -> None:
        self.capture = capture

    def choose(self, ids: list[list[int]]) -> None:
        if self.capture is not None:
            self.capture(torch.tensor(ids, dtype=torch.int32))


class Layer(torch.nn.Module):
    def __init__(self, layer_id: int) -> None:
        super().__init__()
        self.layer_id, self.router = layer_id, Router()


class Unrouted(torch.nn.Module):
    """A dense layer, which has a number but no router."""

    layer_id = 7


class Model(torch.nn.Module):
    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([Unrouted(), *map(Layer, range(layers))])

    def choose(self, *ids: list[list[int]]) -> None:
        """One layer's choice after the other; layers without any are silent."""
        for layer, chosen in zip(list(self.layers)[1:], ids, strict=False):
            layer.router.choose(chosen)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def trace(model: Model) -> RouterTrace:
    trace = RouterTrace(model)
    trace.switch(True)
    return trace


FIRST = [[0, 1], [1, 2], [0, 1]]
SECOND = [[3, 2], [3, 0], [3, 1]]


def test_layers_and_experts_are_found_and_dense_layers_are_not(trace):
    assert (trace.layers, trace.num_experts) == (2, EXPERTS)


def test_counts_equal_a_hand_count(model, trace):
    for _ in range(2):
        trace.begin(3)
        model.choose(FIRST, SECOND)
        trace.end(counted=True)
    assert trace.take() == {
        "seen": [2 * 3, 2 * 4],
        "layer_forwards": 4,
        "load": [[4, 6, 2, 0], [2, 2, 2, 6]],
        "top_k": 2,
    }


def test_a_step_with_a_prompt_is_checked_and_not_counted(model, trace):
    trace.begin(3)
    model.choose(FIRST, SECOND)
    trace.end(counted=False)
    assert trace.take() == {"seen": [0, 0], "layer_forwards": 0, "load": [[], []], "top_k": 0}


def test_rows_beyond_the_steps_tokens_are_padding(model, trace):
    trace.begin(2)
    model.choose([*FIRST[:2], [3, 3]], [*SECOND[:2], [1, 1]])
    trace.end(counted=True)
    assert trace.take()["load"] == [[1, 2, 1, 0], [1, 0, 1, 2]]


def test_taking_starts_anew(model, trace):
    trace.begin(3)
    model.choose(FIRST, SECOND)
    trace.end(counted=True)
    trace.take()
    assert trace.take()["layer_forwards"] == 0


def test_switched_off_the_routers_are_left_alone(model, trace):
    trace.switch(False)
    assert [layer.router.capture for layer in list(model.layers)[1:]] == [None, None]
    trace.begin(3)
    trace.end(counted=True)
    assert trace.take()["layer_forwards"] == 0


def test_a_dense_model_has_nothing_to_trace():
    trace = RouterTrace(Model(layers=0))
    trace.switch(True)
    trace.begin(3)
    trace.end(counted=True)
    assert (trace.layers, trace.num_experts) == (0, 0)


@pytest.mark.parametrize(
    ("tokens", "ids", "says"),
    [
        pytest.param(3, [FIRST], "no trace of layer 1: 1 of 2 routers", id="a silent layer"),
        pytest.param(3, [], "no trace of layer 0: 2 of 2 routers", id="none spoke: a graph ran"),
        pytest.param(
            4, [FIRST, SECOND], "stale trace of layer 0: 3 tokens for a step of 4", id="too short"
        ),
        pytest.param(
            3,
            [FIRST, [[0, 0]] * 3],
            "empty trace of layer 1: expert 0 for all 3 tokens",
            id="a buffer of zeros",
        ),
        pytest.param(
            1, [[[0, 0]], [[0, 1]]], "empty trace of layer 0", id="zeros for a single token"
        ),
        pytest.param(
            CERTAIN,
            [[[0]] * CERTAIN, [[1]] * CERTAIN],
            "empty trace of layer 0: expert 0 for all 64",
            id="zeros at top_k 1 in a long step",
        ),
    ],
)
@pytest.mark.parametrize("counted", [True, False])
def test_a_trace_that_cannot_be_right_is_refused(model, trace, tokens, ids, says, counted):
    trace.begin(tokens)
    model.choose(*ids)
    trace.end(counted=counted)  # inside a step: nothing may be raised there
    trace.begin(3)
    model.choose(FIRST, SECOND)
    trace.end(counted=True)  # nor does a sound step make it good
    with pytest.raises(RuntimeError, match=says):
        trace.take()
    assert trace.take()["layer_forwards"] == 0


def test_the_last_steps_choice_is_not_taken_for_this_ones(model, trace):
    trace.begin(3)
    model.choose(FIRST, SECOND)
    trace.end(counted=True)
    trace.begin(3)
    trace.end(counted=True)
    with pytest.raises(RuntimeError, match="no trace of layer 0"):
        trace.take()


def test_a_few_tokens_may_agree_on_one_expert_at_top_k_1(model, trace):
    trace.begin(2)
    model.choose([[0], [0]], [[3], [3]])
    trace.end(counted=True)
    assert trace.take()["seen"] == [1, 1]
