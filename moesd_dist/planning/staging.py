"""A validation from its configuration: what is foretold from what, and where that is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from moesd_dist import calibrations
from moesd_dist.config import Conf, Launcher, ValidationConf
from moesd_dist.hardware import known_peaks
from moesd_dist.models.counts import counts_of
from moesd_dist.planning.expected import needs_of
from moesd_dist.ports import Tracker, TrackerUnavailable
from moesd_dist.records import Measurement, SweepPoint
from moesd_dist.records.calibration import Calibration
from moesd_dist.specs import model_spec, sd_spec
from moesd_dist.sweep.grouping import engine_key, groups
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.schedule.needs import Needs
from moesd_dist.sweep.validation.desk import FileDesk
from moesd_dist.sweep.validation.predictor import Models, predictor_of
from moesd_dist.sweep.validation.staged import Desk, StagedPlan
from moesd_dist.theory.counts import NO_MODEL
from moesd_dist.tracking.location import journal_folder

if TYPE_CHECKING:
    from moesd_dist.sweep.cluster.crew import ClusterSettings


def staged(conf: Conf, points: Sequence[SweepPoint], desk: Desk | None = None) -> StagedPlan:
    """One rank first; without a desk nothing is foretold. ValueError for what cannot be staged."""
    if conf.sweep.adaptive is not None:
        raise ValueError(
            "validation measures all of its points, sweep.adaptive chooses some; leave one away"
        )
    if conf.launcher is Launcher.inline:
        raise ValueError("validation needs several ranks, one process each; use launcher=ray")
    return StagedPlan(points, desk)


def make_desk(
    conf: Conf,
    sweep_id: str,
    points: Sequence[SweepPoint],
    tracker: Tracker,
    settings: ClusterSettings,
    *,
    told: Callable[[str], None] = lambda _: None,
) -> FileDesk:
    """Beside the sweep's journal; ValueError for a calibration that cannot be read.

    `told` hears, in words for a person, what is measured before the first point.
    """
    assert conf.validation is not None
    folder, given = journals(conf), conf.validation.calibration
    known = calibrations.read(Path(given)) if given else None
    return FileDesk(
        folder,
        sweep_id,
        predictor=predictor_of(_models(conf), seed=conf.validation.seed),
        whole=partial(_whole, folder, sweep_id),
        calibrate=lambda: known or calibrated(conf, points, settings, told),
        publish=partial(_publish, tracker, Path(conf.output)),
        terms=_terms(conf.validation),
    )


def _terms(conf: ValidationConf) -> dict[str, str]:
    """Tolerances cannot be changed once the result is known, nor can the code that foretold."""
    found = {f"tolerance.{name}": str(value) for name, value in conf.tolerances.items()}
    return found | {"seed": str(conf.seed), "version": version("moesd-dist")}


def journals(conf: Conf) -> Path:
    """The folder of the journals of all sweeps in the same store and experiment."""
    tracking = conf.tracking
    return journal_folder(tracking.uri, tracking.experiment, tracking.journal)


def calibrated(
    conf: Conf,
    points: Sequence[SweepPoint],
    settings: ClusterSettings,
    told: Callable[[str], None],
) -> Calibration:
    """Of the cluster that the sweep runs on, for all layouts of its points; ValueError if it fails."""
    from moesd_dist.calibrating import calibrate
    from moesd_dist.engines.transformers.calibration import Effort
    from moesd_dist.sweep.cluster.calibrate import RanksFailed

    if conf.layout.tp_size > 1:
        raise ValueError(
            f"ranks of several devices are not calibrated, got layout.tp_size {conf.layout.tp_size}; "
            "give validation.calibration=FILE, or use layout.tp_size=1"
        )
    needs = [needs_of([conf], key) for key in dict.fromkeys(map(engine_key, groups(points, ())))]
    layouts = [replace(n, whole_node=False) for n in needs if n.ranks > 1]
    target = counts_of(model_spec(conf.model))
    layer = target.num_experts * target.expert_params * target.bytes_per_value
    hardware = conf.hardware
    effort = Effort(device=hardware.device, threads=hardware.threads, layer_bytes=int(layer))

    def measuring(needs: Needs) -> None:
        told(f"calibrating the cluster: {needs.ranks} ranks on {needs.nodes} nodes")

    try:
        return calibrate(layouts, settings=settings, effort=effort, told=measuring)
    except RanksFailed as failed:
        raise ValueError(f"the cluster was not calibrated: {failed}") from failed


def _models(conf: Conf) -> Models:
    draft = sd_spec(conf.sd).draft
    return Models(
        target=counts_of(model_spec(conf.model)),
        draft=counts_of(draft) if draft else NO_MODEL,
        peaks=known_peaks(conf.hardware, tp_size=conf.layout.tp_size),
    )


def _whole(folder: Path, sweep_id: str, point_ids: Sequence[str]) -> dict[str, Measurement]:
    found = Journal.peek(folder, sweep_id).whole(point_ids)
    return {k: o for k, o in found.items() if isinstance(o, Measurement)}


def _publish(tracker: Tracker, output: Path, path: Path) -> None:
    """A copy that bears no sweep's name; neither a full disk nor a tracker that is away matters."""
    copy = output / path.name.split(".", 1)[1]
    with suppress(OSError, TrackerUnavailable):
        output.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        tracker.log_file(copy)
