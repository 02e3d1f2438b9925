"""Create, replace and protect run directories; record how a run ends."""

import errno
import os
import re
import socket
from datetime import datetime
from pathlib import Path
from unittest.mock import Mock, patch

import jax
import pytest
from tiny_runs import read_json

from jaxlm.runs.directory import check_run_path, create_run, new_run_path, run_session
from jaxlm.runs.lock import lock_run
from jaxlm.runs.manifest import read_manifest

CPU = jax.devices("cpu")[0]


def finish_run(path, config=None, *, overwrite=False):
    with create_run(path, "train", config or {}, CPU, overwrite=overwrite):
        pass
    return path


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_create_run_writes_config_and_manifest(tmp_path):
    path = tmp_path / "a" / "run"
    details = {"corpus": {"sha256": "0f"}}
    with create_run(path, "train", {"seed": 3, "prompt": "é", "k": float("inf")}, CPU, **details) as run:
        assert run == path
        config = {"seed": 3, "prompt": "é", "k": None}
        assert read_json(path / "config.json") == config
        manifest = read_manifest(path)
    expected = {"kind": "train", "config": config, "corpus": {"sha256": "0f"}, "sessions": 1, "notes": []}
    expected |= {"state": "running", "why": None, "ended": None}
    expected |= {"process": {"pid": os.getpid(), "host": socket.gethostname()}}
    assert manifest.items() >= expected.items()
    assert manifest["versions"]["jax"] == jax.__version__
    manifest = read_manifest(path)
    assert (manifest["state"], manifest["why"]) == ("done", None)
    assert datetime.fromisoformat(manifest["started"]) <= datetime.fromisoformat(manifest["ended"])
    assert 0 < manifest["seconds"] < 60


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (KeyboardInterrupt("SIGTERM"), "interrupted", "SIGTERM"),
        (FloatingPointError("loss is nan at step 3\nand more"), "failed", "loss is nan at step 3"),
        (ValueError("x" * 9999), "failed", "x" * 500),
    ],
    ids=repr,
)
def test_create_run_records_how_the_block_ends(tmp_path, error, state, why):
    with pytest.raises(type(error)) as raised, create_run(tmp_path / "run", "train", {}, CPU):
        raise error
    assert raised.value is error
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["state"], manifest["why"]) == (state, why)
    assert manifest["ended"] is not None
    finish_run(tmp_path / "run", overwrite=True)  # the lock is released


def test_run_session_counts_sessions_and_adds_seconds(tmp_path, monkeypatch):
    first = read_manifest(finish_run(tmp_path)) | {"seconds": 100.0}
    with lock_run(tmp_path), run_session(tmp_path, first | {"notes": ["resumed"]}, CPU):
        running = read_manifest(tmp_path)
        monkeypatch.setattr("time.time", lambda: 1e9)  # a clock that was set back
    assert (running["state"], running["ended"], running["seconds"]) == ("running", None, 100.0)
    second = read_manifest(tmp_path)
    assert (second["sessions"], second["started"], second["notes"]) == (2, first["started"], ["resumed"])
    assert 100 < second["seconds"] < 160


def test_new_run_path_is_new_and_sorts_by_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [new_run_path("ladder") for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(path.is_dir() for path in paths)
    assert all(re.fullmatch(r"runs/ladder-\d{8}-\d{6}(-[23])?", path.as_posix()) for path in paths)


def test_create_run_replaces_a_run_only_with_overwrite(tmp_path):
    (tmp_path / "run").mkdir()
    run = finish_run(tmp_path / "run", {"seed": 1})  # an empty directory is accepted
    (run / "results.json").write_text("{}")
    (run / "models" / "mlp").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="overwrite"):
        finish_run(run, {"seed": 2})
    assert read_json(run / "config.json")["seed"] == 1
    finish_run(run, {"seed": 2}, overwrite=True)
    assert read_json(run / "config.json")["seed"] == read_manifest(run)["config"]["seed"] == 2
    assert names_in(run) == [".lock", "config.json", "manifest.json"]


