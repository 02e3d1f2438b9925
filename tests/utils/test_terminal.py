"""What a person at the terminal is told."""

import io
import os
import subprocess
import sys
import tempfile

import jax
import pytest
from rich.console import Console

from jaxlm.utils.terminal import escape_controls, print_plain, progress, run_command, write


def console(**options):
    return Console(file=io.StringIO(), width=100, **options)


def failing_with(error):
    def command():
        raise error

    return command


def test_text_is_printed_as_it_is():
    output = console()
    print_plain(output, "[bold]x[/bold] :smile: " + "long " * 60)
    assert output.file.getvalue() == "[bold]x[/bold] :smile: " + "long " * 60 + "\n"


@pytest.mark.parametrize("text", ["no line's end", "a\nb\t\x1b[2J[bold]x[/bold]\r:smile:\u202e", "", "\ud800"])
def test_text_is_written_as_it_is_to_a_file(text):
    output = console()
    write(output, text)
    write(output, text)
    assert output.file.getvalue() == text * 2


def test_text_is_written_to_a_terminal_without_what_steers_it():
    output = console(force_terminal=True)
    write(output, "a\x1b[2J\nb")
    assert output.file.getvalue() == "a\\x1b[2J\nb"


def test_text_is_written_at_once():
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        write(Console(file=file), "at once")
        assert os.fstat(file.fileno()).st_size == len("at once")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold] caf\u00e9 \u2603 \U0001f3b2\n\tnext", "plain [bold] caf\u00e9 \u2603 \U0001f3b2\n\tnext"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\r\x08\x00\x7f", r"\r\x08\x00\x7f"),
        ("\x9b2J\x85", r"\x9b2J\x85"),  # what a terminal of 8 bits takes for an escape
        ("\u202etxt.exe\u200b\ufeff", r"\u202etxt.exe\u200b\ufeff"),  # backwards, or unseen
        ("\udce9\U000e0041", r"\udce9\U000e0041"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text, shown):
    assert escape_controls(text) == shown


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
    assert run_command(lambda: None) == 0


@pytest.mark.parametrize(
    "error",
    [ValueError("a is 3;\n use b"), FileNotFoundError("a is 3; use b"), FloatingPointError("a is 3; use b")],
)
def test_what_the_user_can_mend_is_2_and_one_line(error, capsys):
    assert run_command(failing_with(error)) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: a is 3; use b\n"
    assert captured.out == ""


def test_no_memory_is_2_and_one_line(capsys):
    assert run_command(failing_with(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nframe\nframe"))) == 2
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


@pytest.mark.parametrize(("signals", "told"), [((), "interrupted\n"), (("SIGTERM",), "interrupted SIGTERM\n")])
def test_interrupted_is_130(signals, told, capsys):
    assert run_command(failing_with(KeyboardInterrupt(*signals))) == 130
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("a is 3;\n use b"), ["a is 3; use b"]),
        (MemoryError("9 GB"), ["out of memory (9 GB); make the model or the batch smaller"]),
        (KeyboardInterrupt("SIGTERM"), ["interrupted SIGTERM"]),
        (BrokenPipeError(), []),
    ],
    ids=repr,
)
def test_who_asked_is_told_why_it_failed(error, told, capsys, monkeypatch):
    with tempfile.TemporaryFile("w") as file:  # it is turned away from a reader that has gone
        monkeypatch.setattr(sys, "stdout", file)
        seen = []
        run_command(failing_with(error), on_failure=seen.append)
    assert seen == told
    assert capsys.readouterr().err.removeprefix("error: ").splitlines() == told


def test_who_asked_is_told_nothing_where_nothing_failed():
    run_command(lambda: None, on_failure=lambda message: pytest.fail(message))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "last"),
    [("write(output, 'line\\n')", ""), ("say(output, 'line')", "done\n"), ("output.print('line')", "done\n")],
)
def test_a_reader_that_has_gone_ends_the_writing_of_text_quietly_and_no_work_that_tells_of_itself(words, last):
    program = f"""
import sys
from jaxlm.console import *

output = standard_output()
def command():
    for _ in range(100_000):
        {words}
    print("done", file=sys.stderr)

sys.exit(exit_code(command))
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "line\n"
            process.stdout.close()
            assert process.wait(timeout=300) == 0
            assert process.stderr.read() == last
        finally:
            process.kill()


def test_a_bug_is_not_hidden():
    for bug in (ZeroDivisionError, RuntimeError):
        with pytest.raises(bug):
            run_command(failing_with(bug()))
