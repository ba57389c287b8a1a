"""A table of two tools' figures: what each reports, and the difference in what is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEADER = ("quantity", "bench serve", "ours, to the end", "ratio", "ours, windows", "note")
NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`end` is of all prompts to their end, `window` of full batches alone; None: not reported."""

    quantity: str
    theirs: float | None = None
    end: float | None = None
    window: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over theirs, of the same thing where there is such a thing."""
        return self.end / self.theirs if self.theirs and self.end is not None else None


def markdown(table: Sequence[Row]) -> str:
    lines = [HEADER, ["---"] * len(HEADER), *map(_cells, table)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> list[str]:
    values = [_number(v) for v in (row.theirs, row.end)]
    ratio = NOTHING if row.ratio is None else f"{row.ratio:.3f}"
    return [row.quantity, *values, ratio, _number(row.window), row.note]


def _number(value: float | None) -> str:
    if value is None:
        return NOTHING
    return str(value) if isinstance(value, int) else f"{value:.4g}"