@pytest.mark.parametrize(
    "manifest",
    [None, "[" * 100_000, '{"kind": "someone else\'s"}'],
)
def test_create_run_never_replaces_another_directory(tmp_path, manifest):
    (tmp_path / "thesis.txt").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(FileExistsError, match="is not a run directory"):
        finish_run(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert ".lock" not in names_in(tmp_path)


def test_check_run_path_never_replaces_a_file(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(FileExistsError, match="is not a run directory"):
        check_run_path(tmp_path / "run", overwrite=True)


def test_create_run_keeps_a_file_that_appears_meanwhile(tmp_path, monkeypatch):
    run = finish_run(tmp_path / "run", {"seed": 1})
    make_directory = Path.mkdir

    def add_a_file(path, **options):
        make_directory(path, **options)
        (path / "notes.txt").write_text("what I saw")

    monkeypatch.setattr(Path, "mkdir", add_a_file)
    with pytest.raises(FileExistsError, match=r"'notes\.txt'"):
        finish_run(run, {"seed": 2}, overwrite=True)
    assert read_json(run / "config.json")["seed"] == 1


def test_overwrite_follows_no_links_inside_the_run(tmp_path):
    run = finish_run(tmp_path / "run", {"seed": 1})
    (tmp_path / "link").symlink_to(run)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    (run / "models").symlink_to(tmp_path / "thesis")
    finish_run(tmp_path / "link", {"seed": 2}, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert read_json(run / "config.json")["seed"] == 2
    assert names_in(run) == [".lock", "config.json", "manifest.json"]
    assert (tmp_path / "thesis" / "thesis.txt").read_text() == "years of work"


def test_temporary_files_are_ignored_and_removed(tmp_path):
    temporary = f".{'0a' * 16}"
    (tmp_path / ".lock").write_text("")
    (tmp_path / temporary).mkdir()
    (tmp_path / temporary / "arrays").write_text("incomplete")
    (tmp_path / f".{'1b' * 16}").write_text('{"half":')
    of_macos = [".DS_Store", "._manifest.json"]
    for name in of_macos:
        (tmp_path / name).write_bytes(b"\x00")
    check_run_path(tmp_path, overwrite=False)
    manifest = read_manifest(finish_run(tmp_path))
    assert names_in(tmp_path) == [*of_macos, ".lock", "config.json", "manifest.json"]
    for folder in (tmp_path, tmp_path / "checkpoints"):
        (folder / temporary).mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-0000000001").mkdir()
    with lock_run(tmp_path), run_session(tmp_path, manifest, CPU):
        pass
    assert names_in(tmp_path) == [*of_macos, ".lock", "checkpoints", "config.json", "manifest.json"]
    assert names_in(tmp_path / "checkpoints") == ["step-0000000001"]


def test_a_crash_while_replacing_leaves_a_run_without_sessions(tmp_path, monkeypatch):
    run = finish_run(tmp_path / "run", {"seed": 1})
    with monkeypatch.context() as patches:
        patches.setattr(Path, "unlink", Mock(side_effect=OSError(errno.EIO, "the disk is broken")))
        with pytest.raises(OSError, match="the disk is broken"):
            finish_run(run, {"seed": 2}, overwrite=True)
    manifest = read_manifest(run)
    assert (manifest["sessions"], manifest["config"]) == (0, {"seed": 2})
    finish_run(run, {"seed": 3}, overwrite=True)
    assert read_manifest(run)["config"] == {"seed": 3}


@pytest.mark.parametrize("error", [FloatingPointError("loss is nan at step 3"), None])
def test_a_disk_full_at_the_end_does_not_hide_the_error(tmp_path, error):
    def run_until_the_disk_is_full():
        with patch("os.fsync") as fsync, create_run(tmp_path, "train", {}, CPU):
            fsync.side_effect = OSError(errno.ENOSPC, "No space left on device")
            if error:
                raise error

    with pytest.raises(type(error or OSError()), match=str(error) if error else r"manifest\.json"):
        run_until_the_disk_is_full()
    assert read_manifest(tmp_path)["state"] == "killed"


@pytest.mark.skipif(os.name == "nt", reason="on Windows a directory with an open file cannot be moved")
def test_a_run_that_is_moved_fails_and_is_not_created_again(tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved"
    with pytest.raises(FileNotFoundError, match=r"run/manifest"), create_run(run, "train", {}, CPU):  # noqa: PT012
        run.rename(moved)
        assert read_manifest(moved)["state"] == "running"  # the lock moved too
    assert read_manifest(moved)["state"] == "killed"
    assert not run.exists()
