"""The first Ctrl-C or SIGTERM is a wish, the second an order: told to processes of their own.

They import the file alone, which needs nothing but the standard library, and so start at once.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxlm.utils import signals as interruption

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there, one process cannot send another a signal")

_STOPPING = "stopping after this step; once more ends at once\n"
_PATIENCE = 60  # seconds, for a machine that does much else

# No process outlives the alarm. A shell that runs the tests in the background may have SIGINT ignored.
_IMPORTS = f"""
import hashlib, os, signal, sys, threading, time
import interruption
from interruption import interruptible, terminate_as_interrupt
signal.alarm({_PATIENCE})
signal.signal(signal.SIGINT, signal.default_int_handler)
"""

_UNTIL_REQUESTED = """
with interruptible() as requested:
    print("ready", flush=True)
    while not requested():
        time.sleep(0.01)
    print("saved", flush=True)
print(requested())
"""

# One call of C for longer than the process may live, in which no Python handler runs.
_LONG_CALL = """
with interruptible():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""

_SLEEP = """
with interruptible():
    print("ready", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def started(body, **options):
    """A process that runs `body` and has said that it is ready."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    with subprocess.Popen(command(body), env=environment(), **options) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def finished(body, **options):
    """What a process that runs `body` left behind."""
    return subprocess.run(
        command(body), env=environment(), capture_output=True, text=True, timeout=_PATIENCE, **options
    )


def command(body):
    return [sys.executable, "-W", "error", "-c", _IMPORTS + body]


def environment():
    return os.environ | {"PYTHONPATH": str(Path(interruption.__file__).parent)}


def wait_until_it_is_another_wish():
    time.sleep(3 * interruption._SAME_WISH_SECONDS)


both_signals = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])


@both_signals
def test_after_the_first_a_loop_ends_in_order(signum):
    with started(_UNTIL_REQUESTED) as process:
        process.send_signal(signum)
        output, error = process.communicate(timeout=_PATIENCE)
    assert (process.returncode, output, error) == (0, f"saved\n{signum.name}\n", _STOPPING)


@both_signals
@pytest.mark.parametrize("body", [_LONG_CALL, _SLEEP], ids=["call", "sleep"])
def test_in_a_long_call_the_first_is_heard_at_once_and_the_second_ends_it(body, signum):
    with started(body) as process:
        process.send_signal(signum)
        assert process.stderr.readline() == _STOPPING
        wait_until_it_is_another_wish()
        assert process.poll() is None
        process.send_signal(signum)
        output, error = process.communicate(timeout=_PATIENCE)
    assert (process.returncode, output, error) == (130, "", "")


def test_another_thread_knows_of_it_within_a_long_call():
    body = """
def tell():
    time.sleep(0.2)  # until the main thread is in its call
    print("ready", flush=True)
    while not requested():
        time.sleep(0.01)
    print(requested(), flush=True)

with interruptible() as requested:
    threading.Thread(target=tell).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""
    with started(body) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"


def test_the_second_may_be_the_other():
    with started(_LONG_CALL) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline() == _STOPPING
        wait_until_it_is_another_wish()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=_PATIENCE) == 130


def test_the_second_shows_the_cursor_of_a_terminal():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal, started(_LONG_CALL, stderr=theirs) as process:
        os.close(theirs)  # so that the terminal ends with the process
        process.send_signal(signal.SIGINT)
        assert b"".join(terminal.readline() for _ in range(2)) == b"\r\n" + _STOPPING.encode()[:-1] + b"\r\n"
        wait_until_it_is_another_wish()
        process.send_signal(signal.SIGINT)
        assert terminal.readline() == b"\x1b[?25h\r\n"
        assert process.wait(timeout=_PATIENCE) == 130


def test_a_signal_sent_twice_at_once_is_one_wish():
    body = """
interruption._SAME_WISH_SECONDS = 600
with interruptible() as requested:
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0.1)
    signal.raise_signal(signal.SIGTERM)
print(requested())
"""
    done = finished(body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SIGTERM\n", _STOPPING)


def test_it_is_known_as_soon_as_it_came_and_kept_after_the_block():
    body = """
with interruptible() as requested:
    assert requested() is None
    signal.raise_signal(signal.SIGINT)
    assert requested() == "SIGINT"
    signal.raise_signal(signal.SIGTERM)
    assert requested() == "SIGINT"
assert requested() == "SIGINT"
with interruptible() as requested:
    assert requested() is None
    signal.raise_signal(signal.SIGTERM)
assert requested() == "SIGTERM"
"""
    done = finished("interruption._SAME_WISH_SECONDS = 600\n" + body)
    assert (done.returncode, done.stderr) == (0, _STOPPING * 2)


@pytest.mark.parametrize(("moment", "told"), [("entering", _STOPPING), ("leaving", "")])
def test_a_signal_while_it_enters_or_leaves_is_kept(moment, told):
    body = f"""
real = signal.set_wakeup_fd
def set_wakeup_fd(descriptor, **options):
    if {moment!r} == "entering" and descriptor != -1:
        signal.raise_signal(signal.SIGINT)
    previous = real(descriptor, **options)
    if {moment!r} == "leaving" and descriptor == -1:
        signal.raise_signal(signal.SIGINT)
    return previous
