"""The first SIGINT or SIGTERM sets a flag; a second one interrupts, or ends the process of a command."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxlm.utils.signals import catch_stop_signals, end_process_on_second_signal, terminate_as_interrupt

STOPPING = "stopping after this step; a second signal stops at once\n"

both_signals = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def handlers():
    """Set Python's default handlers. A background process may have inherited an ignored SIGINT."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield lambda: (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@both_signals
def test_catch_stop_signals_sets_a_flag(signum, handlers, capfd):
    before = handlers()
    with catch_stop_signals() as stop_requested:
        assert stop_requested() is None
        signal.raise_signal(signum)
        assert stop_requested() == signum.name
        with pytest.raises(KeyboardInterrupt, match=r"^SIGINT$"):
            signal.raise_signal(signal.SIGINT)
    assert stop_requested() == signum.name
    assert handlers() == before
    assert capfd.readouterr() == ("", STOPPING)


@both_signals
@pytest.mark.parametrize("is_caught", [True, False])
def test_the_second_signal_of_a_command_has_its_default(is_caught, signum, handlers):
    before = handlers()
    with end_process_on_second_signal():
        if is_caught:
            with catch_stop_signals() as stop_requested:
                signal.raise_signal(signum)
                assert handlers() == (signal.SIG_DFL, signal.SIG_DFL)
            assert stop_requested() == signum.name
        else:
            with pytest.raises(KeyboardInterrupt, match=f"^{signum.name}$"):
                signal.raise_signal(signum)
            assert handlers() == (signal.SIG_DFL, signal.SIG_DFL)
    assert handlers() == before


def test_catch_stop_signals_counts_a_pair_once(monkeypatch, capfd):
    """`timeout` sends a signal twice. Here the second one arrives while the handler waits."""
    waits = []
    monkeypatch.setattr(
        time, "sleep", lambda seconds: waits.append(seconds) or signal.raise_signal(signal.SIGTERM)
    )
    with catch_stop_signals() as stop_requested:
        signal.raise_signal(signal.SIGTERM)
    assert stop_requested() == "SIGTERM"
    assert waits == [pytest.approx(0.1)]
    assert capfd.readouterr().err == STOPPING


def test_catch_stop_signals_restores_after_an_error(handlers):
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    before = handlers()
    with contextlib.suppress(KeyError), catch_stop_signals():
        signal.raise_signal(signal.SIGTERM)
        raise KeyError
    assert handlers() == before


@pytest.mark.parametrize(("ignored", "other"), [("SIGINT", "SIGTERM"), ("SIGTERM", "SIGINT")])
def test_catch_stop_signals_keeps_ignored_signals(ignored, other):
    ignored, other = signal.Signals[ignored], signal.Signals[other]
    signal.signal(ignored, signal.SIG_IGN)
    with catch_stop_signals() as stop_requested:
        signal.raise_signal(ignored)
        assert stop_requested() is None
        signal.raise_signal(other)
        signal.raise_signal(ignored)
        assert stop_requested() == other.name
    with contextlib.suppress(KeyboardInterrupt), end_process_on_second_signal():
        signal.raise_signal(other)
    assert signal.getsignal(ignored) == signal.SIG_IGN


def test_catch_stop_signals_in_another_thread(handlers):
    def work():
        with catch_stop_signals() as stop_requested, terminate_as_interrupt():
            return handlers(), stop_requested()

    with ThreadPoolExecutor() as pool:
        assert pool.submit(work).result() == (handlers(), None)


@pytest.mark.parametrize("stream", ["missing", "broken"])
def test_catch_stop_signals_without_standard_error(stream, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        monkeypatch.setattr(sys, "__stderr__", {"missing": None, "broken": broken}[stream])
        with catch_stop_signals() as stop_requested:
            signal.raise_signal(signal.SIGINT)
    assert stop_requested() == "SIGINT"


def test_catch_stop_signals_shows_the_cursor_of_a_terminal(monkeypatch):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "w") as stderr:
        monkeypatch.setattr(sys, "__stderr__", stderr)
        with catch_stop_signals():
            signal.raise_signal(signal.SIGINT)
        assert [terminal.readline(), terminal.readline()] == [b"\x1b[?25h\r\n", STOPPING.encode()[:-1] + b"\r\n"]


@pytest.mark.slow
def test_catch_stop_signals_second_signal_kills():
    """The call runs in C, where no Python handler can run. The pipe of standard error is full."""
    program = """
import hashlib, os, signal
from jaxlm.utils.signals import catch_stop_signals, end_process_on_second_signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.alarm(60)
os.set_blocking(2, False)
try:
    while os.write(2, b"x" * 4096):
        pass
except BlockingIOError:
    os.set_blocking(2, True)
with end_process_on_second_signal(), catch_stop_signals() as stop_requested:
    print("ready", flush=True)
    while not stop_requested():
        pass
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
"""
    command, pipes = [sys.executable, "-c", program], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.2)  # until the first signal counts as one
            assert process.returncode == -signal.SIGINT
        finally:
            process.kill()


def test_terminate_as_interrupt_raises(handlers):
    before = handlers()
    with pytest.raises(KeyboardInterrupt, match=r"^SIGTERM$"), terminate_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert handlers() == before
    with terminate_as_interrupt(), catch_stop_signals() as stop_requested, terminate_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert (stop_requested(), handlers()) == ("SIGTERM", before)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda signum, frame: None], ids=["ignored", "handled"])
def test_terminate_as_interrupt_keeps_other_handlers(handler):
    signal.signal(signal.SIGTERM, handler)
    with terminate_as_interrupt():
        assert signal.getsignal(signal.SIGTERM) == handler
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
def test_a_command_ignores_the_hangup_of_its_terminal():
    before = signal.getsignal(signal.SIGHUP)
    with end_process_on_second_signal():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == before
