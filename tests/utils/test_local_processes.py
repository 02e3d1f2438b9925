"""Run local processes together: all end if one fails, and with their parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from jaxlm.utils.processes import find_free_port, run_together

pytestmark = pytest.mark.slow

WAIT = "import time; time.sleep(60)"


def programs(*sources):
    return [[sys.executable, "-c", source] for source in sources]


def test_run_together_returns_zero_after_all_have_ended(tmp_path):
    sources = [
        f"import pathlib, time; time.sleep({n}/5); pathlib.Path(r'{tmp_path}', '{n}').touch()" for n in range(3)
    ]
    assert run_together(programs(*sources)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_run_together_ends_the_others_and_prints_the_first_error(capfd):
    start = time.monotonic()
    assert run_together(programs(WAIT, "import sys; sys.exit('no text')"), grace_seconds=0.5) == 1
    assert time.monotonic() - start < 30
    assert "no text" in capfd.readouterr().err


def test_run_together_shows_an_error_of_all_once(capfd):
    assert run_together(programs("import time; time.sleep(1); exit('of 0')", "exit('of 1')")) == 1
    assert "of 1" not in capfd.readouterr().err


@pytest.mark.parametrize("end", ["import sys; sys.exit(130)", "import os; os.kill(os.getpid(), 15)"])
def test_run_together_ends_the_others_after_an_interruption(end):
    start = time.monotonic()
    assert run_together(programs(end, WAIT), grace_seconds=0.5) == 130
    assert time.monotonic() - start < 30


def test_run_together_names_the_signal_of_a_killed_process():
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"
    killed = "import os; os.kill(os.getpid(), 9)"
    with pytest.raises(ChildProcessError, match="process 1 was ended by SIGKILL"):
        run_together(programs(stubborn, killed), grace_seconds=0.5)


def test_processes_end_with_their_parent(tmp_path):
    child = (
        "from jaxlm.utils.processes import end_with_parent; import os, pathlib, time; end_with_parent(); "
        f"pathlib.Path(r'{tmp_path}', str(os.getpid())).touch(); time.sleep(60)"
    )
    parent = (
        f"from jaxlm.utils.processes import run_together; run_together([[{sys.executable!r}, '-c', {child!r}]])"
    )
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        while not (pids := [int(path.name) for path in tmp_path.iterdir()]):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pids[0], 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pids[0]} still runs")


def test_find_free_port_is_not_privileged():
    assert 1024 <= find_free_port() < 2**16
