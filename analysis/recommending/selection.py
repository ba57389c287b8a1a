"""Which measurements a question is about: one setting of one or more sweeps, and nothing mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.load import SweepRun
from moesd_dist.records import Measurement, Role
from moesd_dist.sweep.adaptive.observations import apart
from moesd_dist.workloads.acceptance_points import by_setting, differing, setting_of


def sd_points(runs: Sequence[SweepRun]) -> list[Measurement]:
    """All of them; of a point that several sweeps hold, the one of the sweep named last.

    Raises ValueError if there are none.
    """
    found = {m.point.point_id: m for run in runs for m in run.measured}
    drafted = [m for m in found.values() if m.point.role is Role.sd and m.point.gamma]
    if not drafted:
        raise ValueError(
            f"no SD points in {' and '.join(run.name for run in runs)}, of {len(found)} measured; "
            "measure with gamma above 0"
        )
    return drafted


def one_setting(points: Sequence[Measurement], where: Mapping[str, str]) -> list[Measurement]:
    """Those of the only setting that has these values.

    Raises ValueError if nothing is left, if several settings are, or if simulated points stand
    beside measured ones.
    """
    found = [m for m in points if fits(dict(setting_of(m)), where)]
    if not found:
        known = _listed(differing(list(by_setting(points)))) or "one setting only"
        raise ValueError(f"nothing was measured with {_asked(where)}; there is {known}")
    if len({m.point.simulated for m in found}) > 1:
        raise ValueError(
            "simulated and measured points do not mix; choose with where.engine=analytic or another engine"
        )
    settings = list(by_setting(found))
    if len(settings) > 1:
        several = differing(settings)
        name, values = next(iter(several.items()))
        raise ValueError(
            f"a recommendation is for one setting, there are several: {_listed(several)}; choose one,"
            f" such as where.{name}={_short(values[0])}"
        )
    if names := apart(found):
        raise ValueError(f"points of several {' and '.join(names)} do not compare; give one sweep")
    return found


def fits(values: Mapping[str, str], where: Mapping[str, str]) -> bool:
    """A model or workload fits by its name alone, too."""
    return all(_number(w) in (_number(values[n]), _short(values[n])) for n, w in where.items())


def _short(text: str) -> str:
    """A model or workload's name; what follows it is its content."""
    return text.split(" ")[0]


def _number(text: str) -> str:
    """1.0 and 1 are one temperature."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _asked(where: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in where.items())


def _listed(several: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name} {' and '.join(values)}" for name, values in several.items())
