"""From one device to another on the command line: predicted, with intervals, and said to be."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import transfer
from analysis.published import ROWS, parse_device, read_rows

Cli = Callable[..., tuple[int, list[str], str]]
ONE = ("--target", "qwen2_57b_a14b", "--draft", "qwen2_0_5b", "--gamma", "4", "--sigma", "0.7")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "argv", ["transfer", *arguments])
        code = 0
        try:
            transfer.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


def test_the_h800_rows_are_predicted_from_the_a800_rows_within_ten_percent(cli: Cli) -> None:
    code, lines, _ = cli("--calibrate", "2xA800", "--predict", "2xH800")
    assert code == 0
    assert lines[0].startswith("PREDICTED, from 24 rows of 2xA800")
    assert len(lines) == 1 + 12 + 1
    assert all(re.search(r"predicted [\d.]+ \[[\d.]+, [\d.]+\] measured", x) for x in lines[1:13])
    mape = re.match(r"MAPE ([\d.]+)%", lines[-1])
    assert mape is not None
    assert float(mape[1]) <= 10.0


def test_a_device_without_rows_has_a_peak_with_its_interval_alone(cli: Cli) -> None:
    code, lines, _ = cli("--predict", "4xL40S", *ONE)
    assert code == 0
    assert "predicted peak speedup 1.97 [1.75, 2.23]" in lines[1]
    assert lines[1].endswith("nothing measured")
    assert len(lines) == 2


def test_weights_that_do_not_fit_are_mentioned(cli: Cli) -> None:
    _, lines, _ = cli("--predict", "2xL40S", *ONE)
    assert lines[2] == "the weights, 116 GB, do not fit in 2xL40S, 96 GB"


def test_the_rows_learned_from_are_said_to_be_in_sample(cli: Cli) -> None:
    _, lines, _ = cli("--predict", "2xA800")
    assert "in-sample" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--predict", "2xL40S"], "no rows of 2xL40S, there are 2xA800", id="no rows"),
        pytest.param(["--predict", "2xH900"], "did you mean H800", id="no such device"),
        pytest.param(["--predict", "0xA800"], "COUNTxNAME", id="none of it"),
        pytest.param(["--predict", "2xcuda"], "hardware cuda has no flops", id="no figures"),
        pytest.param(["--predict", "2xL40S", "--gamma", "4"], "no --target, --draft", id="half"),
        pytest.param(
            ["--predict", "2xL40S", "--calibrate", "2xL40", *ONE], "no rows of 2xL40", id="untaught"
        ),
        pytest.param(
            ["--predict", "2xL40S", *ONE[:-1], "0.1"], "sigma lies between", id="impossible sigma"
        ),
        pytest.param(["--predict", "2xA800", "--rows", "/no"], "/no cannot be read", id="no file"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, arguments: list[str], says: str) -> None:
    code, _, err = cli(*arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert says in err


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    header, first, *_ = ROWS.read_text().splitlines()
    file.write_text(f"{header}\n{first}\n{first.replace('Qwen2-57B', 'Qwen9')}\n")
    with pytest.raises(ValueError, match=r"row 2: no model 'Qwen9"):
        read_rows(file)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="needs rows with target"):
        read_rows(file)


def test_a_name_alone_is_one_device() -> None:
    assert (parse_device("H200"), parse_device("16xH200")) == ((1, "H200"), (16, "H200"))
