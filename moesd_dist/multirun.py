"""`--multirun` makes one sweep of all its combinations, instead of one after another."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, env_override, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A configuration as Hydra composed it; `about` holds the overrides that only some jobs have."""

    config: DictConfig
    about: str = ""


class OneSweep(Launcher):
    """Composes every job and calls the task once, with all of them, in this process."""

    def __init__(self) -> None:
        self._config = DictConfig({})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        if config.hydra.sweeper.get("max_batch_size") is not None:
            raise ValueError(
                "hydra.sweeper.max_batch_size would make several sweeps of one; leave it away"
            )
        self._config, self._context, self._task = config, hydra_context, task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        setup_globals()
        before = HydraConfig.instance().cfg
        folder = Path(str(self._config.hydra.sweep.dir)).absolute()
        common = set(job_overrides[0]).intersection(*job_overrides)
        try:
            jobs = [
                Composed(
                    config=self._compose(overrides, initial_job_idx + place, folder),
                    about=" ".join(o for o in overrides if o not in common),
                )
                for place, overrides in enumerate(job_overrides)
            ]
            _save(jobs, folder, self._config.hydra.output_subdir)
            with env_override(self._config.hydra.job.env_set):
                self._task(jobs)
        finally:
            HydraConfig.instance().cfg = before
        done = JobReturn(status=JobStatus.COMPLETED)
        done.return_value = None
        return [done]

    def _compose(self, overrides: Sequence[str], number: int, folder: Path) -> DictConfig:
        """The job's own part, resolved while Hydra's part is known."""
        loaded = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with read_write(loaded), open_dict(loaded):
            loaded.hydra.job.id = loaded.hydra.job.num = number
            loaded.hydra.runtime.output_dir = str(folder)
            HydraConfig.instance().set_config(loaded)
            own: DictConfig = copy.deepcopy(loaded)
            del own["hydra"]
        OmegaConf.resolve(own)
        return own


def overrides_first(words: Sequence[str]) -> list[str]:
    """Command-line words in the order that Hydra reads: it refuses `a=1 --multirun b=2`."""

    def is_override(word: str) -> bool:
        return word.startswith("~") or ("=" in word and not word.startswith("-"))

    return sorted(words, key=lambda word: not is_override(word))


def all_of(jobs: Sequence[Composed]) -> Any:
    """What is stored as the sweep's configuration: that of the only job, or a list of them."""
    return jobs[0].config if len(jobs) == 1 else OmegaConf.create([job.config for job in jobs])


def _save(jobs: Sequence[Composed], folder: Path, subfolder: str | None) -> None:
    if subfolder is None:
        return
    (folder / subfolder).mkdir(parents=True, exist_ok=True)
    OmegaConf.save(all_of(jobs), folder / subfolder / "config.yaml")
