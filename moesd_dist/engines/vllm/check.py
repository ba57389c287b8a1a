"""What can be known to be wrong with a vLLM point in the driver, without importing vLLM."""

from __future__ import annotations

from moesd_dist.engines.vllm.installed import (
    check_names,
    engine_arguments,
    require_build,
    speculative_arguments,
)
from moesd_dist.engines.vllm.methods import check_method
from moesd_dist.records import SweepPoint

# What a point says elsewhere; given twice, one of the two would be ignored.
ELSEWHERE = {
    "model": "model",
    "dtype": "model.dtype",
    "seed": "model.seed",
    "trust_remote_code": "model.trust_remote_code",
    "speculative_config": "sd",
    "tensor_parallel_size": "layout.tp_size",
    "data_parallel_size": "layout.dp_size",
    "data_parallel_rank": "layout.dp_size",
    "data_parallel_backend": "layout.dp_size",
    "pipeline_parallel_size": "layout (there are no pipelines: the probe reads the first stage)",
    "enable_expert_parallel": "layout.expert_parallel",
    "all2all_backend": "layout.all2all_backend",
    "expert_placement_strategy": "layout.expert_placement",
    "enable_eplb": "layout.eplb",
    "max_num_seqs": "sweep.batch_size",
    "worker_extension_cls": "engine",
}


def check_vllm(point: SweepPoint) -> None:
    """ValueError for an argument that this build does not know or that has a place of its own."""
    names = dict(point.engine_args)
    for name in names:
        if name in ELSEWHERE:
            raise ValueError(f"engine.args.{name} is said by {ELSEWHERE[name]}; leave it out")
    if point.layout.expert_placement == "balanced":
        raise ValueError(
            "layout.expert_placement=balanced is the transformers engine's; vLLM places experts by "
            "load with layout.eplb=true"
        )
    build = require_build()
    check_names(names, engine_arguments(build), "engine.args", build)
    check_names(dict(point.sd.options), speculative_arguments(build), "sd.options", build)
    if point.gamma:
        check_method(point)
