"""A run's folder is one process's at a time, is never taken from another, and never says what is not so."""

import contextlib
import errno
import json
import logging
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import filelock
import jax
import pytest

from jaxlm.runs import directory as runs
from jaxlm.runs.directory import check_run_path, create_run, is_run, new_run_path, run_session
from jaxlm.runs.lock import lock_run
from jaxlm.runs.manifest import describe_environment, read_manifest, write_json, write_manifest
from jaxlm.runs.metrics_log import append_metrics
from jaxlm.runs.summary import list_runs, summarise_run
from jaxlm.utils.checksums import add_checksum

CPU = jax.devices("cpu")[0]
NOBODY = 65534
ROW = {
    "title": "MLP",
    "nats_per_token": 4.5,
    "perplexity": 90.0,
    "bits_per_byte": 2.1,
    "train_seconds": 3.0,
}
NO_FIGURES = dict.fromkeys(("nats_per_token", "perplexity", "bits_per_byte", "train_seconds"))

# A process of its own that works in the run at its argument until it is killed.
WORKER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from jaxlm.runs import create_run

with create_run(Path(sys.argv[1]), "train", {"seed": 1}, SimpleNamespace(platform="cpu", device_kind="cpu")):
    print("ready", flush=True)
    time.sleep(600)
"""

# A reader of its own, who knows nothing of jaxlm: JSON must be whole, and the same number in each of its places.
READER = """
import json, sys
from pathlib import Path

folder, reads = Path(sys.argv[1]), 0
print("ready", flush=True)
while not (folder / "stop").exists():
    for name in ("manifest.json", "results.json"):
        numbers = json.loads((folder / name).read_text("utf-8"))["config"]
        assert len(numbers) == 2000 and len(set(numbers)) == 1, f"{name} is torn"
        reads += 1
print(reads)
"""


def finished_run(path, config=None, *, kind="train", overwrite=False):
    with create_run(path, kind, config or {}, CPU, overwrite=overwrite):
        pass
    return path


def read(path):
    """JSON as a strict reader takes it: no Infinity, no NaN."""
    return json.loads(path.read_text("utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


@contextlib.contextmanager
def process_running(program, *arguments):
    """A process that has said that it is ready; it is killed at the end."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def become_nobody():
    try:
        os.seteuid(NOBODY)
    except PermissionError:
        pytest.skip("root writes everywhere, and may not become another here")


@contextlib.contextmanager
def only_readable(folder):
    """For the block the folder and its files may only be read: by root too, who is nobody for that time."""
    if os.name == "nt":
        pytest.skip("there, a folder's mode forbids nothing")
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            become_nobody()
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o644)


