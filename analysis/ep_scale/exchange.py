"""What DeepEP measured of one layer's dispatch and combine, beside what the links are taken to need."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from moesd_dist.engines.analytic_ranks import links_of
from moesd_dist.hardware import device_figures, hardware_named
from moesd_dist.records import LayoutSpec

POINTS = Path(__file__).parents[1] / "data" / "ep_exchange.csv"

# Of its test: DeepSeek-V3's rows, out in 8 bits and back in 16.
HARDWARE, TOKENS, HIDDEN, TOP_K = "H800", 128.0, 7168.0, 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePoint:
    """Microseconds of one layer on so many ranks: measured, and predicted for the same bytes."""

    ranks: int
    dispatch_us: float
    combine_us: float
    predicted_dispatch_us: float
    predicted_combine_us: float

    @property
    def error(self) -> float:
        """Of both together, predicted over measured - 1."""
        predicted = self.predicted_dispatch_us + self.predicted_combine_us
        return predicted / (self.dispatch_us + self.combine_us) - 1.0


def exchange_points(file: Path = POINTS) -> list[ExchangePoint]:
    with file.open(encoding="utf-8", newline="") as stream:
        return [_point(line) for line in csv.DictReader(stream)]


def _point(line: dict[str, str]) -> ExchangePoint:
    ranks = int(line["ranks"])
    return ExchangePoint(
        ranks=ranks,
        dispatch_us=float(line["dispatch_us"]),
        combine_us=float(line["combine_us"]),
        predicted_dispatch_us=_predicted_us(ranks, bytes_each=1.0),
        predicted_combine_us=_predicted_us(ranks, bytes_each=2.0),
    )


def _predicted_us(ranks: int, *, bytes_each: float) -> float:
    """One all-to-all of a row for each expert of each token that another rank holds."""
    device = device_figures(hardware_named(HARDWARE))
    links = links_of(device, LayoutSpec(dp_size=ranks), HARDWARE)
    rows = TOKENS * TOP_K * (ranks - 1) / ranks
    return 1e6 * float(links.all_to_all_s(rows * HIDDEN * bytes_each, ranks))
