"""What runs inside a vLLM worker: every step's phases on the clock, its tokens counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from moesd_dist.engines.vllm.marks import TimeLine, time_line
from moesd_dist.engines.vllm.routers import RouterTrace


@dataclass
class _Step:
    """References into one scheduler step; nothing is computed before the run is over."""

    scheduled: Any
    begin: Any
    target_end: Any = None
    sample: tuple[Any, Any] | None = None
    draft: tuple[Any, Any] | None = None
    end: Any = None
    rows: list[str] = field(default_factory=list)  # request ids in the order of `emitted`
    emitted: Any = None  # [rows, gamma + 1] token ids, -1 where none was emitted


class WorkerProbe:
    """Mixed into vLLM's worker class (`worker_extension_cls`); called by `collective_rpc`."""

    model_runner: Any

    def moesd_install(self) -> dict[str, Any]:
        """Puts the clock around the phases; says what the router can tell."""
        self._moesd_steps = StepRecorder(self.model_runner)
        self._moesd_routers = RouterTrace(self.model_runner.get_model())
        device = self.model_runner.device
        return {
            "device": _device_name(device.type),
            "num_experts": self._moesd_routers.num_experts,
            "moe_layers": self._moesd_routers.layers,
        }

    def moesd_take(self) -> list[dict[str, Any]]:
        """The steps since the last call, as plain values."""
        return self._moesd_steps.take()

    def moesd_trace_routing(self, on: bool) -> None:
        """From now on (or no longer) every step's choice of experts is counted. Not for timed runs."""
        self._moesd_routers.switch(on)
        self._moesd_steps.routers = self._moesd_routers if on else None

    def moesd_take_routing(self) -> dict[str, Any]:
        return self._moesd_routers.take()

    def moesd_set_references(self, sequences: list[list[int]]) -> None:
        """Prompt and continuation of each sequence that an oracle is to replay."""
        self.model_runner.drafter.set_references(sequences)

    def moesd_drafter_counts(self) -> dict[str, int]:
        counts = getattr(getattr(self.model_runner, "drafter", None), "counts", None)
        return dict(counts) if counts else {}


class StepRecorder:
    """Wraps the model runner's four phases; the scheduler's own records say what they worked on."""

    def __init__(self, runner: Any) -> None:
        _check_phases(runner)
        self.line: TimeLine = time_line(runner.device.type)
        self.steps: list[_Step] = []
        self.routers: RouterTrace | None = None
        self._prompt_lengths: dict[str, int] = {}
        self._runner = runner
        runner.execute_model = self._around(runner.execute_model, self._begin, self._target_done)
        runner._sample = self._around(runner._sample, self._open, self._sampled)
        runner.propose_draft_token_ids = self._around(
            runner.propose_draft_token_ids, self._open, self._drafted
        )
        runner.sample_tokens = self._around(runner.sample_tokens, self._open, self._finished)

    def take(self) -> list[dict[str, Any]]:
        self.line.wait()
        steps = [s for s in self.steps if s.end is not None]
        self.steps = []
        begins = [step.begin for step in steps[1:]] + [None]
        return [self._plain(step, after) for step, after in zip(steps, begins, strict=False)]

    def _around(self, call: Callable[..., Any], before: Any, after: Any) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = before(*args)
            result = call(*args, **kwargs)
            after(started, result)
            return result

        return timed

    def _begin(self, scheduled: Any, *_: Any) -> Any:
        if scheduled.total_num_scheduled_tokens:
            self.steps.append(_Step(scheduled, self.line.mark()))
            if self.routers is not None:
                self.routers.begin(int(scheduled.total_num_scheduled_tokens))
        return scheduled

    def _target_done(self, scheduled: Any, _: Any) -> None:
        if scheduled.total_num_scheduled_tokens:
            self.steps[-1].target_end = self.line.mark()
            if self.routers is not None:
                self.routers.end(counted=self._decoding(scheduled))

    def _open(self, *_: Any) -> Any:
        return self.line.mark()

    def _sampled(self, started: Any, result: Any) -> None:
        if self.steps:
            step = self.steps[-1]
            step.sample = (started, self.line.mark())
            step.rows = list(self._runner.input_batch.req_ids)
            step.emitted = (result.sampled_token_ids != -1).sum(-1)

    def _drafted(self, started: Any, _: Any) -> None:
        if self.steps:
            self.steps[-1].draft = (started, self.line.mark())

    def _finished(self, _: Any, __: Any) -> None:
        if self.steps and self.steps[-1].sample is not None:
            self.steps[-1].end = self.line.mark()

    def _decoding(self, scheduled: Any) -> bool:
        """Whether no prompt is in the step, not even the last chunk of one."""
        for request in scheduled.scheduled_new_reqs:
            self._prompt_lengths[request.req_id] = len(request.prompt_token_ids or ())
        cached = scheduled.scheduled_cached_reqs
        known = zip(cached.req_ids, cached.num_computed_tokens, strict=True)
        written = all(computed >= self._prompt_lengths.get(name, 0) for name, computed in known)
        return not scheduled.scheduled_new_reqs and written

    def _plain(self, step: _Step, after: Any) -> dict[str, Any]:
        scheduled, seconds = step.scheduled, self.line.seconds
        computed = scheduled.scheduled_cached_reqs.num_computed_tokens
        drafts = scheduled.scheduled_spec_decode_tokens
        return {
            "decoding": self._decoding(scheduled),
            "tokens": int(scheduled.total_num_scheduled_tokens),
            "context": sum(computed) / len(computed) if computed else 0.0,
            "rows": step.rows,
            "emitted": [] if step.emitted is None else step.emitted.tolist(),
            "drafted": [len(drafts.get(name, ())) for name in step.rows],
            "target_s": seconds(step.begin, step.target_end),
            "sample_s": seconds(*step.sample) if step.sample else 0.0,
            "draft_s": seconds(*step.draft) if step.draft else 0.0,
            "step_s": seconds(step.begin, step.end),
            "period_s": seconds(step.begin, after) if after is not None else None,
        }


def _check_phases(runner: Any) -> None:
    """RuntimeError for a model runner that is built in another way."""
    phases = ("execute_model", "sample_tokens", "_sample", "propose_draft_token_ids", "input_batch")
    if missing := [name for name in phases if not hasattr(runner, name)]:
        raise RuntimeError(
            f"the probe knows the phases of vLLM's model runner V1; this one has no {', '.join(missing)}: "
            "unset VLLM_USE_V2_MODEL_RUNNER, or install the vLLM version that docs/vllm.md names"
        )


def _device_name(kind: str) -> str:
    if kind != "cuda":
        return ""
    import torch

    return str(torch.cuda.get_device_name())
