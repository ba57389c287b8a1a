"""The rows of the table: every figure that `vllm bench serve` or we report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.vs_serve.counts import Counts, of_bench, of_repeats
from benchmarks.vs_serve.table import Row
from moesd_dist.records import Measurement, Repeat


def rows(bench: Mapping[str, Any], end: Counts, measured: Measurement) -> list[Row]:
    """`bench` is the JSON of `vllm bench serve`, `end` our trace of all prompts to their end."""
    theirs, window = of_bench(bench), of_repeats(measured.repeats)
    return [
        *_acceptance(theirs, end, window),
        *_user_times(bench, measured),
        *_bench_alone(bench),
        *_ours_alone(measured),
    ]


def _acceptance(theirs: Counts, end: Counts, window: Counts) -> Iterator[Row]:
    def row(quantity: str, of: Callable[[Counts], float], note: str = "") -> Row:
        return Row(quantity=quantity, theirs=of(theirs), end=of(end), window=of(window), note=note)

    yield row(
        "acceptance length",
        lambda c: c.length,
        "1 + accepted / rounds for all; windows give each sequence as many rounds, not as many tokens",
    )
    yield row("acceptance rate, %", lambda c: 100 * c.rate, "accepted / drafted")
    for place in range(len(theirs.per_position)):
        yield row(
            f"accepted at position {place + 1}, %",
            _percent_at(place),
            "" if place else "of all rounds, whatever came before",
        )
    yield row(
        "rounds",
        lambda c: c.rounds,
        "vLLM's drafts: one a sequence and step; a prefill's token is of no round",
    )
    yield row("drafted tokens", lambda c: c.drafted)
    yield row(
        "accepted tokens",
        lambda c: c.accepted,
        "with those of a last round that max_tokens cuts off afterwards",
    )


def _percent_at(place: int) -> Callable[[Counts], float]:
    return lambda counts: 100 * counts.position_rates[place]


def _user_times(bench: Mapping[str, Any], measured: Measurement) -> Iterator[Row]:
    runs, batch = measured.repeats, measured.point.batch_size
    yield Row(
        quantity="output tokens",
        theirs=bench["total_output_tokens"],
        end=_sum(runs, lambda r: r.end_to_end_tokens),
        window=_sum(runs, lambda r: r.tokens),
        note="cut at max_tokens; in windows whole rounds, and none of the prefill's",
    )
    yield Row(
        quantity="output tokens/s",
        theirs=bench["output_throughput"],
        end=_ratio(runs, lambda r: r.end_to_end_tokens, lambda r: r.end_to_end_s),
        window=_ratio(runs, lambda r: r.tokens, lambda r: r.seconds),
        note="theirs with prefill and HTTP; ours decoding alone, in windows without stragglers",
    )
    yield Row(
        quantity="TPOT mean, ms",
        theirs=bench["mean_tpot_ms"],
        end=1e3 * _ratio(runs, lambda r: r.request_s, lambda r: r.request_tokens),
        window=1e3 * batch * _ratio(runs, lambda r: r.seconds, lambda r: r.tokens),
        note="first token to last over those after the first; theirs at the client, others' prefills in it",
    )
    yield Row(
        quantity="TPOT median, ms", theirs=bench["median_tpot_ms"], note="of requests; we keep sums"
    )
    yield Row(
        quantity="TTFT mean, ms",
        theirs=bench["mean_ttft_ms"],
        window=1e3 * _sum(runs, lambda r: r.prefill_s) / len(runs),
        note="theirs from the sending of a request; ours the step that prefills a whole batch",
    )
    yield Row(quantity="TTFT median, ms", theirs=bench["median_ttft_ms"])
    yield Row(
        quantity="ITL mean, ms",
        theirs=bench["mean_itl_ms"],
        window=1e3 * _ratio(runs, lambda r: r.seconds, lambda r: r.rounds),
        note="between chunks, and with SD a chunk is a whole round: not TPOT; ours a step's period",
    )
    yield Row(quantity="ITL median, ms", theirs=bench["median_itl_ms"])


def _bench_alone(bench: Mapping[str, Any]) -> Iterator[Row]:
    for key, quantity, note in (
        ("p99_ttft_ms", "TTFT p99, ms", ""),
        ("p99_tpot_ms", "TPOT p99, ms", ""),
        ("p99_itl_ms", "ITL p99, ms", ""),
        ("duration", "duration, s", "all requests, the first sent to the last answered"),
        ("request_throughput", "requests/s", ""),
        ("total_token_throughput", "prompt and output tokens/s", ""),
        ("max_output_tokens_per_s", "peak tokens/s", "counts chunks, so with SD it is of rounds"),
        ("max_concurrent_requests", "peak requests", "seen within one second, not at once"),
    ):
        if key in bench:
            yield Row(quantity=quantity, theirs=bench[key], note=note)


def _ours_alone(measured: Measurement) -> Iterator[Row]:
    runs, tokens = measured.repeats, measured.point.gamma + 1

    def window(quantity: str, value: float, note: str = "") -> Row:
        return Row(quantity=quantity, window=value, note=note)

    yield Row(
        quantity="sequences in a step",
        end=_ratio(runs, lambda r: r.scheduled_sequences, lambda r: r.scheduled_steps),
        window=_ratio(runs, lambda r: r.sequence_rounds, lambda r: r.rounds),
        note="our batch runs empty at its end; the server gets the next prompt instead",
    )
    yield window(
        "T_T(B,1), ms",
        _ms(measured.baseline, lambda r: r.median_target_s),
        "a forward of the baseline, measured by turns with SD",
    )
    yield window(
        f"T_T(B,{tokens}), ms",
        _ms(runs, lambda r: r.median_target_s),
        "a verification; median of rounds, then of repeats",
    )
    yield window(
        "target efficiency",
        median(measured.paired_target_efficiencies()),
        f"T_T(B,1) / T_T(B,{tokens}), repeat by repeat",
    )
    yield window("T_D, ms", _ms(runs, lambda r: r.median_draft_s), "all drafts of a round")
    yield window("rejection, ms", _ms(runs, lambda r: r.reject_s / r.rounds), "of a round")
    yield window(
        "overhead, ms",
        _ms(runs, lambda r: r.overhead_s / r.rounds),
        "scheduling and bookkeeping of a round",
    )
    yield window("speedup", median(measured.paired_speedups()), "over the baseline")
    yield window(
        "activated experts",
        measured.activated_experts,
        f"of {measured.num_experts}, in one layer by one verification",
    )


def _sum(runs: Sequence[Repeat], part: Callable[[Repeat], float]) -> float:
    return sum(map(part, runs))


def _ratio(
    runs: Sequence[Repeat], top: Callable[[Repeat], float], bottom: Callable[[Repeat], float]
) -> float:
    return _sum(runs, top) / _sum(runs, bottom)


def _ms(runs: Sequence[Repeat], seconds: Callable[[Repeat], float]) -> float:
    return 1e3 * median(map(seconds, runs))
