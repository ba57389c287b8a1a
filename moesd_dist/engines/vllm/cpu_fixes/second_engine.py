"""A further engine in a process that has imported numba.

Symptom: after ngram speculation (which compiles with numba) the next engine of the process dies of
`AttributeError: '_lib_fn_wrapper' object has no attribute 'get'`. Cause: to put the CPU's kernels in
place of Triton's, every engine looks into every object of every loaded module, and llvmlite's
library handle answers a request for its `__dict__` with a C function. No upstream issue known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

UNREADABLE = "llvmlite.binding.ffi"  # the only one that holds the handle, as `lib`


def readable() -> dict[str, ModuleType]:
    """Every loaded module but the one that cannot be looked into, which holds no kernels."""
    return {name: module for name, module in sys.modules.items() if name != UNREADABLE}


def apply() -> None:
    """The scan's view of `sys` is narrowed, not `sys.modules`: other threads may be importing."""
    from vllm.triton_utils import dispatcher

    original: Callable[[Any], None] = dispatcher._rebind_kernels

    def rebind(overrides: Any) -> None:
        dispatcher.sys = SimpleNamespace(modules=readable())
        try:
            original(overrides)
        finally:
            dispatcher.sys = sys

    dispatcher._rebind_kernels = rebind
