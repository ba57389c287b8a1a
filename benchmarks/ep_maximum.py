"""How far the busiest rank is from the mean one, in closed form and simulated: `python -m benchmarks.ep_maximum`.

Prints both over 8 to 512 experts, 1 to 512 ranks and 1 to 256 tokens, with the worst differences, and
draws the closed form for 256 experts of which a token takes 8: docs/results/ep_maximum.{txt,png}.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from analysis.canvas import counts_axis, footnote, paper, save, style_of
from moesd_dist.theory.expert_parallel.activation import rank_sizes
from moesd_dist.theory.expert_parallel.popularity import beta_weights
from moesd_dist.theory.expert_parallel.rank_law import rank_expectation
from moesd_dist.theory.expert_parallel.sampling import expert_loads
from moesd_dist.theory.routing_law import UNIFORM, RoutingLaw

RESULTS = Path(__file__).parents[1] / "docs" / "results"
# Fitted to the experts that the embedded pair was seen to wake on code (docs/prediction.md).
POPULAR = RoutingLaw(popularity=13.4, fresh_share=0.8)
ROUTERS = [(8, 2), (16, 4), (32, 8), (64, 8), (128, 8), (256, 8), (512, 10)]
RANKS = [1, 2, 3, 4, 8, 16, 32, 64, 100, 128, 256, 512]
TOKENS = [1, 2, 4, 16, 64, 256]
DRAWN_RANKS, DRAWN = [2, 8, 32, 64, 256], (256, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting: (closed form, simulated mean, its standard error) of either maximum."""

    setting: tuple[int, int, int, int, int]  # experts, top_k, ranks, sequences, tokens of each
    activated: tuple[float, float, float]
    load: tuple[float, float, float]


def rows(routing: RoutingLaw, tokens_each: int, draws: int) -> Iterator[Row]:
    for num_experts, top_k in ROUTERS:
        for sequences in TOKENS:
            loads = simulated(routing, num_experts, top_k, sequences, tokens_each, draws)
            for ranks in (r for r in RANKS if r <= num_experts):  # more hold none
                found = rank_expectation(
                    num_experts=num_experts,
                    top_k=top_k,
                    ranks=ranks,
                    sequences=sequences,
                    tokens_each=tokens_each,
                    routing=routing,
                )
                yield Row(
                    setting=(num_experts, top_k, ranks, sequences, tokens_each),
                    activated=(float(found.activated_max), *busiest(loads > 0, ranks)),
                    load=(float(found.load_max), *busiest(loads, ranks)),
                )