signal.set_wakeup_fd = set_wakeup_fd
with interruptible() as requested:
    pass
print(requested())
"""
    done = finished(body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SIGINT\n", told)


def test_everything_is_restored():
    body = """
def handler(signum, frame):
    raise AssertionError

def state():
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    return handlers, wakeup, threading.enumerate(), os.listdir("/dev/fd")

reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGTERM, handler)
before = state()
assert before[:2] == ((signal.default_int_handler, handler), writer)
with interruptible():
    assert all(x != y for x, y in zip(before, state()))
assert state() == before
try:
    with interruptible() as requested:
        signal.raise_signal(signal.SIGTERM)
        raise KeyError
except KeyError:
    assert state() == before
    assert requested() == "SIGTERM"
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("raised")
"""
    done = finished(body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "raised\n", _STOPPING)


@pytest.mark.parametrize(("ignored", "noted"), [("SIGINT", "SIGTERM"), ("SIGTERM", "SIGINT")])
def test_an_ignored_signal_stays_ignored(ignored, noted):
    body = f"""
signal.signal(signal.{ignored}, signal.SIG_IGN)
with interruptible() as requested:
    assert signal.getsignal(signal.{ignored}) == signal.SIG_IGN
    signal.raise_signal(signal.{ignored})
    assert requested() is None
    signal.raise_signal(signal.{noted})
    assert requested() == {noted!r}
assert signal.getsignal(signal.{ignored}) == signal.SIG_IGN
signal.signal(signal.{noted}, signal.SIG_IGN)
with interruptible() as requested:
    assert threading.active_count() == 1
    signal.raise_signal(signal.{noted})
assert requested() is None
"""
    done = finished(body)
    assert (done.returncode, done.stderr) == (0, _STOPPING)


def test_other_signals_are_no_wish():
    body = """
came = []
signal.signal(signal.SIGUSR1, lambda signum, frame: came.append(signum))
with interruptible() as requested:
    for _ in range(3):
        signal.raise_signal(signal.SIGUSR1)
        time.sleep(0.2)
assert came == [signal.SIGUSR1] * 3
assert requested() is None
"""
    done = finished(body)
    assert (done.returncode, done.stderr) == (0, "")


def test_outside_of_the_main_thread_nothing_changes():
    body = """
def elsewhere():
    with interruptible() as requested, terminate_as_interrupt():
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        print(requested())

thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
"""
    done = finished(body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def test_the_inner_of_two_changes_nothing():
    body = """
with interruptible() as outer:
    with interruptible() as inner:
        signal.raise_signal(signal.SIGINT)
        assert (outer(), inner()) == ("SIGINT", None)
    signal.raise_signal(signal.SIGINT)
print(outer(), inner())
"""
    done = finished("interruption._SAME_WISH_SECONDS = 600\n" + body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SIGINT None\n", _STOPPING)


def test_the_second_ends_it_though_standard_error_is_full():
    body = """
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(2, True)
with interruptible() as requested:
    print("ready", flush=True)
    while not requested():
        time.sleep(0.01)
    print("heard", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""
    with started(body) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "heard\n"
        wait_until_it_is_another_wish()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=_PATIENCE) == 130


@pytest.mark.parametrize("closing", ["assert sys.stderr is None", "sys.stderr.close()"])
def test_without_standard_error_no_other_file_is_written_to(closing, tmp_path):
    body = f"""
{closing}
with open({str(tmp_path / "file")!r}, "wb") as file:
    assert (file.fileno() == 2) == (sys.stderr is None)
    with interruptible() as requested:
        signal.raise_signal(signal.SIGINT)
        print(requested(), flush=True)
        time.sleep({3 * interruption._SAME_WISH_SECONDS})
        signal.raise_signal(signal.SIGINT)
        time.sleep(600)
"""
    redirection = "2>&-" if "None" in closing else ""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" "$@" {redirection}', *command(body)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=_PATIENCE,
    )
    assert (done.returncode, done.stdout) == (130, "SIGINT\n")
    assert (tmp_path / "file").read_bytes() == b""


def test_a_termination_runs_what_is_to_run_at_last():
    body = """
from console import exit_code

def command():
    try:
        print("ready", flush=True)
        time.sleep(600)
    finally:
        print("cleaned", flush=True)

with terminate_as_interrupt():
    code = exit_code(command)
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
sys.exit(code)
"""
    with started(body) as process:
        process.send_signal(signal.SIGTERM)
        output, error = process.communicate(timeout=_PATIENCE)
    assert (process.returncode, output, error) == (130, "cleaned\n", "interrupted SIGTERM\n")


def test_a_termination_that_is_ignored_or_handled_is_left_as_it_is():
    body = """
for handler in (signal.SIG_IGN, lambda signum, frame: None):
    signal.signal(signal.SIGTERM, handler)
    with terminate_as_interrupt():
        assert signal.getsignal(signal.SIGTERM) == handler
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == handler
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with terminate_as_interrupt(), interruptible() as requested, terminate_as_interrupt():
    signal.raise_signal(signal.SIGTERM)
print(requested())
"""
    done = finished(body)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SIGTERM\n", _STOPPING)
