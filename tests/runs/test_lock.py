"""Lock run directories for one writer, or for readers."""

import errno
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import filelock
import jax
import pytest

from jaxlm.runs.directory import create_run
from jaxlm.runs.lock import lock_run
from jaxlm.runs.manifest import read_manifest, write_manifest

CPU = jax.devices("cpu")[0]
HOST = socket.gethostname()


@pytest.fixture
def run(tmp_path):
    with create_run(tmp_path / "run", "train", {}, CPU):
        pass
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("state", "named"),
    [("running", f"; process {os.getpid()} on {re.escape(HOST)} holds it$"), ("done", "another directory$")],
    ids=["running", "done"],
)
def test_lock_run_names_the_process_of_a_running_run(state, named, run):
    """Between two sessions the manifest still names the previous process."""
    write_manifest(run, read_manifest(run) | {"state": state})
    with (
        filelock.FileLock(run / ".lock"),
        pytest.raises(BlockingIOError, match=f"in use by another process; wait, or choose .*{named}"),
    ):
        lock_run(run, timeout=0.05).__enter__()


def test_lock_run_in_a_read_only_directory(run, monkeypatch):
    """Whether a process writes to it is unknown."""
    write_manifest(run, read_manifest(run) | {"state": "running"})
    monkeypatch.setattr(filelock.FileLock, "acquire", Mock(side_effect=PermissionError("read-only")))
    with pytest.raises(PermissionError):
        lock_run(run).__enter__()
    assert read_manifest(run)["state"] == "running"


def test_lock_run_waits_for_a_short_holder(tmp_path):
    held = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    held.acquire()
    threading.Timer(0.2, held.release).start()
    with lock_run(tmp_path):
        assert not held.is_locked


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, 524], ids=errno.errorcode.get)
def no_flock(request, monkeypatch):
    """A file system without locks, such as some NFS."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_lock_run_without_flock_uses_a_file(run, no_flock, caplog):
    write_manifest(run, read_manifest(run) | {"state": "running"})
    caplog.clear()
    refused = pytest.raises(BlockingIOError, match=r"remove .*\.lock-soft")
    with lock_run(run), ThreadPoolExecutor(1) as executor, refused:
        assert executor.submit(read_manifest, run).result()["state"] == "running"
        executor.submit(lock_run(run, timeout=0.1).__enter__).result()
    with lock_run(run):
        assert [record.levelname for record in caplog.records] == ["WARNING"]  # once
    assert not (run / ".lock-soft").exists()
    crash = "import filelock, os, sys; lock = filelock.SoftFileLock(sys.argv[1]); lock.acquire(); os._exit(0)"
    subprocess.run([sys.executable, "-c", crash, run / ".lock-soft"], check=True)
    assert (run / ".lock-soft").exists()
    assert read_manifest(run)["state"] == "killed"


def test_lock_run_raises_other_errors_of_the_file_system(run, monkeypatch):
    """The file system has locks, and another process may hold this one."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO))))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        lock_run(run).__enter__()


def test_readers_disturb_neither_writers_nor_each_other(run):
    write_manifest(run, read_manifest(run) | {"state": "running"})
    states, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            states.add(read_manifest(run)["state"])

    with ThreadPoolExecutor(3) as executor:
        futures = [executor.submit(read) for _ in range(3)]
        try:
            time.sleep(0.2)
            assert "killed" in states
            for _ in range(10):
                with lock_run(run):
                    pass
        finally:
            stop.set()
        for future in futures:
            future.result()
