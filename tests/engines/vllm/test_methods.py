"""SD settings that no build of vLLM could run are refused with the rule and the way out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moesd_dist.engines.vllm.methods import check_method
from moesd_dist.records import DraftMethod, ModelSource, ModelSpec, SdSpec
from tests.engines.vllm.points import FIXED, PAIR, point

MTP = SdSpec(method=DraftMethod.mtp)
ORACLE = SdSpec(method=DraftMethod.oracle, alpha=0.8)
WITH_MTP = ModelSpec(
    name="with_mtp",
    source=ModelSource.shape,
    config=(("model_type", '"of_another_family"'), ("num_nextn_predict_layers", "1")),
)
HUB = ModelSpec(name="hub", source=ModelSource.checkpoint, location="org/name")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param(
            {"sd": replace(PAIR, options=(("num_speculative_tokens", "4"),))},
            r"num_speculative_tokens is said by sd\.method and sweep\.gamma; leave it out",
            id="gamma as an option",
        ),
        pytest.param(
            {"sd": ORACLE, "temperature": 0.5},
            r"at temperature 0, got 0\.5; use sweep\.temperature=\[0\]",
            id="an oracle at a temperature",
        ),
        pytest.param(
            {"sd": FIXED, "temperature": 1.0}, r"use sweep\.temperature=\[0\]", id="fixed, likewise"
        ),
        pytest.param(
            {"sd": replace(ORACLE, synthetic_acceptance=(0.8,))},
            r"leave sd\.synthetic_acceptance away",
            id="an oracle by coin",
        ),
        pytest.param(
            {"sd": replace(PAIR, schedule=((1, 8, 3), (9, 64, 1))), "gamma": 2},
            r"sweep\.gamma must be \[3\], got 2",
            id="a schedule that drafts more than gamma",
        ),
        pytest.param(
            {"sd": replace(PAIR, schedule=((1, 8, 3), (9, 64, 1))), "gamma": 4},
            r"sweep\.gamma must be \[3\], got 4",
            id="a schedule that drafts less",
        ),
        pytest.param(
            {"sd": MTP}, "embedded has none .num_nextn_predict_layers.", id="MTP without its layers"
        ),
    ],
)
def test_a_method_that_cannot_work_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        check_method(point(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="a draft model"),
        pytest.param({"temperature": 1.0}, id="at a temperature"),
        pytest.param({"sd": ORACLE}, id="an oracle"),
        pytest.param({"sd": replace(PAIR, schedule=((1, 8, 3),))}, id="a schedule up to gamma"),
        pytest.param({"sd": MTP, "target": WITH_MTP}, id="MTP with its layers"),
        pytest.param({"sd": MTP, "target": HUB}, id="MTP of a config that is not here"),
    ],
)
def test_a_method_that_may_work_is_not(changes):
    check_method(point(**changes))
