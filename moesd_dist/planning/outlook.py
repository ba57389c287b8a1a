"""What a sweep would do and cost if it were started now; nothing is spent to find out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from moesd_dist.config import Conf, Launcher
from moesd_dist.planning.at_hand import AtHand, at_hand
from moesd_dist.planning.expected import costs_of, earlier_of, needs_of
from moesd_dist.planning.feasible import infeasible
from moesd_dist.records import Infeasible, Measurement, Outcome, Role, SweepPoint
from moesd_dist.sweep.grouping import EngineKey, Group, engine_key, groups
from moesd_dist.sweep.journal import Journal
from moesd_dist.sweep.schedule.costs import Costs
from moesd_dist.sweep.schedule.needs import Needs, Room
from moesd_dist.sweep.schedule.rehearsal import Rehearsal, Within, rehearse
from moesd_dist.sweep.schedule.work import Work
from moesd_dist.tracking.location import journal_folder
from moesd_dist.tracking.reading import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """`chosen_of` is the number of SD points that an adaptive sweep would choose from, else 0."""

    points: int
    done: int
    infeasible: tuple[Infeasible, ...]
    works: tuple[Work, ...]
    chosen_of: int
    simulated: bool
    hand: AtHand
    sources: tuple[tuple[str, int], ...]  # and of how many groups; an empty one is a guess
    rehearsal: Rehearsal
    bought: Within | None  # by the budget, if there is one

    @property
    def new(self) -> int:
        return sum(len(work.group.wanted) for work in self.works)

    @property
    def on_gpus(self) -> bool:
        return any(engine.needs.all_gpus for engine in self.rehearsal.engines)

    @property
    def occupied_s(self) -> float:
        """GPU-seconds; node-seconds where no engine takes a GPU."""
        return self.rehearsal.gpu_s if self.on_gpus else self.rehearsal.node_s

    @property
    def idle_share(self) -> float:
        """Of the time of all GPUs, or of all nodes, until the last group has ended."""
        rooms = self.hand.rooms
        places = sum(room.gpus for room in rooms) if self.on_gpus else len(rooms)
        all_s = places * self.rehearsal.makespan_s
        return max(0.0, 1.0 - self.occupied_s / all_s) if all_s else 0.0


def outlook(confs: Sequence[Conf], points: Sequence[SweepPoint], sweep_id: str) -> Outlook:
    """`confs` share cluster, tracking and budget. ValueError where what is done cannot be read."""
    return foresee(confs, points, _finished(confs[0], sweep_id), earlier_of(confs, points))


def _finished(conf: Conf, sweep_id: str) -> dict[str, Outcome]:
    """By the tracker, and by the journal, which knows what the tracker was not told yet."""
    uri, experiment = conf.tracking.uri, conf.tracking.experiment
    folder = journal_folder(uri, experiment, conf.tracking.journal)
    journal = Journal.peek(folder, sweep_id)
    withdrawn = journal.withdrawn()
    tracked = Store(uri=uri, experiment=experiment).finished(sweep_id)
    kept = {k: o for k, o in tracked.items() if k not in withdrawn}
    return {**kept, **journal.outcomes()}


def foresee(
    confs: Sequence[Conf],
    points: Sequence[SweepPoint],
    finished: Mapping[str, Outcome],
    earlier: Iterable[Measurement],
) -> Outlook:
    """By what is finished of this sweep, and by what any sweep has measured before."""
    conf = confs[0]
    known = {k: o for k, o in finished.items() if isinstance(o, Measurement)}
    done = [point for point in points if point.point_id in known]
    costs = costs_of(confs, points, lambda: earlier)
    wanted, impossible = _possible(groups(points, known), confs)
    if conf.sweep.adaptive is not None:
        left = conf.sweep.adaptive.budget - sum(p.role is Role.sd for p in done)
        wanted = _dearest(wanted, costs, max(0, left))
    works = [Work(group=g, key=engine_key(g), seconds=costs.group_s(g)) for g in wanted]
    needs = partial(needs_of, confs)
    hand = at_hand(conf, list(dict.fromkeys(needs(work.key) for work in works)) or [Needs()])
    rehearsal = _rehearsed(works, hand.rooms, needs, costs, conf)
    return Outlook(
        points=len(points),
        done=len(done),
        infeasible=tuple(impossible),
        works=tuple(works),
        chosen_of=sum(p.role is Role.sd for p in points) if conf.sweep.adaptive else 0,
        simulated=any(point.simulated for point in points),
        hand=hand,
        sources=_sources(wanted, costs),
        rehearsal=rehearsal,
        bought=None if conf.budget_hours is None else rehearsal.within(conf.budget_hours),
    )


def _possible(todo: Sequence[Group], confs: Sequence[Conf]) -> tuple[list[Group], list[Infeasible]]:
    """Groups without the points that do not fit, and those points."""
    kept, impossible = [], []
    for group in todo:
        found = infeasible(group, confs)
        impossible += found
        out = {each.point for each in found}
        rest = replace(group, points=tuple(p for p in group.points if p not in out))
        if group.baseline not in out and rest.wanted and len(found) < len(group.wanted):
            kept.append(rest)
    return kept, impossible


def _dearest(todo: Sequence[Group], costs: Costs, count: int) -> list[Group]:
    """At most so many SD points, those whose measurement costs most: an adaptive sweep's upper bound."""
    alone = {p: replace(group, points=(p,)) for group in todo for p in group.points}
    ranked = sorted(alone, key=lambda p: costs.group_s(alone[p]), reverse=True)[:count]
    chosen = set(ranked)
    trimmed = [replace(g, points=tuple(p for p in g.points if p in chosen)) for g in todo]
    return [group for group in trimmed if group.points]


def _rehearsed(
    works: Sequence[Work],
    rooms: Sequence[Room],
    needs: partial[Needs],
    costs: Costs,
    conf: Conf,
) -> Rehearsal:
    """In this process there is one engine at a time, so each is taken to fill the machine."""
    alone = conf.launcher is Launcher.inline

    def asked(key: EngineKey) -> Needs:
        found = needs(key)
        return replace(found, cpus=rooms[0].cpus, whole_node=True) if alone else found

    return rehearse(works, rooms, asked, costs.start_s, one_by_one=conf.cluster.share_a_machine)


def _sources(todo: Sequence[Group], costs: Costs) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for source in map(costs.source_of, todo):
        found[source] = found.get(source, 0) + 1
    return tuple(found.items())
