"""What vLLM says about acceptance: its counters as Prometheus text or JSON, and its benchmark's result."""

# Names in 0.32.0. Counters, with `_total` behind them on /metrics: vllm:spec_decode_num_drafts (rounds),
# _num_draft_tokens, _num_accepted_tokens, and _num_accepted_tokens_per_pos by the label `position` from 0.
# `vllm bench serve --save-result` writes spec_decode_num_drafts, _draft_tokens, _accepted_tokens,
# _acceptance_length (bonus included), _acceptance_rate (percent), _per_position_acceptance_rates.
# Per-position figures are unconditional: accepted at the position over all rounds.

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moesd_dist.theory.acceptance_profile import AcceptanceProfile

PREFIX = "spec_decode_"
_PER_POSITION = "num_accepted_tokens_per_pos"
_SUMMED = ("num_drafts", "num_draft_tokens", "num_accepted_tokens")
_LINE = re.compile(r"^vllm:spec_decode_(\w+?)(?:_total)?(?:\{(.*)\})?\s+([0-9.eE+-]+)\s*$", re.M)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """A profile, and the acceptance lengths that the same source gives by other ways."""

    profile: AcceptanceProfile
    lengths: dict[str, float]  # where it is said -> tokens a round, the bonus token included
    model: str = ""


def is_vllm(content: Any) -> bool:
    """Whether a parsed file, or the text of one, holds figures of vLLM's speculative decoding."""
    if isinstance(content, str):
        return _LINE.search(content) is not None
    if isinstance(content, list):
        return any(isinstance(m, Mapping) and PREFIX in str(m.get("name")) for m in content)
    return isinstance(content, Mapping) and any(PREFIX in str(key) for key in content)


def read_vllm(content: Any) -> Stated:
    """From Prometheus text, a list of metrics as `LLM.get_metrics()` has them, or a mapping of figures.

    Counts of several engines of one model are added up.
    Raises ValueError for what is missing, of two models, or impossible.
    """
    if isinstance(content, str):
        return _from_metrics(list(_metrics_of_text(content)))
    if isinstance(content, list):
        named = [m for m in content if isinstance(m, Mapping) and PREFIX in str(m.get("name"))]
        return _from_metrics(named)
    figures = {_bare(str(key)): value for key, value in content.items() if PREFIX in str(key)}
    return _from_figures(figures, str(content.get("model_id", "")))


def _metrics_of_text(text: str) -> Iterator[dict[str, Any]]:
    for name, labels, value in _LINE.findall(text):
        yield {"name": name, "labels": dict(_LABEL.findall(labels)), "value": float(value)}


def _from_metrics(metrics: Sequence[Mapping[str, Any]]) -> Stated:
    models = sorted({str((m.get("labels") or {}).get("model_name", "")) for m in metrics})
    if len(models) > 1:
        raise ValueError(f"acceptance is one model's, got {', '.join(models)}; keep one of them")
    figures: dict[str, Any] = dict.fromkeys(_SUMMED, 0.0)
    per_position: dict[int, float] = {}
    for metric in metrics:
        name = _bare(str(metric["name"]))
        if name == _PER_POSITION:
            for place, value in _positions(metric).items():
                per_position[place] = per_position.get(place, 0.0) + value
        elif name in figures:
            figures[name] += float(metric.get("value", 0.0))
    figures[_PER_POSITION] = per_position
    return _from_figures(figures, models[0])


def _positions(metric: Mapping[str, Any]) -> dict[int, float]:
    if "values" in metric:
        return dict(enumerate(map(float, metric["values"])))
    return {int((metric.get("labels") or {}).get("position", 0)): float(metric.get("value", 0.0))}


def _from_figures(figures: Mapping[str, Any], model: str) -> Stated:
    rounds = round(float(figures.get("num_drafts", 0)))
    drafted = float(figures.get("draft_tokens", figures.get("num_draft_tokens", 0)))
    accepted = float(figures.get("accepted_tokens", figures.get("num_accepted_tokens", -1)))
    profile = _profile(figures, rounds)
    if drafted and accepted > drafted:
        raise ValueError(f"accepted tokens are drafted tokens, got {accepted:g} of {drafted:g}")
    lengths = {}
    if "acceptance_length" in figures:
        lengths["spec_decode_acceptance_length"] = float(figures["acceptance_length"])
    if rounds and accepted >= 0:
        lengths["1 + accepted tokens / drafts"] = 1.0 + accepted / rounds
    if rounds and drafted and "acceptance_rate" in figures:
        share = float(figures["acceptance_rate"]) / 100.0
        lengths["spec_decode_acceptance_rate"] = 1.0 + share * drafted / rounds
    return Stated(profile=profile, lengths=lengths, model=model)


def _profile(figures: Mapping[str, Any], rounds: int) -> AcceptanceProfile:
    if counts := _listed(figures.get(_PER_POSITION)):
        return AcceptanceProfile.from_counts([round(count) for count in counts], rounds)
    if rates := _listed(figures.get("per_position_acceptance_rates")):
        return AcceptanceProfile.from_unconditional(rates, rounds=rounds)
    raise ValueError(
        "vLLM's figures have no acceptance per position; with the length alone write a YAML file "
        "{acceptance_length: {3: 2.4}, bonus: included}, 3 being num_speculative_tokens"
    )


def _listed(values: Any) -> list[float]:
    """By position, from a list or from a mapping of positions counted from 0 without a gap."""
    if isinstance(values, Mapping):
        places = {int(place): value for place, value in values.items()}
        if sorted(places) != list(range(len(places))):
            raise ValueError(f"positions are counted from 0 without a gap, got {sorted(places)}")
        return [float(places[place]) for place in sorted(places)]
    return [float(value) for value in values or []]


def _bare(name: str) -> str:
    return name.removeprefix("vllm:").removeprefix(PREFIX).removesuffix("_total")
