"""Our vLLM engine beside `vllm bench serve`: the same build, arguments and prompts.

    python -m benchmarks.vs_bench_serve [--prompts 24] [--batch-size 8] [--gamma 3] [--output-tokens 96]

Starts `vllm serve` of the small embedded pair, lets `vllm bench serve` send it our prompts, stops it, and
gives the same prompts to our engine. Prints what each reports; fails if the acceptance lengths of all
prompts to their end differ by more than 1 %. Needs vLLM for the CPU, and no network.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.vs_serve import commands, ours, server
from benchmarks.vs_serve.counts import of_bench
from benchmarks.vs_serve.point import draw, point_of
from benchmarks.vs_serve.rows import rows
from benchmarks.vs_serve.table import markdown
from moesd_dist.engines.host import cpu_model, versions
from moesd_dist.engines.neighbours import ForeignLoad, own_cpu_s
from moesd_dist.engines.vllm.checkpoint import materialised
from moesd_dist.engines.vllm.failures import EngineDied, EngineRefused
from moesd_dist.engines.vllm.session import PACKAGES
from moesd_dist.engines.vllm.settings import environment
from moesd_dist.records import RankPlace, SweepPoint

BAR = 0.01
T = TypeVar("T")
START_S, BENCH_S = 240.0, 300.0


def ask_server(point: SweepPoint, texts: Sequence[str], folder: Path) -> dict[str, Any]:
    """The result of `vllm bench serve`; ValueError if a request failed."""
    prompts, result = folder / "prompts.jsonl", folder / "result.json"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    port = server.free_port()
    url = f"http://127.0.0.1:{port}"
    # A server has its engine in a process of its own in any case.
    seen = environment(point, RankPlace()) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    asks = commands.bench(point, url, prompts, len(texts), result)
    serves = commands.serve(point, port)
    print(f"$ {shlex.join(serves)}\n$ {shlex.join(asks)}", flush=True)
    with server.serving(serves, url, seen, folder / "serve.log", start_s=START_S):
        server.run(asks, seen, folder / "bench.log", limit_s=BENCH_S)
    found: dict[str, Any] = json.loads(result.read_text())
    if found["completed"] != len(texts):
        raise ValueError(f"{found['completed']} of {len(texts)} requests were answered")
    return found


def compare(point: SweepPoint, folder: Path) -> float:
    """Prints everything; returns how far the acceptance lengths are apart."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(materialised(point.target).model)
    batches = draw(point, tokenizer)
    texts = [tokenizer.decode(prompt) for batch in batches for prompt in batch]
    bench, their_load = loaded(lambda: ask_server(point, texts, folder))
    measured, our_load = loaded(lambda: ours.measure(point))
    end = ours.to_the_end(point, batches)
    print(f"\n{markdown(rows(bench, end.traced, measured))}\n")
    written = [tokenizer.decode(output, skip_special_tokens=True) for output in end.outputs]
    equal = sum(a == b for a, b in zip(written, bench["generated_texts"], strict=True))
    print(f"outputs equal to the server's: {equal} of {len(texts)}")
    print(f"vLLM's own counters in our engine: {end.counted}")
    print(f"others kept {their_load:.1f} cores busy during bench serve, {our_load:.1f} during ours")
    apart = abs(end.traced.length / of_bench(bench).length - 1)
    print(f"acceptance length: {100 * apart:.2f} % apart, the bar is {100 * BAR:g} %")
    return apart


def loaded(work: Callable[[], T]) -> tuple[T, float]:
    """A result, and the cores that others kept busy meanwhile."""
    load = ForeignLoad(_own_cpu_s)
    return work(), load.cores()


def _own_cpu_s() -> dict[int, float]:
    """With the children that have ended, which no pid can have: under 0."""
    times = os.times()
    return own_cpu_s() | {0: times.children_user + times.children_system}


def about() -> str:
    found = [f"{key.removeprefix('version.')} {value}" for key, value in versions(PACKAGES).items()]
    return ", ".join([time.strftime("%d %B %Y, %H:%M UTC", time.gmtime()), cpu_model(), *found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--gamma", type=int, default=3)
    parser.add_argument("--output-tokens", type=int, default=96)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped too
    folder = Path(tempfile.mkdtemp(prefix="moesd-vs-serve-"))
    print(about())
    try:
        apart = compare(point_of(**vars(options)), folder)
    except (server.CommandFailed, EngineDied, EngineRefused, ValueError) as error:
        sys.exit(f"vs_bench_serve: {error}")
    shutil.rmtree(folder)
    if apart > BAR:
        sys.exit(1)


if __name__ == "__main__":
    main()
