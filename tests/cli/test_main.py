import json
import math
import os
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import pytest
from cli_helpers import SMALL, make_run, one_line, pipe

from jaxlm.cli import main
from jaxlm.cli.devices import DevicesOptions
from jaxlm.cli.evaluate import EvaluateOptions
from jaxlm.cli.exchange import ExportOptions
from jaxlm.cli.parser import COMMANDS
from jaxlm.cli.runs import RunsOptions, show_runs
from jaxlm.cli.startup import defer_interrupt, needs_only_cpu
from jaxlm.cli.train import TrainOptions
from jaxlm.runs.config import TrainConfig


@pytest.fixture
def command(monkeypatch):
    """Call it with a function of a console to make that what `jaxlm devices` does."""

    def replace(function):
        monkeypatch.setitem(COMMANDS, "devices", (DevicesOptions, lambda options, console: function(console)))

    return replace


def test_main_json_has_the_document_alone_on_standard_output(command, capsys):
    def print_and_return(console):
        console.print("for a person")
        return {"figures": [1.5, math.inf, math.nan]}

    command(print_and_return)
    assert main(["devices", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"figures": [1.5, None, None]}
    assert captured.err == "for a person\n"
    assert main(["devices"]) == 0
    assert capsys.readouterr().out == "for a person\n"


def test_main_failure_is_a_line_a_code_and_a_document(command, capsys):
    missing = FileNotFoundError(2, "No such file or directory", "a.txt")
    for failure, code, line in [
        (missing, 2, "error: a.txt: No such file or directory"),
        (KeyboardInterrupt("by SIGINT; resume"), 130, "interrupted by SIGINT; resume"),
    ]:

        def fail(console, failure=failure):
            raise failure

        command(fail)
        document = {"error": line.removeprefix("error: ")}
        for words, expected in (["devices"], None), (["devices", "--json"], document):
            assert main(words) == code
            captured = capsys.readouterr()
            assert one_line(captured.err) == line
            assert (json.loads(captured.out) if captured.out else None) == expected


def test_main_hides_the_warning_about_donated_buffers(command, monkeypatch, capsys):
    from jax._src.interpreters import mlir

    def donate(console):
        jax.jit(lambda array: array + 1, donate_argnums=0)(jax.numpy.zeros(3))
        return {}

    monkeypatch.setattr(mlir, "_platforms_with_donation", [])
    with pytest.warns(UserWarning, match="Donation is not implemented for"):
        donate(None)
    command(donate)
    assert main(["devices"]) == 0
    assert capsys.readouterr().err == ""


def test_needs_only_cpu(monkeypatch):
    for options, variable, expected in [
        (TrainOptions(TrainConfig(device="cpu")), "", True),
        (TrainOptions(TrainConfig()), "", False),
        (TrainOptions(TrainConfig()), "cpu", True),
        (EvaluateOptions(Path("run"), device="gpu"), "cpu", False),
        (ExportOptions(Path("run"), Path("file")), "", True),
    ]:
        monkeypatch.setenv("JAXLM_DEVICE", variable)
        assert needs_only_cpu(options) == expected, options


@pytest.fixture
def default_interrupt():
    """SIGINT as at a terminal; a process in the background may ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("default_interrupt")
def test_defer_interrupt_raises_after_the_block():
    done = []

    def block():
        with defer_interrupt():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with ThreadPoolExecutor() as executor:  # threads cannot handle signals, and need not
        executor.submit(lambda: defer_interrupt().__enter__()).result()


# Make standard input the controlling terminal, so that Ctrl-C reaches the process, and do not ignore SIGINT.
TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "jaxlm", *sys.argv[1:]])
"""


def run_on_terminal(words, *, interrupt_at=None):
    """Run the command on a terminal of its own; return its code and its output."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    command = [sys.executable, "-c", TAKE_TERMINAL, *words]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    output = b""
    while select.select([master], [], [], 60)[0]:
        try:
            output += os.read(master, 4096)
        except OSError:  # how Linux reports the end
            break
        if interrupt_at is not None and interrupt_at in output:
            os.write(master, b"\x03")
            interrupt_at = None
    os.close(master)
    return process.wait(60), output.decode().replace("\r\n", "\n")


@pytest.mark.slow
def test_sample_on_a_terminal_equals_a_pipe(mlp):
    words = ["sample", str(mlp), "--prompt", "to be", "--num-tokens", "300"]
    code, output = run_on_terminal(words)
    assert code == 0
    piped = subprocess.run([sys.executable, "-m", "jaxlm", *words], capture_output=True, text=True, check=True)
    assert output == piped.stderr + piped.stdout


@pytest.mark.slow
def test_train_ctrl_c_says_how_to_resume(text, tmp_path):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "num_steps"]
    path = tmp_path / "run"
    words = ["train", f"--text={text}", *options, "--num-steps=1000000", f"--out={path}"]
    code, output = run_on_terminal(words, interrupt_at=b"validation perplexity")
    assert code == 130
    assert output.endswith(f"interrupted by SIGINT; resume with: jaxlm train --resume {path}\n")
    assert show_runs(RunsOptions((path,)), pipe())["runs"][0]["state"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["runs"], ["runs", "--json"]], ids=" ".join)
def test_main_ends_quietly_when_the_reader_has_gone(words, tmp_path):
    make_run(tmp_path / "run")
    command = [sys.executable, "-m", "jaxlm", *words, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 0
    assert "Error" not in error