@pytest.fixture
def public_folder():
    """A folder that everybody may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def disk_full(path, *_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path / "manifest.json"))


def run_until_the_disk_is_full(path, monkeypatch, error=None):
    with create_run(path, "train", {}, CPU):
        monkeypatch.setattr(runs, "write_manifest", disk_full)
        if error is not None:
            raise error


# What a run begins with.


def test_a_run_begins_with_its_config_and_its_manifest(tmp_path):
    path = tmp_path / "a" / "run"
    facts = {"corpus": {"sha256": "0f"}}
    with create_run(path, "train", {"seed": 3, "prompt": "é"}, CPU, facts=facts) as run:
        assert run == path
        assert read(path / "config.json") == {"seed": 3, "prompt": "é"}
        manifest = read_manifest(path)
    assert manifest["kind"] == "train"
    assert manifest["config"] == {"seed": 3, "prompt": "é"}
    assert manifest["corpus"] == {"sha256": "0f"}
    assert manifest["sessions"] == 1
    assert manifest["process"] == {"pid": os.getpid(), "host": socket.gethostname()}
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["device"] == {"platform": "cpu", "kind": CPU.device_kind}
    assert (manifest["state"], manifest["why"], manifest["ended"]) == ("running", None, None)


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "run").mkdir()
    assert is_run(finished_run(tmp_path / "run"))


def test_numbers_that_json_lacks_become_null(tmp_path):
    document = {"a": math.inf, "b": [math.nan, 1.5], "c": (2, -math.inf)}
    write_json(tmp_path / "x.json", document)
    assert read(tmp_path / "x.json") == {"a": None, "b": [None, 1.5], "c": [2, None]}
    run = finished_run(tmp_path / "run", document)
    assert read(run / "manifest.json")["config"] == read_manifest(run)["config"] == read(tmp_path / "x.json")


def test_a_new_run_has_a_name_that_sorts_by_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(r"runs/ladder-\d{8}-\d{6}", new_run_path("ladder").as_posix())


def test_runs_of_the_same_second_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "datetime", SimpleNamespace(now=lambda *_: datetime(2026, 2, 3, 4, 5, 6)))
    paths = [new_run_path("ladder"), finished_run(new_run_path("ladder")), new_run_path("ladder")]
    assert [path.name for path in paths] == [
        "ladder-20260203-040506",
        "ladder-20260203-040506-2",
        "ladder-20260203-040506-3",
    ]
    assert all(path.is_dir() for path in paths)


def test_a_new_run_finds_no_place_where_runs_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    with pytest.raises(NotADirectoryError, match="runs"):
        new_run_path("ladder")


# What it never takes.


def test_a_run_is_replaced_only_when_asked(tmp_path):
    run = finished_run(tmp_path / "run", {"seed": 1})
    (run / "results.json").write_text("{}")
    (run / "models" / "mlp").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="--overwrite"):
        finished_run(run, {"seed": 2})
    assert read(run / "config.json")["seed"] == 1
    finished_run(run, {"seed": 2}, overwrite=True)
    assert read(run / "config.json")["seed"] == read_manifest(run)["config"]["seed"] == 2
    assert names_in(run) == [".lock", "config.json", "manifest.json"]


@pytest.mark.parametrize(
    "manifest",
    [None, "{}", "[" * 100_000, '{"kind": "someone else\'s"}', '["kind", "state", "sessions", "config"]'],
)
def test_a_folder_that_is_no_run_is_never_replaced(tmp_path, manifest):
    (tmp_path / "thesis.txt").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(FileExistsError, match="is no run's folder"):
        finished_run(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert ".lock" not in names_in(tmp_path)


def test_a_file_of_the_users_in_a_run_is_never_removed(tmp_path):
    run = finished_run(tmp_path / "run", {"seed": 1})
    (run / "notes.txt").write_text("what I saw")
    with pytest.raises(FileExistsError, match=r"'notes\.txt', which no run wrote"):
        finished_run(run, {"seed": 2}, overwrite=True)
    assert (run / "notes.txt").read_text() == "what I saw"
    assert read(run / "config.json")["seed"] == 1


def test_a_file_that_comes_before_the_lock_is_never_removed(tmp_path, monkeypatch):
    run = finished_run(tmp_path / "run", {"seed": 1})

    @contextlib.contextmanager
    def lock_after_a_while(path):
        (path / "notes.txt").write_text("what I saw")
        with lock_run(path):
            yield

    monkeypatch.setattr(runs, "lock_run", lock_after_a_while)
    with pytest.raises(FileExistsError, match=r"'notes\.txt', which no run wrote"):
        finished_run(run, {"seed": 2}, overwrite=True)
    assert read(run / "config.json")["seed"] == 1


def test_a_run_behind_a_link_is_replaced_where_it_lies(tmp_path):
    run = finished_run(tmp_path / "run", {"seed": 1})
    (tmp_path / "link").symlink_to(run)
    finished_run(tmp_path / "link", {"seed": 2}, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert read(run / "config.json")["seed"] == 2


def test_what_a_link_in_a_run_points_to_is_never_removed(tmp_path):
    run = finished_run(tmp_path / "run")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    (run / "models").symlink_to(tmp_path / "thesis")
    finished_run(run, overwrite=True)
    assert names_in(run) == [".lock", "config.json", "manifest.json"]
    assert (tmp_path / "thesis" / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_way_is_never_replaced(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(FileExistsError, match="no run"):
        check_run_path(tmp_path / "run", overwrite=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run cannot be written .* choose another --out"):
        finished_run(tmp_path / "file" / "run")


# How it ends.


def test_a_run_that_ends_is_done(tmp_path):
    run = finished_run(tmp_path / "run")
    manifest = read_manifest(run)
    assert (manifest["state"], manifest["why"]) == ("done", None)
    assert datetime.fromisoformat(manifest["started"]) <= datetime.fromisoformat(manifest["ended"])
    assert 0 < manifest["seconds"] < 60


@pytest.mark.parametrize(
    ("error", "state", "why"),
    [
        (KeyboardInterrupt("SIGTERM"), "interrupted", "SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (FloatingPointError("loss is nan at step 3\nand more"), "failed", "loss is nan at step 3"),
        (ValueError(), "failed", "ValueError"),
        (ValueError("x" * 9999), "failed", "x" * 500),
        (OSError("no \udce9"), "failed", "no \udce9"),
        (SystemExit(2), "failed", "2"),
    ],
    ids=repr,
)
def test_a_run_that_is_stopped_says_why(tmp_path, error, state, why):
    with pytest.raises(type(error)) as raised, create_run(tmp_path / "run", "train", {}, CPU):
        raise error
    assert raised.value is error
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["state"], manifest["why"]) == (state, why)
    assert manifest["ended"] is not None
    finished_run(tmp_path / "run", overwrite=True)  # nothing holds it any longer


def test_another_session_adds_to_the_seconds_and_is_counted(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: now))
    with create_run(tmp_path / "run", "train", {}, CPU):
        now += 5
    first = read_manifest(tmp_path / "run")
    with lock_run(tmp_path / "run"), run_session(tmp_path / "run", first | {"notes": ["gone on"]}, CPU):
        now += 7
        running = read_manifest(tmp_path / "run")
    assert (running["state"], running["ended"], running["seconds"]) == ("running", None, 5)
    second = read_manifest(tmp_path / "run")
    assert (first["sessions"], first["seconds"], second["sessions"], second["seconds"]) == (1, 5, 2, 12)
    assert second["started"] == first["started"]
    assert second["notes"] == ["gone on"]


@pytest.mark.skipif(os.name == "nt", reason="there, no signal kills")
@pytest.mark.slow
def test_a_run_in_another_process(tmp_path):
    """Refused as long as that works in it; killed, the run says so, and its lock died with it."""
    run = tmp_path / "run"
    with process_running(WORKER, run) as process:
        assert read_manifest(run)["state"] == "running"
        assert summarise_run(run)["state"] == "running"
        told = rf"another process works in .*run \(process {process.pid} on {re.escape(socket.gethostname())}\)"
        with pytest.raises(BlockingIOError, match=told):
            finished_run(run, {"seed": 2}, overwrite=True)
        with pytest.raises(BlockingIOError, match=told), lock_run(run):
            pass
        with pytest.raises(FileExistsError, match="holds a run"):
            finished_run(run)
        assert read(run / "config.json")["seed"] == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert read(run / "manifest.json")["state"] == "running"
    assert read_manifest(run)["state"] == "killed"
    assert read_manifest(run)["ended"] is None
    assert summarise_run(run)["state"] == "killed"
    finished_run(run, {"seed": 2}, overwrite=True)
    assert read_manifest(run)["config"]["seed"] == 2


# Two at once.


def test_a_second_thread_is_refused(tmp_path):
    def take():
        with pytest.raises(BlockingIOError, match=rf"process {os.getpid()} on .*wait until it ends"):
            finished_run(tmp_path, {"seed": 2}, overwrite=True)

    with create_run(tmp_path, "train", {"seed": 1}, CPU), ThreadPoolExecutor(1) as executor:
        executor.submit(take).result()
    assert read_manifest(tmp_path)["config"]["seed"] == 1


def test_who_works_in_it_is_named_only_where_that_is_known(tmp_path):
    """The manifest is of the last session until the next has written its own."""
    finished_run(tmp_path)
    refused = pytest.raises(BlockingIOError, match=r"another process works in \S+; wait")
    with filelock.FileLock(tmp_path / ".lock"), refused, lock_run(tmp_path):
        pass


def test_the_lock_is_waited_for_as_long_as_a_reader_may_hold_it(tmp_path):
    held = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    held.acquire()
    threading.Timer(0.2, held.release).start()
    with lock_run(tmp_path):
        assert not held.is_locked


@contextlib.contextmanager
def readers(path):
    """Three threads that read the run's manifest all the time, and the states that they saw by the block's end."""
    seen, stop = set(), threading.Event()

    def keep_reading():
        while not stop.is_set():
            seen.add(read_manifest(path)["state"])

    with ThreadPoolExecutor(3) as executor:
        futures = [executor.submit(keep_reading) for _ in range(3)]
        try:
            yield seen
        finally:
            stop.set()
        for future in futures:
            future.result()


def test_readers_never_make_a_writer_fail_and_never_take_one_another_for_one(tmp_path):
    run = finished_run(tmp_path)
    write_manifest(run, read_manifest(run) | {"state": "running"})
    with readers(run) as seen:
        time.sleep(0.3)
    assert seen == {"killed"}
    with readers(run):
        for _ in range(20):
            with lock_run(run):
                pass


def test_a_run_that_ends_while_it_is_read_was_not_killed(tmp_path, monkeypatch):
    run = finished_run(tmp_path / "run")
    done = read_manifest(run)
    write_manifest(run, done | {"state": "running"})
    nobody_writes = runs.try_shared_lock

    def after_it_ended(path):
        write_manifest(run, done)
        return nobody_writes(path)

    monkeypatch.setattr(runs, "_nobody_writes", after_it_ended)
    assert read_manifest(run)["state"] == "done"


def test_nobody_begins_while_a_reader_decides_that_a_run_was_killed(tmp_path):
    finished_run(tmp_path)
    with runs.try_shared_lock(tmp_path) as is_sure:
        assert is_sure
        with pytest.raises(BlockingIOError), lock_run(tmp_path):
            pass
    with lock_run(tmp_path):
        pass


@pytest.mark.slow
def test_a_reader_in_another_process_sees_whole_files_at_every_moment(tmp_path):
    manifest = read_manifest(finished_run(tmp_path))

    def write_both(number):
        write_manifest(tmp_path, manifest | {"config": [number] * 2000})
        write_json(tmp_path / "results.json", {"config": [number] * 2000})

    write_both(0)
    with process_running(READER, tmp_path) as process:
        for number in range(200):
            write_both(number)
        (tmp_path / "stop").write_text("")
        output, _ = process.communicate()
    assert process.returncode == 0
    assert int(output) > 10
    (tmp_path / "stop").unlink()
    assert names_in(tmp_path) == [".lock", "config.json", "manifest.json", "results.json"]


# Faults.


def flipped(content):
    middle = content.index(b'"seed": 1') + len(b'"seed": ')
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped, r"manifest\.json is damaged: checksum mismatch"),
        (lambda content: content[:-20], r"manifest\.json is damaged: it is not valid JSON"),
        (lambda content: b"", r"manifest\.json is damaged: it is not valid JSON"),
        (lambda content: b"[1]", r"manifest\.json is not a run's manifest of version 1"),
        (
            lambda content: content.replace(b'"version": 1', b'"version": 2'),
            r"manifest\.json is not .* version 1 \(version: 2\).* use the jaxlm that wrote it",
        ),
        (
            lambda content: re.sub(rb',\s+"sha256": "\w+"', b"", content),
            r"manifest\.json is damaged: it has no sha256",
        ),
        (
            lambda content: add_checksum({"version": 1, "kind": "train"}).encode(),
            r"manifest\.json is damaged: its fields",
        ),
    ],
    ids=["flipped", "truncated", "empty", "list", "newer", "unsealed", "fields"],
)
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path, damage, message):
    run = finished_run(tmp_path / "run", {"seed": 1})
    content = (run / "manifest.json").read_bytes()
    damaged = damage(content)
    assert damaged != content
    (run / "manifest.json").write_bytes(damaged)
    with pytest.raises(ValueError, match=message):
        read_manifest(run)
    summary = summarise_run(run)
    assert (summary["run"], summary["state"], summary["kind"]) == ("run", "damaged", None)
    assert re.search(message, summary["why"])
    assert [each["state"] for each in list_runs(tmp_path)] == ["damaged"]


@pytest.mark.parametrize("field", ["state", "why", "sessions", "seconds", "notes"])
def test_every_field_that_another_session_needs_is_checked(tmp_path, field):
    manifest = read_manifest(finished_run(tmp_path))
    write_manifest(tmp_path, manifest | {field: {}})
    with pytest.raises(ValueError, match="its fields are not those of a run"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("path", ["none", "file", "empty"])
def test_no_run_is_said_to_be_none(tmp_path, path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"{path} holds no run: manifest.json is missing"):
        read_manifest(tmp_path / path)
    assert not is_run(tmp_path / path)


def test_a_moved_run_is_read_where_it_lies(tmp_path):
    run = finished_run(tmp_path / "run", {"seed": 1})
    moved = shutil.move(run, tmp_path / "moved")
    assert read_manifest(moved)["config"]["seed"] == 1
    assert [summary["path"] for summary in list_runs(tmp_path)] == [str(moved)]
    finished_run(moved, {"seed": 2}, overwrite=True)
    assert not run.exists()


@pytest.mark.skipif(os.name == "nt", reason="there, a folder with an open file cannot be moved")
def test_a_run_that_is_moved_away_while_it_runs_is_an_error_that_names_it(tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved"

    def move():
        with create_run(run, "train", {}, CPU):
            shutil.move(run, moved)
            assert read_manifest(moved)["state"] == "running"  # the lock lies within

    with pytest.raises(FileNotFoundError, match=r"run/manifest\.json"):
        move()
    assert read_manifest(moved)["state"] == "killed"
    assert not run.exists()


def test_a_copy_without_hidden_files_of_a_run_that_was_killed_is_one(tmp_path):
    run = finished_run(tmp_path)
    write_manifest(run, read_manifest(run) | {"state": "running"})
    (run / ".lock").unlink()
    assert read_manifest(run)["state"] == "killed"
    assert names_in(run) == ["config.json", "manifest.json"]


def test_a_folder_that_may_only_be_read_is_an_error_that_names_it(public_folder):
    (public_folder / "empty").mkdir()
    run = finished_run(public_folder / "run")
    for path in (public_folder / "empty", run):
        message = rf"{path.name} cannot be written \(Permission denied\)"
        with only_readable(path), pytest.raises(OSError, match=message):
            finished_run(path, overwrite=True)
    assert names_in(public_folder / "empty") == []
    assert read_manifest(run)["state"] == "done"


def test_how_it_stands_is_known_to_who_may_only_read(public_folder):
    run = finished_run(public_folder / "run")
    write_manifest(run, read_manifest(run) | {"state": "running"})
    with lock_run(run), only_readable(run):
        assert read_manifest(run)["state"] == "running"
    with only_readable(run):
        assert read_manifest(run)["state"] == "killed"


def test_a_disk_that_is_full_at_the_end_hides_no_error(tmp_path, monkeypatch, caplog):
    with pytest.raises(FloatingPointError, match="at step 3"):
        run_until_the_disk_is_full(tmp_path, monkeypatch, FloatingPointError("loss is nan at step 3"))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "does not say how it ended: [Errno 28] No space left on device" in caplog.text
    assert read_manifest(tmp_path)["state"] == "killed"


def test_a_disk_that_is_full_at_the_end_is_told(tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"No space left on device: '.*manifest\.json'"):
        run_until_the_disk_is_full(tmp_path, monkeypatch)
    assert read_manifest(tmp_path)["state"] == "killed"


def test_a_disk_that_is_full_at_the_start_leaves_a_folder_that_can_be_used(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_manifest", disk_full)
        with pytest.raises(OSError, match="No space left on device"):
            finished_run(tmp_path / "run")
    assert names_in(tmp_path / "run") == [".lock"]
    finished_run(tmp_path / "run")


def test_a_clock_that_is_set_back_makes_no_time_negative(tmp_path, monkeypatch):
    now = datetime.now().astimezone()

    def earlier(zone=None):
        nonlocal now
        now -= timedelta(hours=1)
        return now.astimezone(zone)

    monkeypatch.setattr(runs, "datetime", SimpleNamespace(now=earlier))
    monkeypatch.setattr("time.time", lambda: earlier().timestamp())
    for name in ("first", "second"):
        with create_run(tmp_path / name, "train", {}, CPU):
            append_metrics(tmp_path / name / "metrics.jsonl", {"model": "mlp", "step": 0})
    manifest = read_manifest(tmp_path / "first")
    assert datetime.fromisoformat(manifest["ended"]) < datetime.fromisoformat(manifest["started"])
    assert manifest["seconds"] >= 0
    with lock_run(tmp_path / "first"), run_session(tmp_path / "first", manifest, CPU):
        pass
    assert read_manifest(tmp_path / "first")["seconds"] >= manifest["seconds"]
    assert [(summary["run"], summary["state"]) for summary in list_runs(tmp_path)] == [
        ("second", "done"),
        ("first", "done"),
    ]


def test_what_a_process_that_died_was_writing_does_not_count_and_is_removed(tmp_path):
    unfinished = f".{'0a' * 16}"
    (tmp_path / ".lock").write_text("")
    (tmp_path / unfinished).mkdir()
    (tmp_path / unfinished / "arrays").write_text("half of them")
    (tmp_path / f".{'1b' * 16}").write_text('{"half":')
    check_run_path(tmp_path, overwrite=False)
    manifest = read_manifest(finished_run(tmp_path))
    assert names_in(tmp_path) == [".lock", "config.json", "manifest.json"]
    for folder in (tmp_path, tmp_path / "checkpoints"):
        (folder / unfinished).mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-0000000001").mkdir()
    with lock_run(tmp_path), run_session(tmp_path, manifest, CPU):
        pass
    assert names_in(tmp_path) == [".lock", "checkpoints", "config.json", "manifest.json"]
    assert names_in(tmp_path / "checkpoints") == ["step-0000000001"]


def test_other_hidden_files_are_the_users(tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(FileExistsError, match="no run"):
        finished_run(tmp_path, overwrite=True)
    assert names_in(tmp_path) == [".git"]


# What it depends on.


def test_the_environment_names_versions_and_device():
    environment = describe_environment(CPU)
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["device"]["platform"] == "cpu"
    json.dumps(environment)


def test_the_commit_is_that_of_the_working_directory(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in [name for name in os.environ if name.startswith("GIT_")]:  # of a hook that runs the tests
        monkeypatch.delenv(name)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)

    def git(*words):
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    def commit_told():
        return describe_environment(CPU)["git"]

    monkeypatch.chdir(tmp_path)
    assert commit_told() is None
    git("init")
    assert commit_told() is None  # there is none yet
    (tmp_path / "code.py").write_text("x = 1")
    git("add", "code.py")
    git("commit", "-m", "x")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "untracked.txt").write_text("")
    assert commit_told() == {"commit": commit, "modified": False}
    (tmp_path / "code.py").write_text("x = 2")
    assert commit_told() == {"commit": commit, "modified": True}
    assert read_manifest(finished_run(tmp_path / "run"))["git"] == {"commit": commit, "modified": True}


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("no git"), subprocess.TimeoutExpired("git", 5), subprocess.CalledProcessError(128, "git")],
)
def test_without_git_a_run_goes_on(monkeypatch, error):
    def run(*_, **__):
        raise error

    monkeypatch.setattr(runs.subprocess, "run", run)
    assert describe_environment(CPU)["git"] is None


# Its figures.


def record(step, nats, perplexity):
    return {"model": "mlp", "step": step, "val_nats_per_token": nats, "val_perplexity": perplexity}


def test_the_summary_of_a_run_that_is_done_is_of_its_results(tmp_path):
    with create_run(tmp_path / "run", "train", {"model": "mlp"}, CPU) as run:
        append_metrics(
            run / "metrics.jsonl", {"model": "mlp", "step": 0, "val_nats_per_token": 8.0, "val_perplexity": 4000.0}
        )
        append_metrics(
            run / "metrics.jsonl", {"model": "mlp", "step": 99, "val_nats_per_token": 5.0, "val_perplexity": 148.0}
        )
        write_json(run / "results.json", {"models": [ROW]})
    started = read_manifest(run)["started"]
    assert summarise_run(run) == {
        "run": "run",
        "path": str(run),
        "kind": "train",
        "state": "done",
        "why": None,
        "started": started,
        "model": "MLP",
        "steps": 100,
        "nats_per_token": 4.5,
        "perplexity": 90.0,
        "bits_per_byte": 2.1,
        "train_seconds": 3.0,
    }


def test_the_summary_of_a_run_that_is_not_is_of_its_last_record(tmp_path):
    with create_run(tmp_path / "run", "train", {"model": "mlp"}, CPU) as run:
        assert (
            summarise_run(run).items() >= {"state": "running", "model": "mlp", "steps": None, **NO_FIGURES}.items()
        )
        append_metrics(
            run / "metrics.jsonl", {"model": "mlp", "step": 0, "val_nats_per_token": 8.0, "val_perplexity": 4000.0}
        )
        append_metrics(
            run / "metrics.jsonl", {"model": "mlp", "step": 99, "val_nats_per_token": 5.0, "val_perplexity": 148.0}
        )
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 100, "val_n')
        summary = summarise_run(run)
    assert (summary["state"], summary["model"], summary["steps"]) == ("running", "mlp", 100)
    assert (summary["nats_per_token"], summary["perplexity"]) == (5.0, 148.0)
    assert (summary["bits_per_byte"], summary["train_seconds"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", '{"models": [{"title": "MLP"}]}', "nats_per_token"),
        ("results.json", '{"models": [', r"results\.json is damaged: it is not valid JSON"),
        ("results.json", "[]", ""),
        ("results.json", '{"models": {"mlp": 1}}', ""),
        (
            "metrics.jsonl",
            '{"model": "mlp", "step": 0}\n{"st\n',
            "damaged: line 2 is no record",
        ),
        ("metrics.jsonl", '{"step": "x"}\n', ""),
        ("metrics.jsonl", "{}\n", "line 1 is no record of training"),
        ("metrics.jsonl", '{"model": "m", "step": 7, "val_perplexity": "x"}\n', "line 1 is no record"),
        ("results.json", json.dumps({"models": [ROW | {"perplexity": 10**400}]}), "figures are no numbers"),
    ],
)
def test_the_summary_of_a_run_with_a_damaged_file_says_so(tmp_path, name, content, message):
    run = finished_run(tmp_path / "run", {"model": "mlp"})
    (run / name).write_text(content)
    summary = summarise_run(run)
    assert (summary["kind"], summary["state"]) == ("train", "damaged")
    assert re.search(message, summary["why"])
    assert summary["nats_per_token"] is None


def test_the_summary_of_a_ladder_is_of_its_best_model(tmp_path):
    with create_run(tmp_path / "run", "ladder", {"steps": 30}, CPU) as run:
        for model in ("neural_bigram", "mlp"):
            append_metrics(run / "metrics.jsonl", {"model": model, "step": 29, "val_nats_per_token": 5.0})
        rows = [
            ROW | {"title": "counts bigram", "nats_per_token": None},  # infinite, in JSON
            ROW | {"title": "neural bigram", "nats_per_token": 4.8},
            ROW | {"title": "MLP", "nats_per_token": 4.7},
        ]
        write_json(run / "results.json", {"models": rows})
    summary = summarise_run(run)
    assert (summary["kind"], summary["model"], summary["steps"]) == ("ladder", "MLP", 30)
    assert summary["nats_per_token"] == 4.7


@pytest.mark.parametrize("kind", ["cost-growth", "jit", "pytorch-comparison"])
def test_the_summary_of_a_run_without_models_has_no_figures(tmp_path, kind):
    run = finished_run(tmp_path / "run", {"jobs": ""}, kind=kind)
    for results in (None, {"rows": [1], "panels": []}):
        if results is not None:
            write_json(run / "results.json", results)
        summary = summarise_run(run)
        assert (summary["kind"], summary["state"]) == (kind, "done")
        assert summary.items() >= {"model": None, "steps": None, **NO_FIGURES}.items()


def test_runs_are_listed_in_the_order_in_which_they_were_started(tmp_path):
    for name, started in (("a", "2026-01-02"), ("b", "2026-01-01"), ("c", "2026-01-02")):
        run = finished_run(tmp_path / name)
        write_manifest(run, read_manifest(run) | {"started": started})
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("")
    finished_run(tmp_path / "broken")
    (tmp_path / "broken" / "manifest.json").write_text("")
    assert [summary["run"] for summary in list_runs(tmp_path)] == ["broken", "b", "a", "c"]
    with pytest.raises(FileNotFoundError):
        list_runs(tmp_path / "none")
