"""Where the tokens of replicated experts go, dealt one by one as ranks deal them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from moesd_dist.records import LayoutSpec


def deal(chosen: np.ndarray, row: np.ndarray, ranks: int) -> tuple[np.ndarray, float]:
    """Tokens of each physical expert [forward, slot], and the rows that a rank sends in a forward.

    `chosen` is [forward, token, top_k], `row` the logical expert of each slot. Every rank has as
    many tokens; its first takes the replica of its own number, its next one the next.
    """
    own, per_rank = chosen.shape[1] // ranks, len(row) // ranks
    holders = {expert: np.flatnonzero(row == expert).tolist() for expert in set(row.tolist())}
    loads, sent = np.zeros((len(chosen), len(row)), dtype=np.int64), 0
    for forward, tokens in enumerate(chosen.tolist()):
        for token, experts in enumerate(tokens):
            rank, place = divmod(token, own)
            at = [holders[e][(place + rank) % len(holders[e])] for e in experts]
            loads[forward, at] += 1
            sent += len({slot // per_rank for slot in at} - {rank})
    return loads, sent / (len(chosen) * ranks)


def replicated(ranks: int, loads: np.ndarray, folder: Path, *, redundant: int) -> LayoutSpec:
    """Experts balanced by loads [layer, expert], which every node finds in the folder."""
    path = folder / "loads.json"
    path.write_text(json.dumps({"loads": loads.tolist()}))
    return LayoutSpec(
        dp_size=ranks,
        ep_size=ranks,
        expert_placement="balanced",
        redundant_experts=redundant,
        loads_digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        loads_path=str(path),
    )
