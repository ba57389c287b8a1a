"""Figures of one measurement with their intervals: what the tracker logs and the table prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median, stdev

from scipy import stats

from moesd_dist.records import Interval, Measurement, Repeat
from moesd_dist.records.identity import by_object
from moesd_dist.sweep.exchange_metrics import exchange_counts, exchange_times
from moesd_dist.theory.acceptance import alpha_from_sigma
from moesd_dist.theory.experts import expected_activated_experts
from moesd_dist.theory.speedup import RoundTimes, decompose


def paired_interval(ratios: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's interval of the mean log ratio of paired repeats; None for a single repeat.

    Ratios are taken repeat by repeat, so what slows baseline and SD alike cancels. Logarithms make
    the interval of a ratio and of its inverse agree.
    """
    if len(ratios) < 2:
        return None
    logs = [math.log(ratio) for ratio in ratios]
    half = stats.t.ppf(0.5 + level / 2, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    centre = fmean(logs)
    return Interval(low=math.exp(centre - half), high=math.exp(centre + half), level=level)


def speedup(measurement: Measurement) -> float:
    """Geometric mean over the paired repeats, the centre of its interval."""
    return math.exp(fmean(map(math.log, measurement.paired_speedups())))


def target_efficiency(measurement: Measurement) -> float:
    """T_T(B,1) / T_T(B,gamma+1), geometric mean over paired repeats of medians over rounds."""
    return math.exp(fmean(map(math.log, measurement.paired_target_efficiencies())))


@by_object  # tables, curves and figures all ask again
def metrics(measurement: Measurement) -> dict[str, float]:
    """Everything a run carries, seconds and counts per round; names are the house's vocabulary.

    An untimed point has counts alone: no seconds, no speedup, nothing made of them. Not to be
    changed: everybody who asks gets the same.
    """
    m = measurement
    counts = {**_count_metrics(m), **_acceptance_metrics(m), **_expert_metrics(m)}
    counts |= exchange_counts(m)
    if not m.timed:
        return counts
    times = {**_time_metrics(m), **_engine_time_metrics(m), **exchange_times(m)}
    return {**times, **counts, **_decomposition(m)}


def _time_metrics(m: Measurement) -> dict[str, float]:
    found = {
        "speedup": speedup(m),
        "speedup_of_totals": _per_token(m.baseline) / _per_token(m.repeats),
        "target_efficiency": target_efficiency(m),
        "target_decode_s": _median(m.baseline, "median_target_s"),
        "target_verify_s": _median(m.repeats, "median_target_s"),
        "draft_s": _per_round(m.repeats, "draft_s"),
        "target_s": _per_round(m.repeats, "target_s"),
        "reject_s": _per_round(m.repeats, "reject_s"),
        "tokens_per_s": sum(r.tokens for r in m.repeats) / sum(r.seconds for r in m.repeats),
        "baseline_tokens_per_s": sum(r.tokens for r in m.baseline)
        / sum(r.seconds for r in m.baseline),
        "foreign_cpu": max(r.foreign_cpu for r in (*m.repeats, *m.baseline)),
        "prefill_s": fmean(r.prefill_s for r in m.repeats),
    }
    if m.end_to_end_speedup:
        found["speedup_end_to_end"] = m.end_to_end_speedup
    for name, ratios in (
        ("speedup", m.paired_speedups()),
        ("target_efficiency", m.paired_target_efficiencies()),
    ):
        if (interval := paired_interval(ratios)) is not None:
            found |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return found


def _engine_time_metrics(m: Measurement) -> dict[str, float]:
    """What only some engines record: the time around the phases, and that of whole requests.

    `tpot_s` is time per output token after the first, over all requests; rounds emit several
    tokens at once, so it is not the latency between two of them.
    """
    found: dict[str, float] = {}
    for prefix, repeats in (("", m.repeats), ("baseline_", m.baseline)):
        found |= {
            f"{prefix}overhead_s": _per_round(repeats, "overhead_s"),
            f"{prefix}tpot_s": _ratio(repeats, "request_s", "request_tokens"),
            f"{prefix}end_to_end_tokens_per_s": _ratio(
                repeats, "end_to_end_tokens", "end_to_end_s"
            ),
        }
    return _recorded(found)


def _count_metrics(m: Measurement) -> dict[str, float]:
    """`scheduled_batch` is of the end-to-end run, whose tail runs empty: below the batch size."""
    prompts = max(1, sum(r.prompts for r in m.repeats))
    found = {
        "mean_context": fmean(r.mean_context for r in m.repeats),
        "prompt_tokens_mean": sum(r.prompt_tokens for r in m.repeats) / prompts,
    }
    return found | _recorded(
        {
            "scheduled_batch": _ratio(m.repeats, "scheduled_sequences", "scheduled_steps"),
            "verified_tokens_per_sequence": _ratio(m.repeats, "verified_tokens", "sequence_rounds"),
            "engine_starts": float(sum(r.engine_starts for r in (*m.repeats, *m.baseline))),
        }
    )


def _acceptance_metrics(m: Measurement) -> dict[str, float]:
    if m.point.gamma == 0:
        return {}
    found = {
        "acceptance_length": m.acceptance_length,
        "sigma": m.sigma,
        "draft_acceptance_rate": m.draft_acceptance_rate,
        "alpha": alpha_from_sigma(m.sigma, m.point.gamma),
    }
    rates = enumerate(m.acceptance_per_position, 1)
    return found | {f"acceptance_position_{place}": rate for place, rate in rates}


def _expert_metrics(m: Measurement) -> dict[str, float]:
    """Measured against the uniform i.i.d. law; their ratio is Cohere's c(t) with that baseline."""
    if m.num_experts == 0 or m.activated_experts == 0:
        return {}
    gate_tokens = m.point.batch_size * (m.point.gamma + 1)
    expected = float(expected_activated_experts(m.num_experts, m.top_k, gate_tokens))
    # A formula has no layers that differ, and a store takes seconds for thousands of metrics.
    layers = () if m.point.simulated else m.activated_experts_per_layer
    return {
        "activated_experts": m.activated_experts,
        "baseline_activated_experts": m.baseline_activated_experts,
        "expected_activated_experts": expected,
        "activated_over_expected": m.activated_experts / expected,
        "gate_tokens": float(gate_tokens),
        **{f"activated_experts_layer_{i:02d}": n for i, n in enumerate(layers)},
    }


def _decomposition(m: Measurement) -> dict[str, float]:
    """Eq. 4 with the measured times: how much of gamma + 1 each cause leaves.

    Eq. 4 knows target, drafts and rejection, and of the baseline its target forwards alone. Where
    an engine recorded its overhead, `factor_rest` is what the equation leaves out: that overhead
    in our rounds against overhead and sampling in the baseline's, and that totals are not the
    geometric mean of repeats. It exceeds 1 where longer rounds spread the overhead over more
    tokens. With it the factors times gamma + 1 multiply to the measured speedup, without it to
    `speedup_eq4`.
    """
    if m.point.gamma == 0:
        return {}
    times = RoundTimes(
        target_decode_s=_per_round(m.baseline, "target_s"),
        target_verify_s=_per_round(m.repeats, "target_s"),
        draft_step_s=_per_round(m.repeats, "draft_s") / m.point.gamma,
        reject_s=_per_round(m.repeats, "reject_s"),
    )
    parts = decompose(m.sigma, m.point.gamma, times)
    found = {
        "factor_acceptance": parts.acceptance,
        "factor_target_efficiency": parts.target_efficiency,
        "factor_drafting": parts.drafting,
        "factor_rejection": parts.rejection,
        "speedup_eq4": parts.speedup,
    }
    if any(r.overhead_s for r in (*m.repeats, *m.baseline)):
        found["factor_rest"] = speedup(m) / parts.speedup
    return found


def _recorded(found: Mapping[str, float]) -> dict[str, float]:
    """Without zeros, which stand for what an engine does not record."""
    return {name: value for name, value in found.items() if value}


def _ratio(repeats: Sequence[Repeat], top: str, bottom: str) -> float:
    """A ratio of totals; 0 when there is nothing below the line."""
    total = sum(getattr(r, bottom) for r in repeats)
    return float(sum(getattr(r, top) for r in repeats) / total) if total else 0.0


def _per_token(repeats: Sequence[Repeat]) -> float:
    return sum(r.seconds for r in repeats) / sum(r.tokens for r in repeats)


def _median(repeats: Sequence[Repeat], name: str) -> float:
    return float(median(getattr(repeat, name) for repeat in repeats))


def _per_round(repeats: Sequence[Repeat], name: str) -> float:
    return float(sum(getattr(r, name) for r in repeats) / sum(r.rounds for r in repeats))
