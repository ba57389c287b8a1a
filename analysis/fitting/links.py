"""What a fit of several ranks found of their links, in sentences: values with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.fitting.results import FitResult


def links_found(result: FitResult) -> Iterator[str]:
    """Nothing of a fit of one rank."""
    values, ranks = result.fit.parts["target"].values, ", ".join(map(str, result.sample.ranks))
    if "link_scale" in values:
        yield (
            f"Links, {ranks} ranks together: collectives take {_value(result, 'link_scale')} times as"
            f" long as calibrated on {result.models.calibrated}; packing takes"
            f" {_value(result, 'pack_layer_s', 1e6)} us a layer and"
            f" {_value(result, 'pack_row_s', 1e6)} us a row."
        )
    if "link_latency_s" in values:
        yield (
            f"Links, {ranks} ranks together, without calibration=FILE: one link with"
            f" {_value(result, 'link_latency_s', 1e6)} us a collective and"
            f" {_value(result, 'link_bytes_per_s', 1e-9)} GB/s, packing in it."
        )


def _value(result: FitResult, name: str, scale: float = 1.0) -> str:
    fit = result.fit.parts["target"]
    low, high = (scale * end for end in fit.interval(name))
    return f"{scale * fit.values[name]:.3g} ({low:.3g} .. {high:.3g})"
