"""A sweep out of MLflow into plain files: every repeat as JSON, every figure as CSV.

    python -m analysis.export --sweep quickstart --out docs/results/quickstart_cpu

Draws the pictures and the report again, too, so that a folder tells the whole story.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.figures import experts_figure, sweep_figure
from analysis.load import load_sweep
from analysis.ranks_figure import ranks_figure
from analysis.ranks_table import exchange_table
from analysis.report import as_text, sweep_table, verdict
from analysis.scale_figure import scale_figure
from moesd_dist.console import fail
from moesd_dist.records import Measurement
from moesd_dist.records.serial import to_plain
from moesd_dist.sweep.statistics import metrics
from moesd_dist.tracking.labels import point_params


def export(measured: Sequence[Measurement], folder: Path) -> None:
    """Writes points.json, points.csv, report.txt and the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [json.dumps(to_plain(m), separators=(",", ":")) for m in measured]
    (folder / "points.json").write_text("[\n" + ",\n".join(records) + "\n]\n", encoding="utf-8")
    rows = [{**point_params(m.point), "role": m.point.role.value, **metrics(m)} for m in measured]
    pd.DataFrame(rows).to_csv(folder / "points.csv", index=False, float_format="%.6g")
    tables = filter(None, [sweep_table(measured), exchange_table(measured)])
    text = "\n".join(map(as_text, tables)) + "\n".join(verdict(measured)) + "\n"
    lines = [line.rstrip() for line in text.splitlines()]
    (folder / "report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sweep_figure(measured, folder / "speedup.png")
    experts_figure(measured, folder / "experts.png")
    ranks_figure(measured, folder / "ranks.png")
    scale_figure(measured, folder / "scale.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--sweep", required=True, help="name or id")
    parser.add_argument("--out", type=Path, required=True, help="folder")
    parser.add_argument("--uri", default="sqlite:///mlflow.db")
    parser.add_argument("--experiment", default="moesd-dist")
    options = parser.parse_args()
    try:
        export(load_sweep(options.uri, options.experiment, options.sweep), options.out)
    except ValueError as error:
        fail(error)


if __name__ == "__main__":
    main()
