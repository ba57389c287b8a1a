"""A sweep's acceptance by position: printed, and written for a replay or a prediction elsewhere.

    python -m analysis.acceptance --sweep quickstart --out acceptance.json

One file a setting (target, draft, top_k, temperature, workload), read back by `sd=replay
sd.acceptance=FILE`. `--points` takes a points.json of analysis.export instead of a sweep.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from analysis.load import load_sweep
from analysis.report import as_text
from analysis.series import by_gamma
from moesd_dist.console import fail
from moesd_dist.records import Measurement
from moesd_dist.records.serial import outcome_from_plain
from moesd_dist.theory.acceptance_profile import AcceptanceProfile
from moesd_dist.workloads.acceptance_forms import FORMAT, Convention
from moesd_dist.workloads.acceptance_points import (
    Setting,
    by_setting,
    differing,
    is_synthetic,
    profile_of,
    speculative,
)


def plain_profile(measured: Sequence[Measurement], setting: Setting) -> dict[str, Any]:
    """What is written: conditional rates with the rounds behind each, the length as a check."""
    profile = profile_of(measured)
    marked = {"synthetic": True} if any(map(is_synthetic, measured)) else {}
    return {
        "format": FORMAT,
        **marked,
        "convention": Convention.conditional.value,
        "rates": list(profile.conditional),
        "tried": list(profile.tried),
        "dispersion": profile.dispersion,
        "acceptance_length": profile.acceptance_length(len(profile.conditional)),
        "setting": dict(setting),
    }


def acceptance_table(measured: Sequence[Measurement], title: str) -> Table:
    """One row a gamma, its batch sizes pooled; the last row pools all, as it is written."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("gamma", "conditional", "unconditional", "accept length", "sigma", "rounds"):
        table.add_column(name, justify="left" if "conditional" in name else "right")
    for gamma, members in by_gamma(measured).items():
        table.add_row(str(gamma), *_cells(profile_of(members), gamma))
    pooled = profile_of(measured)
    table.add_row("all", *_cells(pooled, len(pooled.conditional)))
    return table


def write(groups: Mapping[Setting, Sequence[Measurement]], out: Path) -> list[Path]:
    """The file; or one a setting, what differs appended to the name."""
    written = []
    for setting, measured in groups.items():
        path = out.with_name(f"{out.stem}{_suffix(setting, list(groups))}{out.suffix or '.json'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(plain_profile(measured, setting), indent=1) + "\n", encoding="utf-8"
        )
        written.append(path)
    return written


def read_points(path: Path) -> list[Measurement]:
    """The measurements of a points.json; ValueError if it is none."""
    try:
        outcomes = [outcome_from_plain(item) for item in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no points.json of analysis.export: {error}") from error
    return [outcome for outcome in outcomes if isinstance(outcome, Measurement)]


def _cells(profile: AcceptanceProfile, gamma: int) -> list[str]:
    rates = [profile.rates(gamma), profile.unconditional(gamma)]
    columns = [" ".join(f"{rate:.3f}" for rate in found) for found in rates]
    length = profile.acceptance_length(gamma)
    error = profile.sigma_variance(gamma) ** 0.5
    sigma = f"{profile.sigma(gamma):.3f} ± {error:.3f}"
    return [*columns, f"{length:.3f}", sigma, str(profile.rounds)]


def _suffix(setting: Setting, settings: Sequence[Setting]) -> str:
    """Such as `_top_k-4_temperature-1`; empty for the only setting."""
    names = differing(settings)
    parts = [f"_{name}-{value}" for name, value in setting if name in names]
    return re.sub(r"[^\w.=-]+", "-", "".join(parts))


def _title(setting: Setting, names: Mapping[str, object]) -> str:
    always = ("target", "draft", "workload", "acceptance")
    return ", ".join(f"{name} {value}" for name, value in setting if name in (*always, *names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--sweep", help="name or id")
    source.add_argument("--points", type=Path, help="points.json of analysis.export")
    parser.add_argument("--gamma", type=int, help="this one alone instead of all pooled")
    parser.add_argument("--out", type=Path, help="file, such as acceptance.json")
    parser.add_argument("--uri", default="sqlite:///mlflow.db")
    parser.add_argument("--experiment", default="moesd-dist")
    try:
        run(parser.parse_args())
    except ValueError as error:
        fail(error)


def run(options: argparse.Namespace) -> None:
    """Prints a table a setting, then writes the files if that was asked for."""
    points = options.points
    measured = (
        read_points(points)
        if points
        else load_sweep(options.uri, options.experiment, options.sweep)
    )
    wanted = speculative(m for m in measured if options.gamma in (None, m.point.gamma))
    if not wanted:
        of = f" of gamma {options.gamma}" if options.gamma is not None else ""
        raise ValueError(
            f"no SD points{of} in {points or options.sweep}; measure with gamma above 0"
        )
    groups = by_setting(wanted)
    names = differing(list(groups))
    for setting, members in groups.items():
        print(as_text(acceptance_table(members, _title(setting, names))))
    for path in write(groups, options.out) if options.out else []:
        print(f"saved {path}")


if __name__ == "__main__":
    main()
