"""What comes of a probe that ends in whatever way: a script of a few lines stands in for it and its plugin."""

import json
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jaxlm.devices import probe_runner as trials
from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_runner import ProbeResult, probe_result_from_json, probe_seconds, run_probes

RIGHT = ProbeResult(
    works=True, platform="chip", reason="gives the CPU's values", seconds=0.001, worthwhile_from=20_000
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a script that is an interpreter is POSIX's")


@pytest.fixture
def outcome(tmp_path, monkeypatch):
    """A function: the verdict on a plugin of whose probe these lines are the program.

    They know `answer`, the path of the verdict; `right`, what a plugin that works is given; `plugin` and `others`.
    """
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "60")

    def verdict(*lines, name="plugin"):
        program = tmp_path / f"{name}.py"
        program.write_text(
            textwrap.dedent(
                f"""
                import json, os, signal, subprocess, sys, time
                from pathlib import Path
                _, _, _, _, answer, seconds, plugin, *others = sys.argv
                answer, right = Path(answer), {RIGHT._asdict()!r}
                """
            )
            + "\n".join(lines)
        )
        interpreter = tmp_path / name
        interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n')
        interpreter.chmod(0o700)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(interpreter))
            plugin = Plugin(name, name, "1.0")
            verdicts = run_probes([plugin])
        assert list(verdicts) == [plugin]
        return verdicts[plugin]

    return verdict


REMEDY = " (jaxlm devices --probe tries it again)"
ANSWER = "answer.write_text(json.dumps(right))"


def test_verdict_is_what_the_probe_wrote(outcome):
    assert outcome(ANSWER) == RIGHT


def test_plugin_fails_where_the_probe_says_so(outcome):
    verdict = outcome("right.update(works=False, reason='has a wrong gather', platform=None)", ANSWER)
    assert verdict == RIGHT._replace(works=False, reason=f"has a wrong gather{REMEDY}", platform=None)


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV", "SIGILL", "SIGKILL"])
def test_signal_is_named(outcome, name):
    verdict = outcome(ANSWER, f"os.kill(os.getpid(), signal.{name})")
    assert verdict == ProbeResult(works=False, platform=None, reason=f"ended its process by {name}{REMEDY}")


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="there are no real-time signals")
def test_signal_without_a_name_has_its_number(outcome):
    number = signal.SIGRTMIN + 3
    assert outcome(f"os.kill(os.getpid(), {number})").reason == f"ended its process by signal {number}{REMEDY}"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["sys.exit(3)"], "ended its process with exit code 3"),
        (["os._exit(0)"], "ended its process with exit code 0"),
        (
            ["raise ValueError('bad \\x1b[1m chip')"],
            "ended its process with exit code 1: ValueError: bad [1m chip",
        ),
        (["answer.write_text('{')"], "ended its process with exit code 0"),
        (["answer.write_text('{}')"], "ended its process with exit code 0"),
        (["answer.mkdir()"], "ended its process with exit code 0"),
    ],
)
def test_end_without_a_verdict_is_told_by_its_exit_code(outcome, lines, reason):
    assert outcome(*lines) == ProbeResult(works=False, platform=None, reason=reason + REMEDY)


def test_hang_ends_at_the_limit(outcome, monkeypatch):
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "0.5")
    verdict = outcome(ANSWER, "time.sleep(600)")
    assert verdict.reason == "gave no answer in 0.5 s (JAXLM_PROBE_SECONDS=2 jaxlm devices --probe gives it more)"
    assert not verdict.works


def test_all_that_a_hang_started_ends_with_it(outcome, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "3")
    pids = tmp_path / "pids"
    child = "child = subprocess.Popen(['sleep', '600'])"
    outcome(child, f"Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')", "child.wait()")
    for pid in pids.read_text().split():
        assert not is_alive(int(pid))


