"""What the documents promise exists: links, modules, experiments, settings."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from moesd_dist import config, specs
from moesd_dist.__main__ import CONF

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def commands() -> list[list[str]]:
    """Every `python -m ...` line of a bash block, comments stripped, as words after `-m`."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S):
            for line in re.findall(r"python -m (.+)", block):
                found.append(shlex.split(line, comments=True))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_names_a_module_and_settings_that_exist(words):
    module, *arguments = words
    assert find_spec(module) is not None
    if module == "moesd_dist":
        overrides = [word for word in arguments if "=" in word]
        jobs = jobs_of(overrides) if "--multirun" in arguments else [overrides]
        GlobalHydra.instance().clear()
        config.register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            for job in jobs:
                specs.conf_from(compose("config", overrides=[*job, "output=x"]))


def jobs_of(overrides: list[str]) -> list[list[str]]:
    """The combinations of a --multirun, as Hydra makes them."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return jobs


def test_the_tests_command_of_the_readme_is_what_ci_runs():
    readme = (ROOT / "README.md").read_text()
    assert len(re.findall(r"<!-- test -->\n```bash\n(.+)\n```", readme)) == 1
    assert "<!-- test -->" in (ROOT / ".ci" / "run").read_text()
