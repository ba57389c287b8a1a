"""Peak speedups on a device where nobody measured, from peaks on another: predicted, with intervals.

    python -m analysis.transfer --calibrate 2xA800 --predict 2xH800
    python -m analysis.transfer --predict 4xL40S --target qwen2_57b_a14b --draft qwen2_0_5b --gamma 4 --sigma 0.7

A device is COUNTxNAME of conf/hardware, a model a name of conf/model (or eagle_mixtral). The first form
compares with the file's rows of that device, the second predicts one peak alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from analysis.published import ROWS, PublishedRow, parse_device, read_rows, setting_of, weight_bytes
from moesd_dist.console import fail
from moesd_dist.hardware import device_figures, hardware_named
from moesd_dist.theory.devices.calibration import Calibration, calibrate

ALONE = ("target", "draft", "gamma", "sigma")


def learned(rows: Sequence[PublishedRow], device: str) -> Calibration:
    """From the rows of that device alone; ValueError lists those that have any."""
    return calibrate([row.peak for row in of_device(rows, device)])


def of_device(rows: Sequence[PublishedRow], device: str) -> list[PublishedRow]:
    found = [row for row in rows if row.device == device]
    if not found:
        names = ", ".join(dict.fromkeys(row.device for row in rows))
        raise ValueError(
            f"no rows of {device}, there are {names}; to predict without rows give "
            "--target, --draft, --gamma and --sigma"
        )
    return found


def comparison(calibration: Calibration, rows: Sequence[PublishedRow]) -> list[str]:
    """A line a row, then the errors of all."""
    lines, errors, inside = [], [], 0
    for row in rows:
        peak = row.peak
        found = calibration.predict(peak.setting, gamma=peak.gamma, sigma=peak.sigma)
        error = found.value / peak.speedup - 1.0
        errors.append(error)
        inside += found.low <= peak.speedup <= found.high
        what = f"{row.target}, {row.draft}, {row.label}, gamma {peak.gamma}, sigma {peak.sigma:.2f}"
        lines.append(
            f"{what:<78} predicted {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] "
            f"measured {peak.speedup:.2f} ({error:+.1%})"
        )
    mape, worst = sum(map(abs, errors)) / len(errors), max(errors, key=abs)
    return [
        *lines,
        f"MAPE {mape:.1%}, mean {sum(errors) / len(errors):+.1%}, worst {worst:+.1%}; "
        f"{inside} of {len(rows)} measured peaks lie inside their 95 % intervals",
    ]


def alone(
    calibration: Calibration, *, device: str, target: str, draft: str, gamma: int, sigma: float
) -> list[str]:
    """One peak that nobody measured; ValueError for a sigma that gamma cannot have."""
    setting = setting_of(target, draft, device)
    found = calibration.predict(setting, gamma=gamma, sigma=sigma)
    batch = calibration.peak(setting, gamma=gamma, sigma=sigma).batch_size
    lines = [
        f"{target}, {draft}, {device}, gamma {gamma}, sigma {sigma:g}: predicted peak speedup "
        f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] at B={batch:.0f}; nothing measured"
    ]
    needed, count = weight_bytes(target) + weight_bytes(draft), parse_device(device)[0]
    room = setting.device.memory_bytes * count
    if needed > room:
        lines.append(f"the weights, {needed / 1e9:.0f} GB, do not fit in {device}, {room / 1e9:.0f} GB")  # fmt: skip
    return lines


def answer(options: argparse.Namespace) -> list[str]:
    rows = read_rows(options.rows)
    device_figures(hardware_named(parse_device(options.predict)[1]))  # before the work
    given = {name: getattr(options, name) for name in ALONE}
    asked = [name for name, value in given.items() if value is not None]
    if asked and len(asked) < len(ALONE):
        missing = ", ".join(f"--{name}" for name in ALONE if name not in asked)
        raise ValueError(f"one peak needs {', '.join(f'--{n}' for n in ALONE)}; no {missing}")
    known = of_device(rows, options.predict) if not asked else []
    calibration = learned(rows, options.calibrate)
    about = f"PREDICTED, from {len(of_device(rows, options.calibrate))} rows of {options.calibrate}"
    lines = (
        alone(calibration, device=options.predict, **given)
        if asked
        else comparison(calibration, known)
    )
    fitted = " (the same rows: in-sample)" if known and options.predict == options.calibrate else ""
    return [f"{about}{fitted}, 95 % intervals of one row", *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--calibrate", default="2xA800", help="whose rows to learn from")
    parser.add_argument("--predict", required=True, help="for which device")
    parser.add_argument("--rows", type=Path, default=ROWS, help="default: MoESD's, packaged")
    parser.add_argument("--target")
    parser.add_argument("--draft")
    parser.add_argument("--gamma", type=int)
    parser.add_argument("--sigma", type=float, help="acceptance_length / (gamma + 1)")
    try:
        print("\n".join(answer(parser.parse_args())))
    except ValueError as error:
        fail(error)


if __name__ == "__main__":
    main()
