"""How often a sweep's tokens chose each expert: summed, and written to place experts by.

    python -m analysis.expert_loads --sweep quickstart --out loads.json

Every window of every finished point counts once, baselines' where they are points. Read back by
`layout.expert_placement=balanced layout.expert_loads=loads.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from analysis.heading import labels
from analysis.load import load_whole
from moesd_dist.console import fail
from moesd_dist.records import Measurement


@dataclass(slots=True, kw_only=True)
class Summed:
    """Loads of one model's experts, int64 [MoE layer, expert]."""

    loads: npt.NDArray[np.int64]
    points: int = 0
    labels: dict[str, None] = field(default_factory=dict)  # loud ones, in the order they came


def summed(measured: Iterable[Measurement]) -> dict[str, Summed]:
    """By target's name, of points that recorded loads; ValueError where layers or experts differ."""
    found: dict[str, Summed] = {}
    for m in measured:
        loads = [np.array(r.expert_load, dtype=np.int64) for r in m.repeats if r.expert_load]
        if not loads:
            continue
        name = m.point.target.name
        own = found.setdefault(name, Summed(loads=np.zeros_like(loads[0])))
        if {each.shape for each in loads} != {own.loads.shape}:
            raise ValueError(
                f"all points of {name} must have as many layers and experts; got {loads[0].shape} "
                f"and {own.loads.shape}; give a sweep of one model"
            )
        own.loads += np.sum(loads, axis=0)
        own.points += 1
        own.labels |= dict.fromkeys(labels([m]))
    return found


def chosen(found: dict[str, Summed], sweep: str, target: str | None) -> tuple[str, Summed]:
    """The target asked for, or the only one."""
    if not found:
        raise ValueError(
            f"no point of {sweep!r} recorded expert loads; measured points of an MoE target do, "
            "with the transformers engine or vLLM"
        )
    if target is None and len(found) > 1:
        raise ValueError(f"loads are of one model; {sweep!r} has {', '.join(found)}; use --target NAME")  # fmt: skip
    name = target or next(iter(found))
    if name not in found:
        raise ValueError(f"no loads of target {name!r} in {sweep!r}; there are those of {', '.join(found)}")  # fmt: skip
    return name, found[name]


def write(name: str, own: Summed, sweep: str, path: Path) -> None:
    """Model, source and loads as JSON, a layer a line; `models.expert_loads` reads it."""
    source = ", ".join([f"sweep {sweep}", f"{own.points} points", *own.labels])
    rows = ",\n".join(json.dumps(row) for row in own.loads.tolist())
    head = json.dumps({"model": name, "source": source})[:-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head}, "loads": [\n{rows}\n]}}\n', encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--sweep", required=True, help="name or id")
    parser.add_argument("--out", type=Path, required=True, help="file, such as loads.json")
    parser.add_argument("--target", help="its name, where the sweep has several")
    parser.add_argument("--uri", default="sqlite:///mlflow.db")
    parser.add_argument("--experiment", default="moesd-dist")
    try:
        run(parser.parse_args())
    except ValueError as error:
        fail(error)


def run(options: argparse.Namespace) -> None:
    """Writes the file, then says what is in it."""
    measured = load_whole(options.uri, options.experiment, options.sweep)
    name, own = chosen(summed(measured), options.sweep, options.target)
    write(name, own, options.sweep, options.out)
    layers, experts = own.loads.shape
    skew = own.loads.max(axis=1) / own.loads.mean(axis=1)
    print(f"saved {options.out}: {name}, {layers} layers of {experts} experts, {own.points} points")
    print(f"the busiest expert of a layer has {skew.min():.2f} to {skew.max():.2f} times the mean load")  # fmt: skip


if __name__ == "__main__":
    main()
