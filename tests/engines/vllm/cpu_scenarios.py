"""What a CPU does with the fixes: `python -m tests.engines.vllm.cpu_scenarios SCENARIO CHECKPOINT`.

Each prints one line of JSON, and ends like that even where vLLM's own exit would hang.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from multiprocessing import get_context
from typing import Any

from moesd_dist.engines.vllm import cpu_fixes

RATES = [0.8, 0.5, 0.3]  # P(at least that many of three drafts are accepted)
RANKS = 2


def engine(checkpoint: str, **arguments: Any) -> Any:
    """float32, so that batches of another shape pick the same tokens."""
    from vllm import LLM

    llm = LLM(
        checkpoint,
        dtype="float32",
        max_model_len=256,
        max_num_seqs=32,
        enforce_eager=True,
        enable_prefix_caching=False,
        kv_cache_memory_bytes=32 << 20,
        skip_tokenizer_init=True,
        disable_log_stats=False,
        **arguments,
    )
    if not cpu_fixes.active():
        raise SystemExit(
            "vLLM did not load the CPU fixes; install the package again: pip install -e ."
        )
    return llm


def speculation(checkpoint: str, **changes: Any) -> dict[str, Any]:
    """The target drafts for itself, three tokens a round."""
    return {"method": "draft_model", "model": checkpoint, "num_speculative_tokens": 3} | changes


def generate(llm: Any, temperatures: list[float], tokens: int, first: int = 0) -> list[list[int]]:
    """One prompt a temperature; `first` is the number of the first prompt."""
    from vllm import SamplingParams

    numbers = range(first, first + len(temperatures))
    prompts = [{"prompt_token_ids": [10 + 7 * n + i for i in range(16)]} for n in numbers]
    settings = [
        SamplingParams(temperature=t, max_tokens=tokens, ignore_eos=True) for t in temperatures
    ]
    outputs = llm.generate(prompts, settings, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def counts(llm: Any) -> dict[str, Any]:
    """vLLM's counters of speculation, by the end of their names."""
    prefix = "vllm:spec_decode_num_"
    found = [metric for metric in llm.get_metrics() if metric.name.startswith(prefix)]
    return {
        metric.name.removeprefix(prefix): metric.values
        if hasattr(metric, "values")
        else metric.value
        for metric in found
    }


def plain(checkpoint: str) -> Any:
    """Without speculation, in a process that knows numba: the reference, and a fix of its own."""
    import numba  # noqa: F401

    return generate(engine(checkpoint), [0.0] * 8, 24)


def synthetic(checkpoint: str) -> Any:
    """Greedy and random requests in one batch: each kind has its kernel."""
    method = {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": RATES}
    llm = engine(checkpoint, speculative_config=speculation(checkpoint, **method))
    generate(llm, [0.0, 1.0] * 16, 200)
    found = counts(llm)
    return [accepted / found["drafts"] for accepted in found["accepted_tokens_per_pos"]]


def random_sampling(checkpoint: str) -> Any:
    drawn = speculation(checkpoint, draft_sample_method="probabilistic")
    llm = engine(checkpoint, speculative_config=drawn)
    tokens = generate(llm, [1.0] * 16, 48)
    return counts(llm) | {"distinct": len({token for row in tokens for token in row})}


def expert_parallel(checkpoint: str) -> Any:
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = cores()
    llm = engine(checkpoint, tensor_parallel_size=RANKS, enable_expert_parallel=True)
    return generate(llm, [0.0] * 8, 24)


def data_parallel(checkpoint: str) -> Any:
    """One process a rank. The second has fewer prompts, is done first, and must keep step after that."""
    context = get_context("spawn")
    port, barrier, results = free_port(), context.Barrier(RANKS), context.SimpleQueue()
    ranks = [
        context.Process(target=data_parallel_rank, args=(rank, port, checkpoint, barrier, results))
        for rank in range(RANKS)
    ]
    for process in ranks:
        process.start()
    found = dict(results.get() for _ in ranks)
    for process in ranks:
        process.join()
    tokens = [row for rank in range(RANKS) for row in found[rank][0]]
    return {"tokens": tokens, "counts": [found[rank][1] for rank in range(RANKS)]}


def data_parallel_rank(rank: int, port: int, checkpoint: str, barrier: Any, results: Any) -> None:
    os.environ |= {
        "VLLM_DP_RANK": str(rank),
        "VLLM_DP_RANK_LOCAL": str(rank),
        "VLLM_DP_SIZE": str(RANKS),
        "VLLM_DP_MASTER_IP": "127.0.0.1",
        "VLLM_DP_MASTER_PORT": str(port),
        "VLLM_CPU_OMP_THREADS_BIND": cores(),
    }
    llm = engine(
        checkpoint, enable_expert_parallel=True, speculative_config=speculation(checkpoint)
    )
    first, prompts, tokens = [(0, 5, 24), (5, 3, 12)][rank]
    results.put((rank, (generate(llm, [0.0] * prompts, tokens, first=first), counts(llm))))
    # A plain return can hang for ever: each rank's engine waits for the other's.
    barrier.wait(60)
    os._exit(0)


def cores() -> str:
    """A core for each rank; with one there is only one to share."""
    mine = sorted(os.sched_getaffinity(0))
    return "|".join(str(mine[rank % len(mine)]) for rank in range(RANKS))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (plain, synthetic, random_sampling, expert_parallel, data_parallel)
}

if __name__ == "__main__":
    found = SCENARIOS[sys.argv[1]](sys.argv[2])
    print(json.dumps(found), flush=True)
