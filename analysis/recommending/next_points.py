"""The measurement that would settle what is undecided, as a command wherever one is known."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from analysis.recommending.basis import Basis
from analysis.recommending.text import stretches
from moesd_dist.records import SweepPoint
from moesd_dist.theory.choices.recommendation import Choice, StaticChoice

_OURS = ("sweep.", "hydra.", "output")  # settings of the sweep that the command gives anew
_NEAR = 0.25
_KEPT = ("sweep.axes", "sweep.warmup_rounds", "sweep.window_tokens")


def open_choices(choices: Sequence[Choice]) -> list[Choice]:
    """Of each undecided stretch the batch size at which a rival is likeliest to be better."""
    return [choice for stretch in stretches(choices) if (choice := stretch.open)]


def command(basis: Basis, open_: Sequence[Choice | StaticChoice]) -> list[str]:
    """The sweep's own command, for these points alone and with twice the repeats; how to use it.

    Both gammas of a doubt are measured, in one group: then they share baseline and prompts, and
    their difference is known better than either.
    """
    sizes = _apart(sorted({choice.measure_next[0] for choice in open_ if choice.measure_next}))
    pairs = {gamma for choice in open_ for gamma in (choice.gamma, choice.likeliest)}
    gammas = sorted(gamma for gamma in pairs if gamma)
    if not basis.runs:
        return [_in_words(basis, sizes, gammas)]
    newest, point = basis.runs[-1], basis.points[0].point
    name = f"{newest.name}_next"
    settings = {"name": name, "batch_size": sizes, "gamma": gammas, **_of_setting(point)}
    swept = len({m.point.workload.name for m in newest.measured}) > 1
    if swept or "sweep.workload=" in newest.command:
        settings["workload"] = f"[{point.workload.name}]"
    names = ",".join([*(run.name for run in basis.runs), name])
    repeated = {**settings, "repeats": 2 * point.protocol.repeats}
    return [_joined(_arguments(newest.command), repeated), f"then recommend from 'sweep=[{names}]'"]


def _in_words(basis: Basis, sizes: Sequence[int], gammas: Sequence[int]) -> str:
    """A saved fit does not know the command that measured it."""
    top_k = basis.model.place.top_k if basis.model else 0.0
    setting = f" with top_k={top_k:g}" if top_k else ""
    points = f"B={','.join(map(str, sizes))} gamma={','.join(map(str, gammas))}"
    return f"{points}{setting} of the fitted pair"


def _apart(sizes: Sequence[int]) -> list[int]:
    """Without those within a quarter of the one before, which tells enough of them."""
    kept: list[int] = []
    for size in sizes:
        if not kept or size > (1.0 + _NEAR) * kept[-1]:
            kept.append(size)
    return kept


def _of_setting(point: SweepPoint) -> dict[str, object]:
    found: dict[str, object] = {"temperature": [point.temperature]}
    return found | ({"top_k": [point.top_k]} if point.top_k is not None else {})


def _arguments(command_line: str) -> list[str]:
    """Overrides of the recorded command without those that are given anew."""
    words = [
        word for word in shlex.split(command_line) if "=" in word and not word.startswith("--")
    ]
    kept = [w for w in words if w.startswith(_KEPT) or not w.lstrip("+").startswith(_OURS)]
    return ["sweep=batch_sizes" if w == "sweep=adaptive" else w for w in kept]


def _joined(arguments: Sequence[str], settings: dict[str, object]) -> str:
    ours = [f"sweep.{name}={str(value).replace(' ', '')}" for name, value in settings.items()]
    return shlex.join(["python", "-m", "moesd_dist", *arguments, *ours])
