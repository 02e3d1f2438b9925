"""The extras of pyproject.toml: each gives its platform a set that fits together, and every other one nothing."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

MAC = {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin", "os_name": "posix"}
INTEL_MAC = MAC | {"platform_machine": "x86_64"}
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
ARM_LINUX = LINUX | {"platform_machine": "aarch64"}
WINDOWS = {"sys_platform": "win32", "platform_machine": "AMD64", "platform_system": "Windows", "os_name": "nt"}

# An extra, the platform that it is for, a Python there, and what pip calls the wheels that run on it.
MACOS = ["macosx_14_0_arm64"]
MANYLINUX = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
SETS = [
    ("metal", MAC, "3.11", MACOS),
    ("metal", MAC, "3.12", MACOS),
    ("metal", MAC, "3.13", MACOS),
    ("apple", MAC, "3.12", MACOS),
    ("apple", MAC, "3.13", MACOS),
    ("cuda12", LINUX, "3.12", MANYLINUX),
    ("cuda13", LINUX, "3.11", MANYLINUX),
]
each_set = pytest.mark.parametrize(
    ("extra", "platform", "python", "tags"), SETS, ids=[f"{extra}-{python}" for extra, _, python, _ in SETS]
)


def fitting(lines, platform, python):
    """The requirements among `lines` that a platform's Python meets, by name."""
    environment = platform | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate(environment)]
    by_name = {}
    for each in found:
        by_name.setdefault(canonicalize_name(each.name), []).append(each)
    return by_name


def installed(extra, platform, python):
    """What pip is asked for by `jaxlm[extra]`."""
    return fitting([*PROJECT["dependencies"], *EXTRAS[extra]], platform, python)


def kept(path, platform, python):
    """The versions that a file of constraints gives a platform, by name."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    pins = {name: str(each.specifier) for name, (each,) in fitting(lines, platform, python).items()}
    assert all(pin.startswith("==") for pin in pins.values())
    return {name: pin.removeprefix("==") for name, pin in pins.items()}


@pytest.mark.parametrize("extra", ["metal", "apple"])
@pytest.mark.parametrize("platform", [LINUX, ARM_LINUX, WINDOWS, INTEL_MAC])
def test_an_extra_for_apple_gpus_asks_for_nothing_elsewhere(extra, platform):
    assert fitting(EXTRAS[extra], platform, "3.12") == {}


@pytest.mark.parametrize("extra", ["cuda12", "cuda13"])
def test_an_extra_for_nvidia_gpus_asks_for_nothing_without_cuda(extra):
    assert fitting(EXTRAS[extra], MAC, "3.12") == fitting(EXTRAS[extra], WINDOWS, "3.12") == {}
    for platform in (LINUX, ARM_LINUX):
        assert [each.extras for each in fitting(EXTRAS[extra], platform, "3.12")["jax"]] == [{extra}]


@pytest.mark.parametrize(
    ("extra", "plugin", "runs_on", "fails_on"),
    [
        ("metal", "jax-metal", "0.5.0", ["0.4.38", "0.5.1", "0.12.0"]),
        ("apple", "metaljax", "0.11.2", ["0.10.2", "0.12.0"]),
    ],
)
def test_a_mac_gets_a_plugin_and_a_jax_that_it_runs_on(extra, plugin, runs_on, fails_on):
    asked = installed(extra, MAC, "3.12")
    assert plugin in asked
    fits = [version for version in (runs_on, *fails_on) if all(version in each.specifier for each in asked["jax"])]
    assert fits == [runs_on]


@each_set
def test_the_kept_set_is_what_the_extra_asks_for(extra, platform, python, tags):
    versions = kept(SCRIPTS / "constraints" / f"{extra}.txt", platform, python)
    for name, asked in installed(extra, platform, python).items():
        assert all(versions[name] in each.specifier for each in asked), f"{name} {versions[name]}: {asked}"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_default_set_is_of_the_newest_jax_for_its_python(python):
    versions = kept(SCRIPTS / "constraints.txt", LINUX, python)
    assert Version(versions["jax"]) >= Version("0.10.2" if python == "3.11" else "0.12")
    for name, asked in installed("dev", LINUX, python).items():
        assert name == "jaxlm" or all(versions[name] in each.specifier for each in asked)


def test_the_line_of_the_oldest_jax_is_the_set_that_a_mac_gets():
    assert "old) constraints=scripts/constraints/metal.txt" in (SCRIPTS / "test-lines").read_text("utf-8")
    here, there = (kept(SCRIPTS / "constraints" / "metal.txt", platform, "3.11") for platform in (LINUX, MAC))
    assert here == there
    assert f"jax>={here['jax']}" in PROJECT["dependencies"]


@pytest.mark.parametrize("extra", ["metal", "apple", "cuda12", "cuda13", None])
def test_a_file_of_constraints_says_how_to_renew_it_and_names_no_index(extra):
    path = SCRIPTS / "constraints" / f"{extra}.txt" if extra else SCRIPTS / "constraints.txt"
    text = path.read_text("utf-8")
    assert "uv pip compile" in text.partition("\nabsl")[0]
    assert "://" not in text
    assert all(line.startswith("#") or "==" in line for line in text.splitlines())


@pytest.fixture(scope="module")
def newest_pip(tmp_path_factory):
    """A command that resolves by what a wheel's own file says, without all of its gigabytes."""
    folder = tmp_path_factory.mktemp("pip")
    pip = [sys.executable, "-m", "pip"]
    done = subprocess.run(
        [*pip, "install", "--quiet", "--disable-pip-version-check", "--target", folder, "pip>=26"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        message = f"NO EXTRA WAS RESOLVED, FOR THERE IS NO PACKAGE INDEX: {done.stderr.strip()[-200:]}"
        assert not os.environ.get("CI"), message
        pytest.skip(message)

    def run(*words):
        return subprocess.run(
            [*pip, *words],
            env=os.environ | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.slow
@each_set
def test_pip_finds_the_kept_set_for_its_platform(extra, platform, python, tags, newest_pip, tmp_path):
    """By wheels alone. What markers let through is decided here: pip would take them for this machine's."""
    versions = kept(SCRIPTS / "constraints" / f"{extra}.txt", platform, python)
    (tmp_path / "constraints.txt").write_text("\n".join(map("==".join, versions.items())), "utf-8")
    asked = [each for several in installed(extra, platform, python).values() for each in several]
    for each in asked:
        each.marker = None
    (tmp_path / "requirements.txt").write_text("\n".join(map(str, asked)), "utf-8")
    done = newest_pip(
        *("install", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--use-feature=fast-deps"),
        *("--implementation", "cp", "--python-version", python, "--target", tmp_path / "target"),
        *(word for tag in tags for word in ("--platform", tag)),
        *("--constraint", tmp_path / "constraints.txt", "--requirement", tmp_path / "requirements.txt"),
        *("--report", tmp_path / "report.json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    found = {
        canonicalize_name(each["metadata"]["name"]): each["metadata"]["version"] for each in report["install"]
    }
    assert found.items() <= versions.items()
    assert installed(extra, platform, python).keys() <= found.keys()
