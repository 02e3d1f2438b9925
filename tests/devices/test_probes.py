"""The result of a probe for each way to end, and its cache. A shell script replaces the Python interpreter."""

import json
import os
import platform
import resource
import select
import sys
import time
from importlib import metadata
from unittest.mock import Mock

import pytest

from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probes import (
    RESULT_MARKER,
    ProbeResult,
    clear_probe_cache,
    probe_results,
    probe_seconds,
    run_probes,
)

WORKS = ProbeResult(True, "chip", "computes the CPU's values", seconds=0.001, worthwhile_from=20_000)
RETRY = " (to try again: jaxlm devices --probe)"
PRINT_RESULT = f"cat <<'END'\n{RESULT_MARKER}{json.dumps(WORKS._asdict())}\nEND\n"
PLUGIN, *OTHERS = (Plugin(name, name, "1.0") for name in ("chip", "other", "third"))


def failure(reason):
    return ProbeResult(works=False, platform=None, reason=reason + RETRY)


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """Return a function that returns the results of probes that run these shell commands."""
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "60")
    monkeypatch.setattr("jaxlm.devices.probes.installed_plugins", lambda: (PLUGIN, *OTHERS))
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
        (PRINT_RESULT.replace("true", "false"), WORKS._replace(works=False, reason=WORKS.reason + RETRY)),
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
@pytest.mark.parametrize("is_hanging", [True, False])
def test_run_probes_kills_processes_left_running(probe, child, monkeypatch, is_hanging):
    if is_hanging:
        monkeypatch.setenv("JAXLM_PROBE_SECONDS", "1.5")
    (start, has_ended), begin = child, time.monotonic()
    reason = "did not finish in 1.5 s (for more time: JAXLM_PROBE_SECONDS=5 jaxlm devices --probe)"
    hangs = ProbeResult(works=False, platform=None, reason=reason)
    expected = hangs if is_hanging else failure("left processes running")
    assert probe(start + PRINT_RESULT + "wait" * is_hanging) == expected
    assert has_ended()
    assert time.monotonic() - begin < 30  # the limit of a probe that has ended is not used up


@pytest.mark.slow
@pytest.mark.parametrize("log", ["", "head -c 200000 /dev/zero\n"], ids=["short", "longer than a pipe"])
def test_run_probes_shares_the_time_limit(probe, monkeypatch, tmp_path, log):
    """A plugin that hangs does not change the results of the others."""
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "1.5")
    begin = time.monotonic()
    results = probe(f"mkdir {tmp_path}/first && sleep 600\n" + log + PRINT_RESULT, PLUGIN, *OTHERS)
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


@pytest.mark.slow
def test_run_probes_in_a_process_with_many_open_files(probe):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, limits[1]))
    descriptors = [os.dup(0) for _ in range(1100)]
    try:
        assert probe(PRINT_RESULT) == WORKS
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(("name", "value"), [("executable", None), ("frozen", True)])
def test_run_probes_needs_an_interpreter(monkeypatch, name, value):
    monkeypatch.setattr(sys, name, value, raising=False)
    with pytest.raises(OSError, match=r"sys\.executable is not a Python interpreter"):
        run_probes([PLUGIN])


def test_probe_seconds_is_25_or_the_setting(monkeypatch):
    for setting, seconds in (("", 25), ("7.5", 7.5), ("86400", 86_400)):
        monkeypatch.setenv("JAXLM_PROBE_SECONDS", setting)
        assert probe_seconds() == seconds
    for setting in ("soon", "0", "-1", "nan", "inf", "86401"):
        monkeypatch.setenv("JAXLM_PROBE_SECONDS", setting)
        with pytest.raises(ValueError, match=rf"must be a number in \(0, 86400\], got {setting};"):
            probe_seconds()


GOOD, BAD = Plugin("good", "good-chip", "1.0"), Plugin("bad", "bad-chip", "2.0")
RESULTS = {
    GOOD: ProbeResult(works=True, platform="good", reason="is right", seconds=0.001, worthwhile_from=20_000),
    BAD: ProbeResult(works=False, platform=None, reason="crashed"),
}


