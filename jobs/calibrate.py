"""Measures what ranks have of hosts and links: collectives by size, memory and cores, alone and together.

    python -m jobs.calibrate --ranks 2,4,4 --nodes 1,1,2 cluster=local_nodes

What comes after the options are settings as a sweep takes them: cluster=..., cluster.address=...,
hardware.threads=... Every layout is measured once, and a rank alone in any case. The result is shown
and kept by hosts in ~/.cache/moesd-dist ($MOESD_CACHE is another folder, --out another file); see
docs/calibration.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from rich.console import Console

from jobs.calibration_tables import collectives_of, named, rates_of
from moesd_dist import build, calibrations, config, specs
from moesd_dist.calibrating import WITHIN_S, calibrate
from moesd_dist.config import CONF, Conf, Launcher
from moesd_dist.console import errors_as_one_line, fail
from moesd_dist.engines.transformers.calibration import SIZES, Effort
from moesd_dist.planning.expected import needs_on
from moesd_dist.records import LayoutSpec
from moesd_dist.records.calibration import Calibration
from moesd_dist.sweep.cluster.calibrate import RanksFailed
from moesd_dist.sweep.schedule.needs import Needs

RANKS_FAILED = 3


def conf_of(overrides: Sequence[str]) -> Conf:
    """As a sweep would compose it; ValueError for what cannot be calibrated."""
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        conf = specs.conf_from(compose("config", overrides=[*overrides, "output=unused"]))
    if conf.launcher is Launcher.inline:
        raise ValueError(
            "ranks are processes of their own, Ray starts them; got launcher=inline, use launcher=ray"
        )
    return conf


def layouts_of(conf: Conf, ranks: Sequence[int], nodes: Sequence[int]) -> list[Needs]:
    """Pairs of both lists; ValueError if they are not as long, or nodes do not divide ranks."""
    if len(ranks) != len(nodes):
        raise ValueError(
            f"--nodes has an entry for each of --ranks; got {len(nodes)} for {len(ranks)}; "
            "leave --nodes away to have all ranks on one node"
        )
    pairs = zip(ranks, nodes, strict=True)
    layouts = [LayoutSpec(dp_size=r, ep_size=r, nodes=n) for r, n in pairs]
    return [replace(needs_on(conf.hardware, layout), whole_node=False) for layout in layouts]


def warning_of(calibration: Calibration, most_cores: float) -> str:
    """Empty where the hosts were quiet enough."""
    busiest = max(calibration.rates, key=lambda rates: rates.foreign_cores)
    if busiest.foreign_cores <= most_cores:
        return ""
    return (
        f"moesd-dist: warning: others kept {busiest.foreign_cores:.1f} cores of {busiest.host} busy, "
        f"more than hardware.foreign_load_cores={most_cores:g}; measure again when it is quiet"
    )


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("settings", nargs="*", help="as of a sweep: cluster=local_nodes, say")
    parser.add_argument("--ranks", type=_counts, default=[2], help="of each layout: 2,4,4")
    parser.add_argument("--nodes", type=_counts, help="of each layout: 1,1,2; left away: 1")
    parser.add_argument("--repeats", type=_count, default=Effort().repeats)
    parser.add_argument("--largest", type=_count, default=SIZES[-1], help="bytes of a message")
    parser.add_argument("--read-mib", type=_count, default=Effort().read_bytes // 2**20)
    parser.add_argument("--layer-mib", type=_count, default=Effort().layer_bytes // 2**20,
                        help="experts of a layer, read by all ranks between collectives")  # fmt: skip
    parser.add_argument("--span", type=float, default=Effort().span_s, help="seconds of a rate")
    parser.add_argument("--timeout", type=float, default=Effort().timeout_s, help="seconds")
    parser.add_argument("--within", type=float, default=WITHIN_S, help="seconds, for a layout")
    parser.add_argument("--out", type=Path, help="another file than the cache's")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    with errors_as_one_line():
        conf = conf_of(options.settings)
        layouts = layouts_of(conf, options.ranks, options.nodes or [1] * len(options.ranks))
        effort = Effort(
            device=conf.hardware.device,
            threads=conf.hardware.threads,
            sizes=tuple(s for s in SIZES if s <= options.largest) or SIZES[:1],
            repeats=options.repeats,
            read_bytes=options.read_mib * 2**20,
            layer_bytes=options.layer_mib * 2**20,
            span_s=options.span,
            timeout_s=options.timeout,
        )
        try:
            settings = build.cluster_settings(conf)
            found = calibrate(
                layouts, settings=settings, effort=effort, within_s=options.within, told=_say
            )
        except RanksFailed as failed:
            fail(failed, RANKS_FAILED)
        _show(found)
        file = calibrations.write(found, options.out or calibrations.cache_file(found))
    if warning := warning_of(found, conf.hardware.foreign_load_cores):
        print(warning, file=sys.stderr)
    print(f"saved {file}")


def _show(found: Calibration) -> None:
    console = Console(width=None if sys.stdout.isatty() else 110)
    for layout in found.layouts[1:]:
        console.print(collectives_of(found, layout))
    console.print(rates_of(found))


def _say(needs: Needs) -> None:
    print(f"measuring {named(needs.ranks, needs.nodes)}", flush=True)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
