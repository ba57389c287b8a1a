"""Workers get their code from a folder of wheels: no network, no pip, no shared disk."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename


def runtime_env(wheels: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Ray's runtime_env: `extra` as it is given, and before its py_modules what the wheels hold.

    Ray would install a wheel with pip, which looks its dependencies up on an index. Unpacked it is a
    folder of modules, which Ray carries to the nodes itself; what it depends on is there already, or
    is a wheel of the same folder.
    """
    found = dict(extra)
    if wheels:
        modules = [str(part) for wheel in _wheels(Path(wheels)) for part in _unpacked(wheel)]
        found["py_modules"] = [*modules, *found.get("py_modules", [])]
    return found


def _wheels(folder: Path) -> list[Path]:
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise ValueError(
            f"cluster.wheels is a folder with wheels in it; {folder} has none; make one with "
            f"`pip wheel --no-deps -w {folder} .`"
        )
    here = set(sys_tags())
    for wheel in wheels:
        try:
            tags = parse_wheel_filename(wheel.name)[3]
        except InvalidWheelFilename as error:
            raise ValueError(
                f"cluster.wheels has files named as pip names them; got {wheel.name}; rename it"
            ) from error
        if not tags & here:
            raise ValueError(
                f"cluster.wheels are for this Python and platform; {wheel.name} is not; remove it"
            )
    return wheels


def _unpacked(wheel: Path) -> list[Path]:
    """What lies at the top of a wheel; kept until this process ends, for Ray reads it later."""
    folder = Path(tempfile.mkdtemp(prefix="moesd-wheel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{wheel} is no wheel ({error}); build it again") from error
    return sorted(part for part in folder.iterdir() if part.suffix != ".data")
