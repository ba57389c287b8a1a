"""What a table or figure is of, and what a reader must not overlook about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from analysis.series import measured
from moesd_dist.records import DraftMethod, Measurement, Outcome, SweepPoint

MEANINGS = {
    "SIMULATED": "times and activated experts come from formulas, nothing was run or timed",
    "RANDOM WEIGHTS": "routing and text are not those of a trained model",
    "SYNTHETIC ACCEPTANCE": "drafts were accepted at given rates, so acceptance and speedup say "
    "nothing about a real draft",
    "CONTROLLED ACCEPTANCE": "drafts were made to be accepted at a chosen rate; the target "
    "verified every one, but acceptance and speedup say nothing about a real draft",
    "RANDOM PROMPTS": "random tokens distort acceptance and routing",
}

_APPLIES: dict[str, Callable[[SweepPoint], bool]] = {
    "SIMULATED": lambda point: point.simulated,
    "RANDOM WEIGHTS": lambda point: point.random_weights and not point.simulated,
    "SYNTHETIC ACCEPTANCE": lambda point: point.synthetic_acceptance,
    "CONTROLLED ACCEPTANCE": lambda point: point.controlled_acceptance,
    "RANDOM PROMPTS": lambda point: point.workload.name == "random" and not point.simulated,
}

_WHY = {  # flags that do not speak for themselves
    "engine_restarts": "an engine had to be started again",
    "no_routing": "the routers' choice could not be seen",
    "cpu_fixes": "with our repairs of vLLM's CPU build",
    "untimed": "repaired so that expert or data parallelism works on vLLM's CPU build, where "
    "seconds mean nothing: only counts are reported",
}


def labels(outcomes: Sequence[Outcome]) -> list[str]:
    """In capitals, whatever keeps these numbers from being those of a real deployment."""
    return [name for name, holds in _APPLIES.items() if any(holds(o.point) for o in outcomes)]


def source(labels: Sequence[str]) -> str:
    """What points with these labels are called: measured or simulated."""
    return "simulated" if "SIMULATED" in labels else "measured"


def heading(outcomes: Sequence[Outcome]) -> list[str]:
    """Two lines: the models and the workload; the engine and the machine."""
    points = [outcome.point for outcome in outcomes]
    drafts = _listed(_draft(point) for point in points if point.gamma)
    what = [
        f"target {_listed(point.target.name for point in points)}",
        f"draft {drafts}" if drafts else "no draft",
        f"workload {_listed(_workload(point) for point in points)}",
    ]
    where = [f"engine {_listed(point.engine for point in points)}", _machine(outcomes)]
    return [", ".join(what), ", ".join([*where, *_sharing(points)])]


def flagged(measurements: Sequence[Measurement]) -> list[str]:
    """Such as `foreign_load at 2 of 8 points`."""
    counts = Counter(flag for m in measurements for flag in flags_of(m))
    return [
        f"{flag} at {count} of {len(measurements)} points"
        + (f" ({_WHY[flag]})" if flag in _WHY else "")
        for flag, count in counts.items()
    ]


def flags_of(m: Measurement) -> list[str]:
    """Those recorded; that a point is untimed is known even where it was not."""
    return list(dict.fromkeys([*m.flags, *([] if m.timed else ["untimed"])]))


def _draft(point: SweepPoint) -> str:
    if point.sd.method is DraftMethod.ngram:
        return f"n-gram lookup {point.sd.ngram_min}..{point.sd.ngram_max}"
    if point.sd.method is DraftMethod.oracle and point.sd.alpha is not None:
        return f"oracle of alpha {point.sd.alpha:g}"
    return point.sd.draft.name if point.sd.draft else point.sd.method.value


def _workload(point: SweepPoint) -> str:
    work = point.workload
    if point.simulated:  # only lengths count
        prompt = f"{work.prompt_tokens_min}..{work.prompt_tokens_max}"
        return f"prompts of {prompt} tokens, outputs of {work.output_tokens}"
    return f"{work.name} {work.digest}".strip()


def _machine(outcomes: Sequence[Outcome]) -> str:
    points, measurements = [o.point for o in outcomes], measured(outcomes)
    host = _listed(m.host for m in measurements)
    name = _listed(m.device_name for m in measurements)
    threads = _listed(str(p.threads) for p in points if p.device.value == "cpu")
    device = _listed(p.device.value for p in points)
    parts = [device, *([name] if name else []), *([f"threads {threads}"] if threads else [])]
    return f"host {host} ({', '.join(parts)})" if host else ", ".join(parts)


def _sharing(points: Sequence[SweepPoint]) -> list[str]:
    """How many ranks share the experts, where any do."""
    sizes = sorted({point.layout.ep_size for point in points})
    return [f"experts on {_listed(map(str, sizes))} ranks"] if max(sizes, default=1) > 1 else []


def _listed(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(value for value in values if value))
