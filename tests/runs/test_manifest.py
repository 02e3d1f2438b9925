"""Read and check manifests; a killed run differs from a running one."""

import json
import os
import shutil
import subprocess

import jax
import pytest

from jaxlm.runs.directory import create_run
from jaxlm.runs.lock import lock_run
from jaxlm.runs.manifest import describe_environment, read_manifest, write_manifest

CPU = jax.devices("cpu")[0]


@pytest.fixture
def run(tmp_path):
    with create_run(tmp_path / "run", "train", {"seed": 1}, CPU) as path:
        pass
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [(b'"seed": 1', b'"seed": 0', "checksum mismatch"), (b'"version": 1', b'"version": 2', r"version.* 2\b")],
)
def test_read_manifest_rejects_damage(old, new, message, run):
    path = run / "manifest.json"
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(ValueError, match=rf"manifest\.json .*{message}"):
        read_manifest(run)


@pytest.mark.parametrize("name", ["none", "file", "empty"])
def test_read_manifest_rejects_other_paths(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"{name} is not a run directory"):
        read_manifest(tmp_path / name)


def test_read_manifest_recognizes_a_killed_run(run):
    manifest = read_manifest(run)
    write_manifest(run, manifest | {"state": "running"})
    with lock_run(run):
        assert read_manifest(run)["state"] == "running"
    assert read_manifest(run)["state"] == "killed"
    (run / ".lock").unlink()  # a copy without hidden files
    assert read_manifest(run)["state"] == "killed"


def test_read_manifest_of_a_run_that_ends_meanwhile(run, monkeypatch):
    done = read_manifest(run)
    write_manifest(run, done | {"state": "running"})
    open_file = os.open

    def finish_before_the_lock(path, *arguments):
        if str(path).endswith(".lock"):
            write_manifest(run, done)
        return open_file(path, *arguments)

    monkeypatch.setattr(os, "open", finish_before_the_lock)
    assert read_manifest(run)["state"] == "done"


def test_describe_environment_names_versions_and_device(monkeypatch):
    environment = describe_environment(CPU)
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["device"] == {"platform": "cpu", "kind": CPU.device_kind}
    json.dumps(environment)
    monkeypatch.setenv("PATH", os.devnull)
    assert describe_environment(CPU)["git"] is None


@pytest.mark.slow
def test_describe_environment_names_the_commit(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in [name for name in os.environ if name.startswith("GIT_")]:  # set by a hook that runs the tests
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

    def git(*arguments):
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.chdir(tmp_path)
    assert describe_environment(CPU)["git"] is None
    git("init")
    assert describe_environment(CPU)["git"] is None  # no commit yet
    (tmp_path / "code.py").write_text("x = 1")
    git("add", "code.py")
    git("commit", "-m", "x")
    (tmp_path / "untracked.txt").write_text("")
    commit = git("rev-parse", "HEAD")
    assert describe_environment(CPU)["git"] == {"commit": commit, "modified": False}
    (tmp_path / "code.py").write_text("x = 2")
    assert describe_environment(CPU)["git"] == {"commit": commit, "modified": True}
