"""An output folder is tried before anything is spent, and the trial leaves no trace."""

from __future__ import annotations

import pytest

from analysis.settings import check_folder


def test_a_folder_that_can_be_made_is_not_left_behind(tmp_path):
    check_folder(str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_stays(tmp_path):
    (tmp_path / "file").write_text("kept")
    check_folder(str(tmp_path))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_what_cannot_be_a_folder_is_refused(tmp_path, out):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder that can be made"):
        check_folder(str(tmp_path / out))
