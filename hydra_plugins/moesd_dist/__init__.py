"""Where Hydra looks for launchers: `--multirun` is one sweep, see moesd_dist/multirun.py."""

from __future__ import annotations

from moesd_dist.multirun import OneSweep


class OneSweepLauncher(OneSweep):
    """Hydra takes only classes that are defined in this namespace."""
