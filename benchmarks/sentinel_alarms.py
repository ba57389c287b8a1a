"""How often a sentinel cries wolf and what it sees: `python -m benchmarks.sentinel_alarms`.

Stored runs against each other, then drawn repeats of a known ratio. `--live CORE` loads the widened
embedded target, keeps to that core, and sets busy loops on it: the sentinels of a real slow-down.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import fmean

from benchmarks.across_runs import load
from moesd_dist.engines.pinning import pin
from moesd_dist.engines.transformers.engine import TransformersEngine
from moesd_dist.records import Interval, Measurement, Role, SweepPoint
from moesd_dist.sweep.grouping import engine_key, groups
from moesd_dist.sweep.pairing import LoadLimit, measure_group
from moesd_dist.sweep.sentinel import REPEATS, Watch, as_group, change, sentinel_of

TOLERANCE = 0.1  # the default of cluster.drift_tolerance
SPREADS = (0.03, 0.1, 0.3)  # standard deviation of a repeat's logarithm
RATIOS = (1.0, 1.15, 1.2, 1.3, 1.5, 2.0)
DRAWS = 2000
PHASES = ((0, 4), (1, 3), (0, 3), (2, 3), (0, 3))  # busy loops, sentinels


def beyond(found: Interval) -> bool:
    far = math.log1p(TOLERANCE)
    return math.log(found.low) > far or math.log(found.high) < -far


def seconds(measurement: Measurement, *, baseline: bool, count: int) -> list[float]:
    repeats = measurement.baseline if baseline else measurement.repeats
    return [repeat.median_target_s for repeat in repeats][:count]


def same_time(count: int) -> Iterator[Interval]:
    """A baseline against itself, repeats in turn: what is left is noise."""
    for name in ("aa_cpu", "full_grid_aa_cpu"):
        for found in load(name):
            if found.point.role is Role.control:
                ours = seconds(found, baseline=False, count=count)
                yield change(seconds(found, baseline=True, count=count), ours)


def hours_apart(count: int) -> Iterator[Interval]:
    """Baselines of the two full grids: 90 minutes and other prompts between them."""
    first, second = (
        {
            (m.point.batch_size, m.point.top_k): seconds(m, baseline=False, count=count)
            for m in load(name)
            if m.point.role is Role.baseline
        }
        for name in ("full_grid_cpu", "full_grid_2_cpu")
    )
    return (change(first[key], second[key]) for key in first)


def told(label: str, found: Iterable[Interval]) -> str:
    known = list(found)
    off = [abs(math.log(i.low * i.high)) / 2 for i in known]
    wide = fmean(math.log(i.high / i.low) / 2 for i in known)
    return f"{label}: {sum(map(beyond, known))} alarms of {len(known)}, off by {fmean(off):.3f} (at most {max(off):.3f}), interval +-{wide:.3f}"


def drawn(count: int) -> Iterator[str]:
    draw = random.Random(0)

    def repeats(ratio: float, spread: float) -> list[float]:
        return [ratio * math.exp(draw.gauss(0, spread)) for _ in range(count)]

    for spread in SPREADS:
        shares = []
        for ratio in RATIOS:
            found = (change(repeats(1, spread), repeats(ratio, spread)) for _ in range(DRAWS))
            shares.append(f"{sum(map(beyond, found)) / DRAWS:7.1%}")
        yield f"{count} repeats, spread {spread:4}: " + " ".join(shares)


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """On the cores of this process, which they inherit."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(loops)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def embedded() -> SweepPoint:
    return load("quickstart_cpu")[0].point.baseline


def live(core: str) -> None:
    """Sentinels of one engine, and what a node's watch says of them."""
    pin(core, threads=1)
    (group,) = groups([embedded()], finished=())
    key, sentinel = engine_key(group), sentinel_of([group])
    assert sentinel is not None
    engine = TransformersEngine(target=key.target, draft=None, device=sentinel.device, threads=1)
    watch = Watch(node=os.uname().nodename, every=1, tolerance=TOLERANCE, tried=set())
    for loops, count in PHASES:
        with busy(loops):
            for _ in range(count):
                (found,) = measure_group(engine, as_group(sentinel), LoadLimit())
                assert isinstance(found, Measurement)
                verdict = watch.judge(found)
                foreign = fmean(r.foreign_cpu for r in found.repeats)
                own = fmean(seconds(found, baseline=False, count=REPEATS))
                print(
                    f"{loops} loops, {foreign:.1f} cores foreign: {own * 1e3:.1f} ms, ratio "
                    f"{verdict.ratio:.2f} {verdict.text}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--live", metavar="CORE", default="")
    options = parser.parse_args()
    for count in (3, REPEATS):
        print(told(f"{count} repeats, A/A at the same time", same_time(count)))
        print(told(f"{count} repeats, 90 minutes apart", hours_apart(count)))
    print("share of alarms where the truth is", " ".join(f"{ratio:7}" for ratio in RATIOS))
    for count in (3, REPEATS):
        print(*drawn(count), sep="\n")
    if options.live:
        live(options.live)


if __name__ == "__main__":
    main()
