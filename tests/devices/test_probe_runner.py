"""The result of a probe for each way to end. A shell script replaces the Python interpreter."""

import json
import os
import select
import sys
import time

import pytest

from jaxlm.devices import probe_runner
from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_runner import RESULT_MARKER, ProbeResult, probe_seconds, run_probes

WORKS = ProbeResult(True, "chip", "computes the CPU's values", seconds=0.001, worthwhile_from=20_000)
RETRY = " (to try again: jaxlm devices --probe)"
PRINT_RESULT = f"cat <<'END'\n{RESULT_MARKER}{json.dumps(WORKS._asdict())}\nEND\n"
PLUGIN, *OTHERS = (Plugin(name, name, "1.0") for name in ("chip", "other", "third"))

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a shell script as sys.executable")


def failure(reason):
    return ProbeResult(works=False, platform=None, reason=reason + RETRY)


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Return a function that returns the results of probes that run these shell commands."""
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "60")
    monkeypatch.setattr(probe_runner, "installed_plugins", lambda: (PLUGIN, *OTHERS))
    interpreter = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(interpreter))

    def run(commands, *plugins):
        interpreter.write_text(f"#!/bin/sh\n{commands}")
        interpreter.chmod(0o700)
        return run_probes(plugins) if plugins else run_probes([PLUGIN])[PLUGIN]

    return run


@pytest.fixture
def child(tmp_path):
    """Return shell commands that start a child process, and a function that returns whether it has ended."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    # Once no process holds the other end, there is an end of file to read.
    yield f"sleep 600 > {tmp_path}/fifo &\n", lambda: select.select([reader], [], [], 10)[0] == [reader]
    os.close(reader)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("commands", "result"),
    [
        ("printf 'half a line'; sleep 0.1 & " + PRINT_RESULT + "echo 'a log line' >&2", WORKS),
        (PRINT_RESULT.replace("true", "false"), failure(WORKS.reason)._replace(platform="chip")),
        (PRINT_RESULT + "kill -ABRT $$", failure("was terminated by signal 6 (Aborted)")),
        ("exit 3", failure("exited with code 3")),
        ("echo text; printf 'no \\033[1m chip\\n\\n' >&2; exit 1", failure("exited with code 1: no [1m chip")),
        ("yes xxxxxxxxxxxxxxxxxxx", failure("printed more than 1,048,576 bytes")),
        ("head -c 2000000 /dev/zero >&2; " + PRINT_RESULT, failure("printed more than 1,048,576 bytes")),
    ],
)
def test_run_probes_by_output_and_exit(probe, commands, result):
    assert probe(commands) == result


@pytest.mark.slow
def test_run_probes_kills_a_hanging_probe(probe, child, monkeypatch):
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "1.5")
    start, has_ended = child
    reason = "did not finish in 1.5 s (for more time: JAXLM_PROBE_SECONDS=5 jaxlm devices --probe)"
    assert probe(PRINT_RESULT + start + "wait") == ProbeResult(works=False, platform=None, reason=reason)
    assert has_ended()


@pytest.mark.slow
def test_run_probes_kills_processes_left_running(probe, child):
    start, has_ended = child
    assert probe(start + PRINT_RESULT) == failure("left processes running")
    assert has_ended()


@pytest.mark.slow
def test_run_probes_shares_the_time_limit(probe, monkeypatch, tmp_path):
    """A plugin that hangs does not change the results of the others."""
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "1.5")
    begin = time.monotonic()
    results = probe(f"mkdir {tmp_path}/first && sleep 600\n" + PRINT_RESULT, PLUGIN, *OTHERS)
    assert sorted(result.works for result in results.values()) == [False, True, True]
    assert time.monotonic() - begin < 10


@pytest.mark.slow
def test_probe_inherits_paths_and_device_settings(probe, monkeypatch, tmp_path):
    debug = {"JAX_PLATFORMS", "JAXLM_DEVICE", "JAX_COMPILATION_CACHE_DIR", "JAX_TRANSFER_GUARD", "PYTHONWARNINGS"}
    kept = {"JAX_ENABLE_X64", "JAX_MPS_LIBRARY_PATH", "XLA_FLAGS"}
    for name in debug | kept:
        monkeypatch.setenv(name, "chosen")
    monkeypatch.syspath_prepend(tmp_path / "only here")
    probe(f'echo "$@" > {tmp_path}/arguments; env > {tmp_path}/environment')
    lines = (tmp_path / "environment").read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path / "only here")
    assert environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert {name for name in debug | kept if name in environment} == kept
    arguments = ["-P", "-m", "jaxlm.devices.probe_program", "60.0", *[plugin.module for plugin in OTHERS]]
    assert (tmp_path / "arguments").read_text().split() == arguments


def test_probe_seconds_is_25_or_the_setting(monkeypatch):
    for setting, seconds in (("", 25), ("7.5", 7.5), ("86400", 86_400)):
        monkeypatch.setenv("JAXLM_PROBE_SECONDS", setting)
        assert probe_seconds() == seconds
    for setting in ("soon", "0", "-1", "nan", "inf", "86401"):
        monkeypatch.setenv("JAXLM_PROBE_SECONDS", setting)
        with pytest.raises(ValueError, match=rf"must be a number in \(0, 86400\], got {setting};"):
            probe_seconds()
