"""Prints what every node of a cluster needs in its environment before `ray start`.

    eval "$(python -m jobs.cluster_env --token-file ~/.ray/auth_token)"

Health checks that notice a dead node within 5 s and a cut link within 10 s, and token authentication.
The file is made, readable by its owner alone, if it is not there; the token is never printed. All
nodes need the same token: a file on a shared disk, or a copy of it on each.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from moesd_dist.sweep.cluster.environment import health_environment, token_file


def node_environment(given: Mapping[str, str], token: Path) -> dict[str, str]:
    """What is set already stays, but for the token's file."""
    wanted = {**health_environment(), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
    kept = {name: given.get(name, value) for name, value in wanted.items()}
    return kept | {"RAY_AUTH_TOKEN_PATH": str(token)}


def exports(environment: Mapping[str, str]) -> str:
    """Lines for a shell to evaluate."""
    return "\n".join(f"export {name}={shlex.quote(v)}" for name, v in environment.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--token-file", type=Path, help="default: ~/.ray/auth_token, as Ray's own")
    options = parser.parse_args()
    given = options.token_file
    try:
        token = token_file(given.expanduser().absolute() if given else None)
    except ValueError as error:
        parser.error(str(error))
    print(exports(node_environment(os.environ, token)))


if __name__ == "__main__":
    main()
