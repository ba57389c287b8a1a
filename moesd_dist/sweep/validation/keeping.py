"""Forecasts and calibrations as files: written whole or not at all, read back as they were."""

from __future__ import annotations

import json
import os
from pathlib import Path

from moesd_dist.records.calibration import Calibration
from moesd_dist.records.forecast import Forecast
from moesd_dist.records.serial import from_plain, to_plain


def write(record: Forecast | Calibration, path: Path) -> Path:
    """Durable when it returns; ValueError if the file cannot be written."""
    text = json.dumps(to_plain(record), indent=1, allow_nan=False) + "\n"
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise ValueError(
            f"a forecast is written before what it foretells is measured; {path} cannot be "
            f"({error.strerror}); make room, or choose another folder"
        ) from error
    return path


def read_forecast(path: Path) -> Forecast | None:
    """None where none was written; ValueError for a file that is no forecast."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return from_plain(Forecast, json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is no forecast that this version reads: {error}; move it away to make another"
        ) from error


def read_calibration(path: Path) -> Calibration | None:
    """None where none was written; ValueError for a file that is something else."""
    try:
        return from_plain(Calibration, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is no calibration that this version reads: {error}; move it away to measure again"
        ) from error