def is_alive(pid):
    """Whether a process still runs, a moment after it was killed. A zombie has ended, whoever is to reap it."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_flood_of_output_ends_the_probe(outcome, stream):
    verdict = outcome("while True:", f"    sys.{stream}.write('x' * 10_000)")
    assert verdict == ProbeResult(works=False, platform=None, reason=f"prints more than 1,048,576 bytes{REMEDY}")


def test_flood_before_a_verdict_is_no_better(outcome):
    assert outcome("sys.stderr.write('x' * 2_000_000)", ANSWER).reason.startswith("prints more")


def test_words_beside_a_verdict_are_no_matter(outcome):
    assert outcome("print('x' * 100_000)", ANSWER) == RIGHT


def test_process_that_is_left_behind_is_told_and_ended(outcome, tmp_path):
    pid = tmp_path / "pid"
    left = f"Path({str(pid)!r}).write_text(str(subprocess.Popen(['sleep', '600']).pid))"
    verdict = outcome(left, ANSWER)
    assert verdict == ProbeResult(works=False, platform=None, reason=f"leaves processes behind{REMEDY}")
    assert not is_alive(int(pid.read_text()))


def test_process_that_ends_soon_after_is_not_left_behind(outcome):
    assert outcome("subprocess.Popen(['sleep', '0.1'])", ANSWER) == RIGHT


def test_probe_imports_what_its_parent_would_and_chooses_for_itself(outcome, monkeypatch, tmp_path):
    monkeypatch.setattr(trials, "installed_plugins", lambda: [Plugin(name, name, "1") for name in ("plugin", "z")])
    monkeypatch.syspath_prepend(tmp_path / "only here")
    days = {"JAX_PLATFORMS", "JAXLM_DEVICE", "JAX_COMPILATION_CACHE_DIR", "JAX_TRANSFER_GUARD", "PYTHONWARNINGS"}
    for name in days | {"JAX_ENABLE_X64", "JAX_MPS_LIBRARY_PATH"}:
        monkeypatch.setenv(name, "chosen")
    monkeypatch.setenv("XLA_FLAGS", "--its-own")
    verdict = outcome("right['reason'] = json.dumps([plugin, others, sys.argv[1:4], dict(os.environ)])", ANSWER)
    plugin, others, words, environment = json.loads(verdict.reason)
    assert (plugin, others) == ("plugin", ["z"])
    assert words == ["-P", "-m", "jaxlm.plugin_probe"]
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path / "only here")
    assert not days & set(environment)
    assert environment["JAX_ENABLE_X64"] == environment["JAX_MPS_LIBRARY_PATH"] == "chosen"
    assert (environment["XLA_FLAGS"], environment["XLA_PYTHON_CLIENT_PREALLOCATE"]) == ("--its-own", "false")


@pytest.mark.parametrize("executable", [None, ""])
def test_without_an_interpreter_nothing_is_tried(monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(OSError, match="no Python beside it"):
        run_probes([Plugin("a", "a", "1")])


def test_frozen_program_does_not_start_itself(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(OSError, match="no Python beside it"):
        run_probes([Plugin("a", "a", "1")])


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf", "86401", "1e10"])
def test_limit_that_is_no_number_of_seconds_is_an_error(monkeypatch, seconds):
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", seconds)
    with pytest.raises(ValueError, match=f"JAXLM_PROBE_SECONDS={seconds} is no number of seconds"):
        probe_seconds()


@pytest.mark.parametrize(("seconds", "limit"), [("", 25), ("7.5", 7.5)])
def test_limit_is_25_seconds_or_what_is_chosen(monkeypatch, seconds, limit):
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", seconds)
    assert probe_seconds() == limit


@pytest.mark.parametrize("verdict", [RIGHT, ProbeResult(works=False, platform=None, reason="")])
def test_verdict_survives_json(verdict):
    assert probe_result_from_json(json.loads(json.dumps(verdict._asdict()))) == verdict


@pytest.mark.parametrize(
    "document", [None, [], {}, {**RIGHT._asdict(), "works": 1}, {**RIGHT._asdict(), "reason": None}]
)
def test_what_is_no_verdict_is_an_error(document):
    with pytest.raises(ValueError, match="no verdict"):
        probe_result_from_json(document)
