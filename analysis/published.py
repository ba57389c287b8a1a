"""The peak speedups that MoESD (arXiv 2505.19645) printed, and the models behind them as counts."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from moesd_dist import specs
from moesd_dist.hardware import device_figures, hardware_named, model_named
from moesd_dist.models.counts import counts_of, known_shape
from moesd_dist.models.shape import bytes_per_value
from moesd_dist.theory.counts import ModelCounts
from moesd_dist.theory.devices.calibration import PeakRow
from moesd_dist.theory.devices.transfer import Setting

ROWS = Path(__file__).parent / "data" / "moesd_peak_speedups.csv"
COLUMNS = ("target", "draft", "device", "gamma", "sigma", "x_peak_speedup")

# The names of the table; others are those of conf/model.
MODELS = {
    "Qwen2-57B-A14B-Instruct": "qwen2_57b_a14b",
    "Qwen2-0.5B-Instruct": "qwen2_0_5b",
    "Mixtral-8x7B-Instruct-v0.1": "mixtral_8x7b",
    "EAGLE": "eagle_mixtral",
}

# yuhuili/EAGLE-mixtral-instruct-8x7B: a matrix that joins a token with the target's hidden state
# (2 h h), one layer of plain attention (4 h h) and a gated MLP, and the target's head. No Hugging Face
# config describes it, so it is no file of conf/model; its norms are left out.
EAGLE_MIXTRAL = ModelCounts(
    num_layers=1,
    hidden_size=4096,
    vocab_size=32000,
    streamed_non_expert_params=(2 + 4) * 4096**2 + 3 * 4096 * 14336 + 4096 * 32000,
    kv_values_per_token=2 * 32 * 128,
)
_COUNTS = {"eagle_mixtral": EAGLE_MIXTRAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One line of the table; `label` is what else it is of, such as a data set and a temperature."""

    target: str
    draft: str
    device: str  # such as 2xA800
    label: str
    peak: PeakRow


def read_rows(file: Path = ROWS) -> list[PublishedRow]:
    """ValueError for a file without these columns, or with a model or device that nobody knows."""
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read; give a CSV file of peak speedups") from error
    missing = [name for name in COLUMNS if not lines or name not in lines[0]]
    if missing:
        raise ValueError(f"{file} needs rows with {', '.join(COLUMNS)}; no {', '.join(missing)}")
    return [_row(line, f"{file}, row {number}") for number, line in enumerate(lines, 1)]


def setting_of(target: str, draft: str, device: str) -> Setting:
    """Models and a device by name; the target is shared out, the draft runs on one."""
    count, name = parse_device(device)
    return Setting(
        target=counts_named(target),
        draft=counts_named(draft),
        device=device_figures(hardware_named(name)),
        tp_size=count,
    )


def parse_device(text: str) -> tuple[int, str]:
    """`2xA800` is two of conf/hardware/A800.yaml; a name alone is one."""
    match = re.fullmatch(r"(?:(\d+)x)?(\w+)", text)
    if match is None or match[1] == "0":
        raise ValueError(f"a device is COUNTxNAME, such as 2xA800; got {text!r}")
    return int(match[1] or 1), match[2]


def counts_named(name: str) -> ModelCounts:
    """A model of the table or of conf/model."""
    name = MODELS.get(name, name)
    return _COUNTS.get(name) or counts_of(specs.model_spec(model_named(name)))


def weight_bytes(name: str) -> float:
    """All weights, read by a forward or not."""
    name = MODELS.get(name, name)
    if name in _COUNTS:
        return 2.0 * _COUNTS[name].streamed_non_expert_params
    spec = specs.model_spec(model_named(name))
    return known_shape(spec).weight_bytes(bytes_per_value(spec.dtype))


def _row(line: dict[str, str], where: str) -> PublishedRow:
    try:
        peak = PeakRow(
            setting=setting_of(line["target"], line["draft"], line["device"]),
            gamma=int(line["gamma"]),
            sigma=float(line["sigma"]),
            speedup=float(line["x_peak_speedup"]),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    rest = [line[name] for name in line if name in ("dataset", "temperature")]
    return PublishedRow(
        target=line["target"],
        draft=line["draft"],
        device=line["device"],
        label=" T=".join(rest),
        peak=peak,
    )
