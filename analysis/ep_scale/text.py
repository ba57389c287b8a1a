"""The answers as tables: sweet spots, small batches, communication, published points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.ep_scale.exchange import ExchangePoint
from analysis.ep_scale.predicted import Predicted
from analysis.ep_scale.scenario import Products
from analysis.ep_scale.surface import Surface, crossing
from moesd_dist.theory.expert_parallel.decomposition import efficiency_parts

Key = tuple[Products, int, str, str]
"""Products, gamma, model and hardware of a surface."""

EATS = 0.2  # of verification

Pair = tuple[Surface, Surface]
"""The same points with no communication hidden, and with all of it."""


def scale_table(name: str, pair: Pair) -> list[str]:
    """A line a number of ranks; `inf` is never within the batches looked at."""
    surface, hidden = pair
    lines = [
        f"{name}, gamma {surface.gamma}, sigma {surface.sigma:.3f}",
        f"{'EP':>5} {'peak':>6} {'at B':>5} {'B=1':>6} {'loss':>6} {'<1 at':>6} "
        f"{'links at B=1':>12} {'at peak':>8} {'most':>6} {'>20 % at':>8} {'peak, hidden':>12} {'<1, hidden':>10}",
    ]
    for place, ranks in enumerate(surface.ranks):
        values, share = surface.speedup[place], surface.times.communication_share[place]
        best = int(np.argmax(values))
        lines.append(
            f"{ranks:>5} {values[best]:>6.2f} {surface.batch[best]:>5} {values[0]:>6.2f} "
            f"{surface.loss_at_smallest[place]:>6.1%} {crossing(surface.batch, -values, -1.0):>6g} "
            f"{share[0]:>12.1%} {share[best]:>8.1%} {share.max():>6.1%} "
            f"{crossing(surface.batch, share, EATS):>8g} {hidden.peaks[place]:>12.2f} "
            f"{crossing(surface.batch, -hidden.speedup[place], -1.0):>10g}"
        )
    return [*lines, ""]


def parts_table(name: str, surface: Surface, batches: Sequence[int]) -> list[str]:
    """1 / target efficiency = 1 + the parts, for some batches a rank."""
    parts = efficiency_parts(surface.times.decode, surface.times.verify)
    lines = [
        f"{name}, gamma {surface.gamma}: what verification takes longer, in decoding forwards",
        f"{'EP':>5} {'B':>5} {'target efficiency':>18} {'experts':>9} {'imbalance':>10} "
        f"{'links':>8} {'rest':>8}",
    ]
    for place, ranks in enumerate(surface.ranks):
        for at in (surface.batch.index(b) for b in batches):
            where = (place, at)
            lines.append(
                f"{ranks:>5} {surface.batch[at]:>5} {surface.times.target_efficiency[where]:>18.3f} "
                f"{parts.experts[where]:>9.3f} {parts.imbalance[where]:>10.3f} "
                f"{parts.communication[where]:>8.3f} {parts.rest[where]:>8.3f}"
            )
    return [*lines, ""]


def global_table(name: str, surface: Surface) -> list[str]:
    """Speedups at the same sequences over all ranks."""
    lines = [
        f"{name}, gamma {surface.gamma}: speedup by sequences over all ranks",
        f"{'EP':>5} " + " ".join(f"{b:>6}" for b in surface.batch),
    ]
    for ranks, row in zip(surface.ranks, surface.speedup, strict=True):
        lines.append(f"{ranks:>5} " + " ".join(f"{value:>6.2f}" for value in row))
    return [*lines, ""]


def published_table(predicted: Sequence[Predicted]) -> list[str]:
    """Errors are predicted over published - 1; intervals hold what the calibration leaves open."""
    lines = [
        "DeepSeek-V3: published and predicted, nothing fitted to these points",
        f"{'':<24} {'B':>4} {'accept':>7} {'published':>9} {'predicted':>9} {'95 %':>13} "
        f"{'error':>7} {'step ms':>8} {'said':>6} {'prefill in':>16} {'fast':>13} {'links hidden':>13} {'no overheads':>13}",
    ]
    return [*lines, *map(_published_line, predicted), ""]


def _published_line(p: Predicted) -> str:
    point = p.point
    accept = f"{point.assumed_length:.2f}" + ("" if point.acceptance_length else "?")
    batch = str(p.per_rank) + ("" if point.per_rank else "?")
    said = f"{point.step_ms:.1f}" if point.step_ms else "-"
    others = (_beside(p, value) for value in (p.fast, p.fast_hidden, p.bare))
    return (
        f"{point.name:<24} {batch:>4} {accept:>7} {point.speedup:>9.2f} {p.speedup:>9.2f} "
        f"[{p.low:>5.2f}, {p.high:>4.2f}] {p.error:>+7.0%} {p.step_ms:>8.1f} {said:>6} "
        f"{_beside(p, p.end_to_end):>16} " + " ".join(f"{text:>13}" for text in others)
    )


def _beside(p: Predicted, value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ({value / p.point.speedup - 1.0:+.0%})"


def exchange_table(points: Sequence[ExchangePoint]) -> list[str]:
    lines = [
        "One layer's dispatch and combine, 128 tokens a rank: DeepEP on H800, and the links' law",
        f"{'EP':>5} {'measured us':>14} {'predicted us':>14} {'error':>7}",
    ]
    for p in points:
        measured = f"{p.dispatch_us:.0f} + {p.combine_us:.0f}"
        predicted = f"{p.predicted_dispatch_us:.0f} + {p.predicted_combine_us:.0f}"
        lines.append(f"{p.ranks:>5} {measured:>14} {predicted:>14} {p.error:>+7.0%}")
    return [*lines, ""]


def rows(surfaces: Mapping[Key, Surface]) -> list[dict[str, object]]:
    """Powers of two sequences a rank as records, for a CSV file."""
    return [
        {
            "source": "simulated",
            "model": model,
            "hardware": hardware,
            "products": products.name,
            "ranks": ranks,
            "batch_per_rank": batch,
            "gamma": surface.gamma,
            "speedup": surface.speedup[i, j],
            "target_efficiency": surface.times.target_efficiency[i, j],
            "communication_share": surface.times.communication_share[i, j],
            "target_decode_s": surface.times.decode.total_s[i, j],
            "target_verify_s": surface.times.verify.total_s[i, j],
        }
        for (products, _, model, hardware), surface in surfaces.items()
        for i, ranks in enumerate(surface.ranks)
        for j, batch in enumerate(surface.batch)
        if batch & (batch - 1) == 0
    ]