@pytest.fixture
def results():
    return RESULTS.copy()


@pytest.fixture
def probes(install, results):
    """Return the calls of `run_probes`."""
    return install(results)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "plugins.json"


def in_new_process():
    probe_results.cache_clear()
    return probe_results()


def test_probe_results_probes_each_version_once(probes, results):
    assert probe_results() == in_new_process() == RESULTS
    assert probe_results() is probe_results()
    assert probes == [[GOOD, BAD]]
    newer = Plugin("bad", "bad-chip", "2.1")
    results[newer] = results.pop(BAD)
    assert in_new_process() == {GOOD: RESULTS[GOOD], newer: RESULTS[BAD]}
    assert probes == [[GOOD, BAD], [newer]]


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(platform, "platform", lambda: "another"),
        lambda patch: patch.setattr(sys, "prefix", "another"),
        lambda patch: patch.setattr(metadata, "version", lambda name: "99.0"),
        lambda patch: patch.setenv("CUDA_VISIBLE_DEVICES", "another"),
        lambda patch: patch.setenv("JAX_MPS_LIBRARY_PATH", "another"),
    ],
)
def test_results_depend_on_machine_and_settings(probes, monkeypatch, change):
    probe_results()
    with monkeypatch.context() as patch:
        change(patch)
        in_new_process()
    in_new_process()
    assert len(probes) == 2  # the first results are still cached


@pytest.mark.parametrize("content", ["not JSON", "[]"])
def test_damaged_cache_is_replaced(probes, cache, content):
    cache.parent.mkdir()
    cache.write_text(content)
    assert probe_results() == in_new_process() == RESULTS
    assert len(probes) == 1


def test_unwritable_directory_means_probes_each_time(probes, monkeypatch):
    monkeypatch.setenv("JAXLM_DATA_DIR", "/dev/null")
    assert probe_results() == in_new_process() == RESULTS
    assert len(probes) == 2


@pytest.mark.parametrize(("minutes", "again"), [(9, []), (11, [[BAD]]), (-1, [[BAD]])])
def test_probe_results_repeat_old_failures(probes, monkeypatch, minutes, again):
    probe_results()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60 * minutes)
    assert in_new_process() == in_new_process() == RESULTS
    assert probes == [[GOOD, BAD], *again]


def test_error_of_run_probes_is_not_cached(probes, monkeypatch):
    failure = ProbeResult(works=False, platform=None, reason="could not be probed: no processes left for you")
    with monkeypatch.context() as patch:
        error = OSError("no processes left\nfor you")
        patch.setattr("jaxlm.devices.probes.run_probes", Mock(side_effect=error))
        assert probe_results() == {GOOD: failure, BAD: failure}
    assert in_new_process() == RESULTS


def test_error_of_run_probes_keeps_cached_results(probes, results, monkeypatch):
    probe_results()
    newer = Plugin("bad", "bad-chip", "2.1")
    results[newer] = results.pop(BAD)
    monkeypatch.setattr("jaxlm.devices.probes.run_probes", Mock(side_effect=OSError))
    assert {plugin: result.works for plugin, result in in_new_process().items()} == {GOOD: True, newer: False}


def test_probe_results_keep_what_another_process_adds(probes, cache, monkeypatch):
    def run_probes(plugins):
        cache.parent.mkdir()
        cache.write_text('{"added": {}}')
        return RESULTS

    monkeypatch.setattr("jaxlm.devices.probes.run_probes", run_probes)
    assert probe_results() == RESULTS
    assert "added" in json.loads(cache.read_text())


def test_clear_probe_cache_removes_all_results(probes):
    probe_results()
    clear_probe_cache()
    assert probe_results() == RESULTS
    assert len(probes) == 2


def test_probe_results_without_plugins_read_nothing(install, cache):
    install({})
    assert in_new_process() == {}
    assert not cache.parent.exists()
