"""A function on every rank of a group of processes on this machine, and what each returned."""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from moesd_dist.records import RankPlace

ROOT = Path(__file__).parents[2]


def on_ranks(size: int, function: str, argument: Any, *, within_s: float = 120.0) -> list[Any]:
    """`function` is `module:name`, called with its RankPlace and the argument; answers by rank."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        Path(folder, "argument").write_bytes(pickle.dumps(argument))
        command = [sys.executable, "-m", __name__, function, folder, str(size), str(port)]
        ranks = [
            _started([*command, str(rank)], Path(folder, f"log{rank}")) for rank in range(size)
        ]
        try:
            codes = [rank.wait(timeout=within_s) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        logs = [Path(folder, f"log{rank}").read_text() for rank in range(size)]
        assert not any(codes), "\n".join(f"== rank {r} ==\n{log}" for r, log in enumerate(logs))
        return [pickle.loads(Path(folder, f"answer{rank}").read_bytes()) for rank in range(size)]


def _started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    own = {
        "PYTHONPATH": f"{ROOT}:" + os.environ.get("PYTHONPATH", ""),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("w") as file:
        return subprocess.Popen(
            command, env={**os.environ, **own}, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
        )


def main() -> None:
    function, folder, size, port, rank = sys.argv[1:]
    place = RankPlace(rank=int(rank), size=int(size), address="127.0.0.1", port=int(port))
    module, _, name = function.partition(":")
    argument = pickle.loads(Path(folder, "argument").read_bytes())
    answer = getattr(importlib.import_module(module), name)(place, argument)
    Path(folder, f"answer{rank}").write_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    main()
