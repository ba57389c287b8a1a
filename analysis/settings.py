"""`python -m analysis.NAME key=value`: Hydra's schemas, and the way from a command line to a run."""

# A directory of its own (conf/analysis), because conf/ has a group named sweep: there `sweep=NAME`
# would choose a file of it.

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from moesd_dist.config import CONF
from moesd_dist.config.checks import at_least, between, plain
from moesd_dist.console import errors_as_one_line
from moesd_dist.theory.choices.decision import CONFIDENCE, TOLERANCE
from moesd_dist.validate import check_known_keys

T = TypeVar("T")


@dataclass
class StoreConf:
    """Where finished sweeps lie."""

    uri: str = "sqlite:///mlflow.db"
    experiment: str = "moesd-dist"


@dataclass
class WhereConf:
    """Which of several settings; a model or workload by its name or by its whole text."""

    engine: str | None = None
    target: str | None = None
    draft: str | None = None
    top_k: str | None = None
    temperature: str | None = None
    workload: str | None = None
    tokens: str | None = None
    seed: str | None = None
    acceptance: str | None = None

    def wanted(self) -> dict[str, str]:
        """What was asked for, by the names of `workloads.acceptance_points.setting_of`."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass
class LayoutConf:
    """null: as it was measured."""

    dp_size: int | None = None

    def __post_init__(self) -> None:
        at_least("layout.dp_size", self.dp_size, 1)


@dataclass
class RecommendConf(StoreConf):
    sweep: Any = None  # name or id, or a list of them
    fit: str = ""  # fit.json instead of a sweep
    acceptance: str = ""
    where: WhereConf = field(default_factory=WhereConf)
    layout: LayoutConf = field(default_factory=LayoutConf)
    batch_sizes: list[int] = field(default_factory=list)
    gammas: list[int] = field(default_factory=list)
    top_k: int | None = None
    context_tokens: float | None = None
    tolerance: float = TOLERANCE
    confidence: float = CONFIDENCE
    formats: list[str] = field(default_factory=list)
    out: str = MISSING

    def __post_init__(self) -> None:
        at_least("tolerance", self.tolerance, 0.0)
        between("confidence", self.confidence, 0.5, 0.999)
        for name, least in (("batch_sizes", 1), ("gammas", 0)):
            for value in plain(getattr(self, name)):
                at_least(name, value, least)


def names_of(sweep: Any) -> list[str]:
    """One name or a list of them as a list; ValueError for anything else."""
    values = [sweep] if isinstance(sweep, (str, int)) else list(sweep or [])
    return [str(value) for value in values]


def check_folder(out: str) -> None:
    """Before anything is spent; ValueError if it cannot be made or written to. Leaves no trace."""
    folder = Path(out).absolute()
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in missing:
            place.rmdir()
    except OSError as error:
        raise ValueError(
            f"out={out} must be a folder that can be made: {error.strerror}; choose another"
        ) from error
    if not missing and not os.access(folder, os.W_OK):
        raise ValueError(f"out={out} must be a folder that can be written to; choose another")


def hydra_program(name: str, schema: type[T], run: Callable[[T], None]) -> None:
    """Composes conf/analysis/NAME.yaml with the command line; what a user can get wrong is one line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come up as exceptions instead of a printed trace
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)

    def composed_main(composed: DictConfig) -> None:
        # Caught in here: Hydra would print a line of its own for an exception that leaves the job.
        with errors_as_one_line():
            check_known_keys(composed, schema)
            conf = OmegaConf.to_object(composed)
            assert isinstance(conf, schema)
            run(conf)

    program = hydra.main(version_base="1.3", config_path=str(CONF / "analysis"), config_name=name)
    with errors_as_one_line():
        program(composed_main)()
