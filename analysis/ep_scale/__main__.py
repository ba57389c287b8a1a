"""Speculation on 8 to 512 ranks that share experts: SIMULATED, from data sheets, beside published points.

    python -m analysis.ep_scale --out docs/results/ep_scale

Writes report.txt, curves.csv and the pictures. Takes a minute; nothing is run, no GPU is needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from analysis.ep_scale import figures, text
from analysis.ep_scale.exchange import exchange_points
from analysis.ep_scale.predicted import predictions
from analysis.ep_scale.published import read_points
from analysis.ep_scale.published_figure import published_figure
from analysis.ep_scale.scenario import INTERCONNECTS, TITLES, Products, Scenario, ep_model
from analysis.ep_scale.surface import ALPHA, Surface, of_global, per_rank
from analysis.ep_scale.text import Key

GAMMAS = (1, 3)
SHOWN = ("deepseek_v3", "H200")  # of the pictures that show one model
PARTS_AT = (1, 4, 16, 64)  # sequences a rank
PARTS_RANKS = (8, 64, 256)


def surfaces(hidden_share: float) -> dict[Key, Surface]:
    """Every scenario and gamma."""
    found = {}
    for products in Products:
        for model in TITLES:
            for hardware in INTERCONNECTS:
                scenario = Scenario(model=model, hardware=hardware, products=products)
                shared = ep_model(scenario, hidden_share=hidden_share)
                for gamma in GAMMAS:
                    found[products, gamma, model, hardware] = per_rank(shared, gamma=gamma)
    return found


def write(folder: Path) -> list[Path]:
    """All files; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    shown, hidden = surfaces(0.0), surfaces(1.0)
    whole = of_global(ep_model(Scenario()), gamma=3)
    predicted = predictions(read_points())
    report, table = folder / "report.txt", folder / "curves.csv"
    lines = [figures.NOTE, f"every draft accepted with chance {ALPHA}: synthetic", ""]
    for key, surface in shown.items():
        lines += text.scale_table(_name(key), (surface, hidden[key]))
    for gamma in GAMMAS:
        key = (Products.calibrated, gamma, *SHOWN)
        lines += text.parts_table(_name(key), shown[key], PARTS_AT)
    lines += text.global_table("DeepSeek-V3 on H200", whole)
    lines += text.published_table(predicted) + text.exchange_table(exchange_points())
    report.write_text("\n".join(lines), encoding="utf-8")
    pd.DataFrame(text.rows(shown)).to_csv(table, index=False, float_format="%.6g")
    pictures = [*_scale_pictures(shown, folder), *_why_pictures(shown, hidden, whole, folder)]
    return [report, table, *pictures, published_figure(predicted, folder / "published.png")]


def _scale_pictures(shown: dict[Key, Surface], folder: Path) -> list[Path]:
    return [
        figures.speedup_figure(
            {
                title: {
                    hardware: shown[products, gamma, model, hardware] for hardware in INTERCONNECTS
                }
                for model, title in TITLES.items()
            },
            f"Speedup at gamma {gamma} over sequences a rank, products {products.value}",
            [f"alpha {ALPHA}", "context 4,608 tokens", "draft: one layer of the target"],
            folder / f"speedup_gamma_{gamma}_{products.name}.png",
        )
        for products in Products
        for gamma in GAMMAS
    ]


def _why_pictures(
    shown: dict[Key, Surface], hidden: dict[Key, Surface], whole: Surface, folder: Path
) -> list[Path]:
    model, hardware = SHOWN
    losses = {
        f"{TITLES[m]}, {h}": shown[Products.calibrated, 3, m, h]
        for m in TITLES
        for h in INTERCONNECTS
    }
    made = [
        figures.small_batches_figure(
            whole,
            losses,
            "The loss at small batches, gamma 3: DeepSeek-V3 on H200 (left), all models (right)",
            folder / "small_batches.png",
        )
    ]
    for products in Products:
        keys = {h: (products, 1, model, h) for h in INTERCONNECTS}
        made.append(
            figures.communication_figure(
                {h: shown[key] for h, key in keys.items()},
                {h: hidden[key] for h, key in keys.items()},
                f"DeepSeek-V3, gamma 1, products {products.value}: what links take",
                folder / f"communication_{products.name}.png",
            )
        )
    parts = shown[Products.calibrated, 3, model, hardware]
    title = "DeepSeek-V3 on H200, gamma 3: why verification takes longer than decoding"
    return [*made, figures.parts_figure(parts, PARTS_RANKS, title, folder / "parts.png")]


def _name(key: Key) -> str:
    products, _, model, hardware = key
    return f"{TITLES[model]}, {INTERCONNECTS[hardware]}, products {products.value}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder")
    for path in write(parser.parse_args().out):
        print(f"saved {path}")


if __name__ == "__main__":
    main()
