"""One sweep of ours beside one process a point, as a sweep by a launcher of processes would run it.

    python -m benchmarks.vs_multirun [--model embedded_small] [--batch-size 1 2 4 8 16 32] [--gamma 1 2 3 4]

Both measure the same points with the same engine, prompts and protocol: each process of theirs composes its
configuration, loads the pair, measures one SD point with its baseline, writes it to MLflow and ends. They run
one after another, since engines side by side would share the memory bandwidth that is measured; without Ray
(`launcher=inline`), which is quicker for one point. Prints points per hour of both, and whether the speedups
agree within their intervals; exits 1 where the bar is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from analysis.load import load_sweep
from moesd_dist.records import Measurement
from moesd_dist.sweep.statistics import paired_interval, speedup

BAR = 5.0
OURS, THEIRS = "one_sweep", "one_process_a_point"


def command(name: str, uri: str, options: argparse.Namespace, sizes: Sequence[int], gammas: Sequence[int], *more: str) -> list[str]:  # fmt: skip
    return [
        sys.executable, "-m", "moesd_dist", f"model={options.model}", f"tracking.uri={uri}",
        f"tracking.experiment={name}", f"sweep.name={name}", f"sweep.repeats={options.repeats}",
        f"sweep.window_tokens={options.window_tokens}", f"sweep.batch_size={list(sizes)}",
        f"sweep.gamma={list(gammas)}", *more,
    ]  # fmt: skip


def run(arguments: Sequence[str], folder: Path) -> float:
    """Wall seconds; what it printed is shown where it fails."""
    began = time.perf_counter()
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"vs_multirun: exit {done.returncode} of {' '.join(arguments)}\n{done.stderr}")
    return time.perf_counter() - began


def one_process_a_point(uri: str, options: argparse.Namespace, folder: Path) -> float:
    """A sweep of its own name each: a point does not know of the others."""
    total = 0.0
    for size, gamma in product(options.batch_size, options.gamma):
        words = command(THEIRS, uri, options, [size], [gamma], "launcher=inline")
        words = [
            w.replace(f"sweep.name={THEIRS}", f"sweep.name={_name(size, gamma)}") for w in words
        ]
        total += run(words, folder)
    return total


def _name(size: int, gamma: int) -> str:
    return f"{THEIRS}_{size}_{gamma}"


def by_place(measured: Sequence[Measurement]) -> dict[tuple[int, int], Measurement]:
    return {(m.point.batch_size, m.point.gamma): m for m in measured if m.point.gamma}


def show(ours_s: float, theirs_s: float, pairs: dict[tuple[int, int], tuple[Measurement, Measurement]]) -> bool:  # fmt: skip
    """Whether the bar is met and every pair of intervals overlaps."""
    count, console = len(pairs), Console(width=110)
    table = Table("", "wall s", "s a point", "points/hour", title=f"{count} SD points with their baselines")  # fmt: skip
    for name, seconds in (("one sweep", ours_s), ("one process a point", theirs_s)):
        table.add_row(name, f"{seconds:.0f}", f"{seconds / count:.1f}", f"{3600 * count / seconds:,.0f}")  # fmt: skip
    console.print(table)
    values = Table("B", "gamma", "one sweep", "one process", "overlap", title="speedup, 95 % intervals")  # fmt: skip
    apart = 0
    for (size, gamma), both in pairs.items():
        intervals = [paired_interval(m.paired_speedups()) for m in both]
        low, high = (max(i.low for i in intervals if i), min(i.high for i in intervals if i))
        apart += low > high
        texts = [f"{speedup(m):.2f} [{i.low:.2f}, {i.high:.2f}]" for m, i in zip(both, intervals, strict=True) if i]  # fmt: skip
        values.add_row(str(size), str(gamma), *texts, "yes" if low <= high else "NO")
    console.print(values)
    ratio = theirs_s / ours_s
    console.print(f"points per hour: {ratio:.1f} times as many, the bar is {BAR:g}; {apart} of {count} apart")  # fmt: skip
    return ratio >= BAR and not apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--model", default="embedded_small")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--gamma", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--window-tokens", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moesd-vs-multirun-") as name:
        folder = Path(name)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        ours_s = run(command(OURS, uri, options, options.batch_size, options.gamma), folder)
        theirs_s = one_process_a_point(uri, options, folder)
        ours = by_place(load_sweep(uri, OURS, OURS))
        pairs = {}
        for size, gamma in product(options.batch_size, options.gamma):
            (theirs,) = by_place(load_sweep(uri, THEIRS, _name(size, gamma))).values()
            pairs[size, gamma] = (ours[size, gamma], theirs)
    if not show(ours_s, theirs_s, pairs):
        sys.exit(1)


if __name__ == "__main__":
    main()
