"""What a configuration asks of a machine reaches the workers that keep to it."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from moesd_dist import build
from moesd_dist.config import EngineKind, ForeignLoadPolicy, HardwareConf
from moesd_dist.engines import neighbours
from moesd_dist.sweep.quiet import nobody


def limit(kind: EngineKind = EngineKind.vllm, **fields):
    conf = SimpleNamespace(hardware=HardwareConf(**fields), engine=SimpleNamespace(kind=kind))
    return pickle.loads(pickle.dumps(build.limit_of(conf)))


@pytest.mark.parametrize(
    ("policy", "refuse", "wait_s"),
    [
        pytest.param(ForeignLoadPolicy.flag, False, 0.0, id="flag"),
        pytest.param(ForeignLoadPolicy.wait, False, 60.0, id="wait"),
        pytest.param(ForeignLoadPolicy.refuse, True, 0.0, id="refuse"),
    ],
)
def test_the_policy_is_carried_to_the_worker(policy, refuse, wait_s):
    found = limit(foreign_load=policy, foreign_load_wait_s=60.0)
    assert (found.refuse, found.wait_s, found.look) == (refuse, wait_s, neighbours.look)


def test_nobody_disturbs_a_formula():
    found = limit(EngineKind.analytic, foreign_load=ForeignLoadPolicy.wait)
    assert (found.wait_s, found.look) == (0.0, nobody)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"gpus_per_engine": 1}, "got 1 and true", id="several GPUs on a node"),
        pytest.param({"whole_node": False}, "got 0 and false", id="engines side by side"),
    ],
)
def test_engines_that_share_a_node_are_not_pinned(fields, message):
    with pytest.raises(ValueError, match=message):
        HardwareConf(pin="0-1", **fields)


def test_patience_is_not_negative():
    with pytest.raises(ValueError, match="foreign_load_wait_s must be at least 0"):
        HardwareConf(foreign_load_wait_s=-1.0)
