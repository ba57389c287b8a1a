"""A model from a folder is measured like the embedded one: the folder here is the embedded one's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from moesd_dist.__main__ import main

EMBEDDED = Path(__file__).parents[1] / "moesd_dist" / "models" / "embedded"


@pytest.mark.parametrize(
    "sd",
    [
        pytest.param(
            ["sd=draft_model", f"sd.draft.location={EMBEDDED / 'draft'}"], id="draft checkpoint"
        ),
        pytest.param(["sd=ngram"], id="n-gram"),
        pytest.param(["sd=synthetic", "sd.synthetic_acceptance=[0.9,0.5]"], id="synthetic"),
    ],
)
def test_a_checkpoint_folder_is_measured(tmp_path, monkeypatch, capfd, sd):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "model=checkpoint", f"model.location={EMBEDDED / 'target'}", "model.name=mine", *sd,
        "launcher=inline", "sweep.batch_size=[2]", "sweep.gamma=[2]", "sweep.repeats=2",
        "sweep.window_tokens=8", "workload.output_tokens=8", "sweep.temperature=[0,1]",
        "workload=stdlib_prose",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["moesd_dist", *arguments])
    GlobalHydra.instance().clear()
    main()
    out = capfd.readouterr().out
    assert "[4/4]" in out
    assert "target mine" in out
    assert ("SYNTHETIC ACCEPTANCE" in out) == ("sd=synthetic" in sd)
    assert len(list(tmp_path.glob("outputs/**/speedup.png"))) == 1
