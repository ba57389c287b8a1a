"""The measurement that would settle what is undecided, as a command to be run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from analysis.basis import Basis
from analysis.recommendation_text import stretches
from moesd_dist.records import SweepPoint
from moesd_dist.theory.recommendation import Choice

_OURS = ("sweep.", "hydra.", "output")  # settings of the sweep that the command gives anew
_KEPT = ("sweep.axes", "sweep.workload", "sweep.warmup_rounds", "sweep.window_tokens")


def next_points(choices: Sequence[Choice]) -> list[tuple[int, int]]:
    """(batch size, gamma): of each undecided stretch the one where a rival is likeliest better."""
    doubtful = [stretch.open for stretch in stretches(choices)]
    found = [choice.measure_next for choice in doubtful if choice and choice.measure_next]
    return sorted(set(found))


def command(basis: Basis, points: Sequence[tuple[int, int]]) -> list[str]:
    """The sweep's own command, for these points alone and with twice the repeats; how to use it."""
    sizes, gammas = sorted({b for b, _ in points}), sorted({g for _, g in points if g})
    gammas = (
        gammas or sorted(set(basis.estimate.gammas) - {0})[:1]
    )  # a baseline goes with any gamma
    if not basis.runs:
        return [_joined([], {"batch_size": sizes, "gamma": gammas})]
    newest, point = basis.runs[-1], basis.points[0].point
    settings: dict[str, object] = {
        "name": f"{newest.name}_next",
        "batch_size": sizes,
        "gamma": gammas,
    }
    settings |= _of_setting(point) | {"repeats": 2 * point.protocol.repeats}
    names = ",".join([*(run.name for run in basis.runs), f"{newest.name}_next"])
    return [_joined(_arguments(newest.command), settings), f"then sweep=[{names}] here"]


def _of_setting(point: SweepPoint) -> dict[str, object]:
    found: dict[str, object] = {"temperature": [point.temperature]}
    return found | ({"top_k": [point.top_k]} if point.top_k is not None else {})


def _arguments(command_line: str) -> list[str]:
    """Overrides of the recorded command without those that are given anew."""
    words = [
        word for word in shlex.split(command_line) if "=" in word and not word.startswith("--")
    ]
    return [w for w in words if w.startswith(_KEPT) or not w.lstrip("+").startswith(_OURS)]


def _joined(arguments: Sequence[str], settings: dict[str, object]) -> str:
    ours = [f"sweep.{name}={str(value).replace(' ', '')}" for name, value in settings.items()]
    return shlex.join(["python", "-m", "moesd_dist", *arguments, *ours])
