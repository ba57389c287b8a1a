"""Temperature above zero with speculation on a CPU.

Symptom: with any request at temperature > 0 (or with top-k, top-p) the target's probabilities are
NaN and token 0 comes out, without a word. Cause: `_expand_kernel_impl` hands the C++ kernel an int64
copy of its float32 output and drops it, so a request's temperature never reaches its draft
positions. Upstream: https://github.com/vllm-project/vllm/issues/55005, open.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expand(
    output: Tensor,
    values: Tensor,
    ends: Tensor,
    replace_from: float,
    replace_to: float,
    _: int = 0,  # the most tokens a request has: Triton's block size
) -> None:
    """Each request's value once for each of its tokens: `ends` are running totals of tokens.

    The order of the Triton kernel's parameters: vLLM passes them by position.
    """
    counts = torch.diff(ends, prepend=ends.new_zeros(1))
    replaced = values.masked_fill(values == replace_from, replace_to)
    expanded = torch.repeat_interleave(replaced, counts)
    output[: len(expanded)] = expanded


def apply() -> None:
    from vllm.utils import cpu_triton_utils

    cpu_triton_utils._expand_kernel_impl = expand
