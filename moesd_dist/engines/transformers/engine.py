"""The instrumented engine: loads a model pair once and measures any point that shares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from moesd_dist.engines.machine_facts import machine_facts
from moesd_dist.engines.neighbours import ForeignLoad
from moesd_dist.engines.transformers import host
from moesd_dist.engines.transformers.clocks import clock_for
from moesd_dist.engines.transformers.load import load_config
from moesd_dist.engines.transformers.pair import Pair, Ranks, make_drafter, make_rule
from moesd_dist.engines.transformers.prefill import PrefilledPrompts
from moesd_dist.engines.transformers.rounds import RoundRunner
from moesd_dist.engines.transformers.window import (
    Batch,
    full_batch,
    slowest,
    to_repeat,
    until_empty,
)
from moesd_dist.models.families import is_known
from moesd_dist.models.shape import bytes_per_value, shape_of
from moesd_dist.models.sources import resolve_config, weight_file_bytes
from moesd_dist.records import (
    Device,
    Infeasible,
    LayoutSpec,
    ModelSpec,
    RankPlace,
    Repeat,
    SweepPoint,
)
from moesd_dist.workloads.prompts import draw_prompts


class TransformersEngine:
    """Implements the `Engine` port on PyTorch; nothing is loaded before the first warm-up."""

    def __init__(
        self,
        *,
        target: ModelSpec,
        draft: ModelSpec | None,
        device: Device,
        threads: int,
        experts_implementation: str = "auto",
        layout: LayoutSpec | None = None,
        place: RankPlace | None = None,
        timeouts: tuple[float, float] = (1800.0, 60.0),
    ) -> None:
        """`timeouts`: seconds for all ranks to load and meet, and for each collective after that."""
        host.set_threads(threads)
        self._specs = (target, draft)
        self._layout, self._place = layout or LayoutSpec(), place or RankPlace()
        self._timeouts = timeouts
        self._device = torch.device(device.value)
        self._experts_implementation = experts_implementation
        self._pair: Pair | None = None
        self._pool: tuple[object, PrefilledPrompts] | None = None

    def describe(self) -> Mapping[str, str]:
        about = host.describe(self._device) | machine_facts(Device(self._device.type))
        return about | ({"experts_path": self._pair.experts_path} if self._pair else {})

    def infeasible(self, point: SweepPoint) -> Infeasible | None:
        """Weights and KV caches against what is free now; loaded weights are not asked for again.

        Ranks on one host share its memory, and ask for it at the same time.
        """
        neighbours = self._place.size // self._layout.nodes if self._device.type == "cpu" else 1
        each = sum(self._bytes_for(spec, point) for spec in self._specs if spec is not None)
        needed = each * max(1, neighbours)
        available = host.available_bytes(self._device)
        if needed <= available:
            return None
        return Infeasible(
            point=point,
            reason=f"needs {needed / 2**30:.1f} GiB of {self._device.type} memory, "
            f"{available / 2**30:.1f} GiB are free",
            bytes_needed=needed,
            bytes_available=available,
        )

    def _bytes_for(self, spec: ModelSpec, point: SweepPoint) -> int:
        config = resolve_config(spec) or load_config(spec).to_dict()
        if not is_known(config):  # a family whose shape is not modelled: weights only
            return 0 if self._pair else weight_file_bytes(spec)
        work, prompts = point.workload, pool_size(point, self._place)
        shape, size = shape_of(config), bytes_per_value(spec.dtype)
        slots = prompts * work.prompt_tokens_max + self._place.share(point.batch_size) * (
            work.prompt_tokens_max + work.output_tokens + 2 * (point.gamma + 1)
        )
        weights = 0.0 if self._pair is not None else shape.weight_bytes(size)
        if weights and spec is self._specs[0] and shape.num_experts:  # the draft is whole on a rank
            slots_here = -(
                -(shape.num_experts + self._layout.redundant_experts) // self._layout.ep_size
            )
            weights -= shape.routed_expert_params * size * (1 - slots_here / shape.num_experts)
        return int(weights + slots * shape.kv_bytes_per_token(size))

    def together(self, points: Sequence[SweepPoint]) -> bool:
        """One pair serves them all."""
        return True

    def warm_up(self, point: SweepPoint) -> None:
        self._prepare(point)
        batch, runner = self._start(point, repeat=0)
        for _ in range(point.protocol.warmup_rounds):
            runner.run(batch.sequences, point.gamma)
            batch.replace_finished(point.workload.output_tokens)
        runner.recorder.take()
        self._prepare(point).sharing.forget()

    def measure(self, point: SweepPoint, repeat: int) -> Repeat:
        pair = self._prepare(point)
        pair.sharing.agree("gamma, point and repeat", (point.gamma, point.point_id, repeat))
        batch, runner = self._start(point, repeat)
        work, protocol = point.workload, point.protocol
        pair.recorder.take()
        pair.sharing.forget()
        load = ForeignLoad()  # before ranks meet: it takes milliseconds
        pair.sharing.barrier()
        rounds = full_batch(
            runner,
            batch,
            gamma=point.gamma,
            output_tokens=work.output_tokens,
            window_tokens=window_tokens(point),
        )
        foreign = load.cores()
        routing = pair.recorder.take()
        window = pair.sharing.window(target_s=sum(one.target_s for one in rounds))
        rounds = slowest(rounds, pair.sharing.group)
        tail = (0.0, 0)
        if repeat < protocol.end_to_end_repeats:
            batch, runner = self._start(point, repeat)
            pair.sharing.barrier()
            tail = until_empty(runner, batch, gamma=point.gamma, output_tokens=work.output_tokens)
        return to_repeat(
            rounds,
            gamma=point.gamma,
            routing=routing,
            foreign=foreign,
            pool=batch.pool,
            tail=tail,
            window=window,
        )

    def routing(self, point: SweepPoint) -> tuple[int, int]:
        recorder = self._prepare(point).recorder
        return recorder.num_experts, recorder.top_k

    def close(self) -> None:
        if self._pair is not None:
            self._pair.sharing.group.close()
        self._pair = self._pool = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _prepare(self, point: SweepPoint) -> Pair:
        if self._pair is None:
            self._pair = Pair(
                *self._specs,
                self._device,
                self._experts_implementation,
                ranks=Ranks(self._layout, self._place, self._timeouts),
            )
        self._pair.use_top_k(point.top_k)
        return self._pair

    def _prompts(self, pair: Pair, point: SweepPoint, repeat: int) -> PrefilledPrompts:
        """Prefilled once per repeat and batch, then shared by the baseline and every gamma."""
        key = (point.workload, point.protocol, point.batch_size, point.top_k, repeat)
        if self._pool is None or self._pool[0] != key:
            self._pool = None  # frees the old one first
            own, busy = pool_size(point, self._place), min(self._place.size, point.batch_size)
            prompts = draw_prompts(
                point.workload,
                count=own * busy,
                repeat=repeat,
                encode=pair.encode,
                vocab_size=pair.models[0].vocab_size,
            )[
                self._place.rank :: busy
            ]  # all ranks together begin with the prompts of a single process
            pair.sharing.group.meet()  # text may take one rank longer to draw
            self._pool = (key, PrefilledPrompts(prompts, pair.models, pair.sharing))
            pair.sharing.group.meet()  # and the draft model longer to read
        return self._pool[1]

    def _start(self, point: SweepPoint, repeat: int) -> tuple[Batch, RoundRunner]:
        pair = self._prepare(point)
        pool = self._prompts(pair, point, repeat)
        longest = max((len(prompt) for prompt in pool.prompts), default=0)
        capacity = longest + point.workload.output_tokens + 2 * (point.gamma + 1)
        rows = self._place.share(point.batch_size)
        caches = [m.new_cache(rows=rows, capacity=capacity) for m in pair.models]
        seed = point.workload.seed * 1009 + repeat + self._place.rank * 7_919_003
        generator = torch.Generator(self._device).manual_seed(seed)
        runner = RoundRunner(
            pair.models[0],
            caches[0],
            make_drafter(point, pair, caches, generator),
            make_rule(point, generator),
            clock_for(self._device),
            pair.recorder,
            pair.sharing,
        )
        return Batch(pool, caches, self._device), runner


def pool_size(point: SweepPoint, place: RankPlace) -> int:
    """Prompts for a rank to prefill: what the window needs, and a quarter more for fast sequences.

    When they are used up the pool starts over, with prompts whose first sequences are long past.
    """
    rows = place.share(point.batch_size)
    if not rows:
        return 0
    busy = min(place.size, point.batch_size)
    needed = max(rows, -(-window_tokens(point) // (point.workload.output_tokens * busy)))
    return needed + needed // 4 + 1


def window_tokens(point: SweepPoint) -> int:
    """Tokens after which a window ends: every sequence once, and at least the protocol's."""
    return max(point.batch_size * point.workload.output_tokens, point.protocol.window_tokens)