def simulated(
    routing: RoutingLaw, num_experts: int, top_k: int, sequences: int, tokens_each: int, draws: int
) -> np.ndarray:
    """Tokens of each expert, [draw, expert]; the same draws serve all numbers of ranks."""
    rng = np.random.default_rng([num_experts, sequences, tokens_each])
    count = max(2000, draws // (1 + sequences * tokens_each // 8))
    weights = beta_weights(rng, num_experts, top_k, routing.popularity, count)
    return expert_loads(
        rng,
        weights,
        top_k=top_k,
        sequences=sequences,
        tokens_each=tokens_each,
        draws=count,
        fresh_share=routing.fresh_share,
    )


def busiest(per_expert: np.ndarray, ranks: int) -> tuple[float, float]:
    """Mean and standard error of the largest rank, of experts that lie side by side."""
    sizes = rank_sizes(per_expert.shape[1], ranks)
    starts = np.cumsum([0, *(size for count, size in sizes for _ in range(count) if size)])[:-1]
    largest = np.add.reduceat(per_expert.astype(np.int64), starts, axis=1).max(axis=1)
    return float(largest.mean()), float(largest.std(ddof=1) / math.sqrt(len(largest)))


def table(title: str, found: list[Row]) -> Iterator[str]:
    yield title
    yield f"{'E':>4} {'K':>3} {'R':>4} {'B':>4} {'s':>2}   {'activated, busiest rank':^38}   {'load, busiest rank':^38}"
    yield f"{'':21}   " + "   ".join([f"{'closed':>9} {'simulated':>18} {'differ':>9}"] * 2)
    for row in found:
        places = "{:4} {:3} {:4} {:4} {:2}".format(*row.setting)
        cells = [
            f"{closed:9.3f} {mean:9.3f} ± {error:6.3f} {closed / mean - 1:+9.2%}"
            for closed, mean, error in (row.activated, row.load)
        ]
        yield f"{places}   " + "   ".join(cells)
    yield from worst(found)
    yield ""


def worst(found: list[Row]) -> Iterator[str]:
    for name in ("activated", "load"):
        values = np.array([getattr(row, name) for row in found])
        differ = np.abs(values[:, 0] / values[:, 1] - 1.0)
        at = int(np.argmax(differ))
        place = "E = {}, K = {}, R = {}, B = {}, s = {}".format(*found[at].setting)
        noise = values[at, 2] / values[at, 1]
        yield (
            f"{name}: mean difference {differ.mean():.2%}, worst {differ[at]:.2%} at {place}, where "
            f"one standard error of the simulation is {noise:.2%}"
        )


def draw(path: Path) -> Path:
    """Both maxima over the mean rank, by tokens of the whole batch."""
    figure, ((left, right),) = paper(1)
    tokens = np.unique(np.round(2.0 ** np.arange(0.0, 14.01, 0.125)).astype(int))
    for ranks in DRAWN_RANKS:
        for routing, line in ((UNIFORM, "-"), (RoutingLaw(popularity=13.4, fresh_share=1.0), "--")):
            found = rank_expectation(
                num_experts=DRAWN[0],
                top_k=DRAWN[1],
                ranks=ranks,
                sequences=tokens,
                tokens_each=1,
                routing=routing,
            )
            look = {"color": style_of(ranks, DRAWN_RANKS)["color"], "linestyle": line}
            name = f"{ranks} ranks" if line == "-" else None
            left.plot(tokens, found.activation_imbalance, label=name, **look)
            right.plot(tokens, found.load_imbalance, label=name, **look)
    label(left, "activated experts: busiest rank / (N(t) / R)")
    label(right, "token-expert pairs: busiest rank / (t K / R)")
    figure.suptitle(
        "ANALYTIC, nothing measured: expert parallelism leaves the means of N and T_exp as they are, "
        f"but a layer waits for its busiest rank\nE = {DRAWN[0]} experts, K = {DRAWN[1]} a token, "
        "laid out evenly over R ranks",
        fontsize=11,
    )
    footnote(
        figure,
        [
            "solid: uniform routing",
            "dashed: popularity as fitted to the embedded pair (kappa = 13.4), popular experts on "
            "ranks at random",
            "t: tokens of all ranks together, B (gamma + 1) in a verification",
        ],
    )
    return save(figure, path)


def label(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("gate tokens t (global)")
    counts_axis(axes, [1 << n for n in range(0, 15, 2)])
    axes.set_yscale("log", base=2)
    ticks = [1, 1.5, 2, 3, 4, 6, 8, 16, 32]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(0.95, 40.0)
    axes.legend(fontsize=9)


def main() -> None:
    lines = [
        "Busiest rank, closed form against simulated routing (seeded). E experts, K a token, R ranks,",
        "B sequences in the whole batch, s tokens of each. Nothing here was measured on a model.",
        "",
        *table("Uniform routing, one token a sequence", list(rows(UNIFORM, 1, 40_000))),
        *table(
            f"Popular experts (kappa {POPULAR.popularity}), further tokens {POPULAR.fresh_share} fresh, "
            "four tokens a sequence",
            list(rows(POPULAR, 4, 8000)),
        ),
    ]
    text = "\n".join(lines)
    (RESULTS / "ep_maximum.txt").write_text(text, encoding="utf-8")
    print(text)
    print(draw(RESULTS / "ep_maximum.png"))


if __name__ == "__main__":
    main()
