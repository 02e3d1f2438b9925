"""Each extra of pyproject.toml gives its platform versions that fit together, and other platforms nothing."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

MAC = {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin", "os_name": "posix"}
INTEL_MAC = MAC | {"platform_machine": "x86_64"}
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
ARM_LINUX = LINUX | {"platform_machine": "aarch64"}
WINDOWS = {"sys_platform": "win32", "platform_machine": "AMD64", "platform_system": "Windows", "os_name": "nt"}
CONSTRAINTS = {extra: f"constraints/{extra}" for extra in EXTRAS} | {"bench": "constraints"}
WHEELS = {"darwin": ["macosx_14_0_arm64"], "linux": [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]}

each_set = pytest.mark.parametrize(
    ("extra", "platform", "python"),
    [
        *[("metal", MAC, python) for python in ("3.11", "3.12", "3.13")],
        *[("apple", MAC, python) for python in ("3.12", "3.13")],
        *[("cuda12", LINUX, "3.12"), ("cuda13", LINUX, "3.11"), ("bench", LINUX, "3.12")],
    ],
)


def select(lines, platform, python):
    """Return the requirements among `lines` that apply on a platform, by name."""
    environment = platform | {"python_version": python, "python_full_version": f"{python}.0"}
    environment |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    by_name = {}
    for each in map(Requirement, lines):
        if each.marker is None or each.marker.evaluate(environment):
            by_name.setdefault(canonicalize_name(each.name), []).append(each)
    return by_name


def requirements(extra, platform, python):
    """Return what `pip install jaxlm[extra]` requires, by name."""
    return select([*PROJECT["dependencies"], *EXTRAS[extra]], platform, python)


def pinned_versions(name, platform, python):
    """Return the versions that a file of constraints pins on a platform, by name."""
    lines = (SCRIPTS / f"{name}.txt").read_text("utf-8").splitlines()
    pins = select([line for line in lines if not line.startswith("#")], platform, python)
    specifiers = {name: str(each.specifier) for name, (each,) in pins.items()}
    assert all(specifier.startswith("==") for specifier in specifiers.values())
    return {name: specifier.removeprefix("==") for name, specifier in specifiers.items()}


def test_extras_require_nothing_on_other_platforms():
    for platform in (LINUX, ARM_LINUX, WINDOWS, INTEL_MAC):
        assert select([*EXTRAS["metal"], *EXTRAS["apple"]], platform, "3.12") == {}
    for extra in ("cuda12", "cuda13"):
        assert select(EXTRAS[extra], MAC, "3.12") == select(EXTRAS[extra], WINDOWS, "3.12") == {}
        for platform in (LINUX, ARM_LINUX):
            assert [each.extras for each in select(EXTRAS[extra], platform, "3.12")["jax"]] == [{extra}]


@pytest.mark.parametrize(
    ("extra", "plugin", "jax"), [("metal", "jax-metal", "0.5.0"), ("apple", "metaljax", "0.11.2")]
)
def test_apple_extras_require_a_compatible_jax(extra, plugin, jax):
    required = requirements(extra, MAC, "3.12")
    versions = ["0.4.38", "0.5.0", "0.5.1", "0.10.2", "0.11.2", "0.12.0"]
    assert plugin in required
    assert [version for version in versions if all(version in each.specifier for each in required["jax"])] == [jax]


@each_set
def test_pinned_versions_satisfy_the_extra(extra, platform, python):
    versions = pinned_versions(CONSTRAINTS[extra], platform, python)
    for name, required in requirements(extra, platform, python).items():
        assert all(versions[name] in each.specifier for each in required), f"{name} {versions[name]}: {required}"


@pytest.mark.parametrize(
    ("python", "jax"), [("3.11", "jax>=0.10.2"), ("3.12", "jax>=0.12"), ("3.13", "jax>=0.12")]
)
def test_default_versions_have_a_new_jax(python, jax):
    versions = pinned_versions("constraints", LINUX, python)
    for name, required in requirements("dev", LINUX, python).items():
        assert name == "jaxlm" or all(versions[name] in each.specifier for each in required)
    assert versions["jax"] in Requirement(jax).specifier


def test_oldest_jax_is_tested_with_the_versions_of_metal():
    versions = pinned_versions("constraints/metal", LINUX, "3.11")
    assert versions == pinned_versions("constraints/metal", MAC, "3.11")
    assert f"jax>={versions['jax']}" in PROJECT["dependencies"]


@pytest.mark.parametrize("path", [SCRIPTS / "constraints.txt", *SCRIPTS.glob("constraints/*.txt")], ids=str)
def test_constraints_have_a_command_and_no_index(path):
    text = path.read_text("utf-8")
    assert any(line.startswith("#") and "uv pip compile" in line for line in text.splitlines())
    assert "://" not in text


@pytest.fixture(scope="module")
def newest_pip(tmp_path_factory):
    """Return a function that runs a pip new enough to resolve by metadata alone, without downloading gigabytes."""
    directory = tmp_path_factory.mktemp("pip")

    def run(*words):
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *words]
        environment = os.environ | {"PYTHONPATH": str(directory)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = run("--quiet", "--target", directory, "pip>=26")
    if done.returncode != 0:
        assert not os.environ.get("CI"), done.stderr
        pytest.skip(f"NO EXTRA WAS RESOLVED WITHOUT A PACKAGE INDEX: {done.stderr.strip()[-200:]}")
    return run


@pytest.mark.stress
@each_set
def test_pip_resolves_the_extra(extra, platform, python, newest_pip, tmp_path):
    """To the pinned versions, from wheels alone."""
    versions = pinned_versions(CONSTRAINTS[extra], platform, python)
    required = requirements(extra, platform, python)
    lines = [each for several in required.values() for each in several]
    for each in lines:
        each.marker = None  # pip would evaluate it for this machine
    (tmp_path / "constraints.txt").write_text("\n".join(map("==".join, versions.items())), "utf-8")
    (tmp_path / "requirements.txt").write_text("\n".join(map(str, lines)), "utf-8")
    done = newest_pip(
        *("--dry-run", "--ignore-installed", "--only-binary=:all:", "--use-feature=fast-deps"),
        *("--implementation", "cp", "--python-version", python, "--target", tmp_path / "target"),
        *(word for tag in WHEELS[platform["sys_platform"]] for word in ("--platform", tag)),
        *("--constraint", tmp_path / "constraints.txt", "--requirement", tmp_path / "requirements.txt"),
        *("--report", tmp_path / "report.json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    packages = [each["metadata"] for each in report["install"]]
    found = {canonicalize_name(each["name"]): each["version"] for each in packages}
    assert found.items() <= versions.items()
    assert required.keys() <= found.keys()
