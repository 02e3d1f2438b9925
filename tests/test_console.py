"""What a person at the terminal is told."""

import io
import os
import subprocess
import sys

import jax
import pytest
from rich.console import Console

from jaxlm.console import exit_code, progress, say


def console(**options):
    return Console(file=io.StringIO(), width=100, **options)


def failing_with(error):
    def command():
        raise error

    return command


def test_text_is_printed_as_it_is():
    output = console()
    say(output, "[bold]x[/bold] :smile: " + "long " * 60)
    assert output.file.getvalue() == "[bold]x[/bold] :smile: " + "long " * 60 + "\n"


def test_progress_is_plain_lines_away_from_a_terminal():
    output = console()
    with progress(output, "MLP", 10) as show:
        show(5, "loss 2.0")
        show(10, "loss 1.0")
    assert output.file.getvalue() == "MLP: step 5/10  loss 2.0\nMLP: step 10/10  loss 1.0\n"


def test_progress_is_a_bar_on_a_terminal():
    output = console(force_terminal=True)
    with progress(output, "MLP", 10) as show:
        show(10, "loss 1.0")
    shown = output.file.getvalue()
    assert "10/10" in shown
    assert "loss 1.0" in shown
    assert "━" in shown


def test_done_is_0():
    assert exit_code(lambda: None) == 0


@pytest.mark.parametrize(
    "error",
    [ValueError("a is 3;\n use b"), FileNotFoundError("a is 3; use b"), FloatingPointError("a is 3; use b")],
)
def test_what_the_user_can_mend_is_2_and_one_line(error, capsys):
    assert exit_code(failing_with(error)) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: a is 3; use b\n"
    assert captured.out == ""


def test_no_memory_is_2_and_one_line(capsys):
    assert exit_code(failing_with(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nframe\nframe"))) == 2
    error = capsys.readouterr().err
    assert error == "error: out of memory (RESOURCE_EXHAUSTED: 9 GB); make the model or the batch smaller\n"


def test_what_the_encoding_lacks_is_no_error():
    program = "from jaxlm.console import *; say(standard_output(), 'caf\u00e9 \ufffd')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "caf? ?\n"


def test_interrupted_is_130(capsys):
    assert exit_code(failing_with(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_is_not_hidden():
    for bug in (ZeroDivisionError, RuntimeError):
        with pytest.raises(bug):
            exit_code(failing_with(bug()))
