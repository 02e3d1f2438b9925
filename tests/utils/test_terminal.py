"""What a command prints, on a terminal and elsewhere, and how it ends."""

import io
import os
import signal
import sys
import tempfile
import time
from unittest.mock import Mock

import jax
import pytest
from rich.console import Console
from rich.table import Table

from jaxlm.utils import terminal
from jaxlm.utils.terminal import escape_controls, make_console, print_plain, progress, run_command, write


def console(term="xterm", **options):
    return Console(file=io.StringIO(), width=100, _environ={"TERM": term}, **options)


def test_print_plain_prints_markup_and_long_lines_unchanged():
    output = console()
    print_plain(output, "[bold]x[/bold] :smile: " + "long " * 60)
    assert output.file.getvalue() == "[bold]x[/bold] :smile: " + "long " * 60 + "\n"


def test_write_escapes_on_a_terminal_only():
    for output, expected in (
        (console(), "a\nb\t\x1b[2J[bold]x[/bold]\r:smile:\u202e"),
        (console(force_terminal=True), "a\nb\t\\x1b[2J[bold]x[/bold]\\r:smile:\\u202e"),
    ):
        write(output, "a\nb\t\x1b[2J[bold]x[/bold]\r:smile:\u202e")
        assert output.file.getvalue() == expected


def test_track_prints_a_line_when_the_time_has_passed(monkeypatch):
    pairs = [("a", 2_000_000), ("b", 3_000_000)]
    for seconds, expected in ((60, ""), (-1, "reading: 2 of 5 MB\nreading: 5 of 5 MB\n")):
        monkeypatch.setattr(terminal, "_LINE_SECONDS", seconds)
        output = console()
        assert list(terminal.track(output, "reading", pairs, 5_000_000)) == ["a", "b"]
        assert output.file.getvalue() == expected
    assert list(terminal.track(None, "reading", pairs, 5_000_000)) == ["a", "b"]


def test_track_updates_a_bar_ten_times_a_second(monkeypatch):
    update = Mock()
    monkeypatch.setattr("rich.progress.Progress.update", update)
    for seconds, calls in ((60, 0), (-1, 50)):
        monkeypatch.setattr(terminal, "_BAR_SECONDS", seconds)
        assert len(list(terminal.track(console(force_terminal=True), "reading", [("a", 1)] * 50, 50))) == 50
        assert update.call_count == calls


def test_write_flushes():
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        write(Console(file=file), "at once")
        assert os.fstat(file.fileno()).st_size == len("at once")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\r\x08\x00\x7f", r"\r\x08\x00\x7f"),
        ("\x9b2J\x85", r"\x9b2J\x85"),  # an escape on an 8-bit terminal
        ("\u202etxt.exe\u2066 \u2069", r"\u202etxt.exe\u2066 \u2069"),  # shown in another order
        ("\udce9\ud83d", r"\udce9\ud83d"),
    ],
)
def test_escape_controls(text, expected):
    assert escape_controls(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "plain [bold] caf\u00e9 \u2603 \U0001f3b2\n\tnext",
        "\u0645\u06cc\u200c\u062e \u0915\u094d\u200d\u0937 \u05d0\u200f1\u200e \ufeff",
        "\U0001f469\u200d\U0001f4bb \U0001f3f4\U000e0067\U000e007f soft\u00adhyphen",
    ],
)
def test_escape_controls_keeps_letters_and_joiners(text):
    assert escape_controls(text) == text


def test_progress_draws_a_bar_on_a_terminal():
    output = console(force_terminal=True)
    with progress(output, "MLP [bold]", 10) as update:
        update(10, "loss [red]")
    assert all(part in output.file.getvalue() for part in ("MLP [bold]", "10/10", "loss [red]", "━"))


def test_progress_prints_lines_on_a_dumb_terminal():
    output = console(term="dumb", force_terminal=True)
    assert list(terminal.track(output, "reading", [("a", 1)], 1)) == ["a"]
    with progress(output, "MLP", 10) as update:
        update(5, "loss 1.0")
    assert output.file.getvalue() == "MLP: step 5/10  loss 1.0\n"


@pytest.mark.parametrize("stderr", [False, True])
@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"])
def test_make_console_in_ci_prints_plain_whole_lines(variable, stderr, monkeypatch, capsys):
    monkeypatch.setenv(variable, "1")
    output = make_console(stderr=stderr)
    table = Table("name", "figure")
    table.add_row("long " * 99, "12.5")
    output.print(table)
    with progress(output, "MLP", 10) as update:
        update(10, "loss 1.0")
    shown = "".join(capsys.readouterr())
    assert "\x1b" not in shown
    assert any(("long " * 99).strip() in line and "12.5" in line for line in shown.splitlines())
    assert shown.endswith("\nMLP: step 10/10  loss 1.0\n")


def test_make_console_replaces_what_the_encoding_lacks(monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    print_plain(make_console(), "caf\u00e9 \ufffd")
    assert buffer.getvalue() == b"caf? ?\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("a is 3;\n use b"), 2, "error: a is 3; use b"),
        (ValueError("bad \x1b[2J"), 2, r"error: bad \x1b[2J"),
        (OSError(28, "No space left on device", "run"), 2, "error: run: No space left on device"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device"),
        (FloatingPointError("loss is nan"), 2, "error: loss is nan"),
        (MemoryError("9 GB"), 2, "error: out of memory (9 GB); make the model, the batch or the text smaller"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nframe\nframe"),
            2,
            "error: out of memory (RESOURCE_EXHAUSTED: 9 GB); make the model, the batch or the text smaller",
        ),
        (KeyboardInterrupt("SIGTERM"), 130, "interrupted by SIGTERM"),
    ],
    ids=repr,
)
def test_run_command_prints_one_line_and_returns_a_code(error, code, line, capsys):
    returned, message = run_command(Mock(side_effect=error))
    assert returned == code
    assert capsys.readouterr() == ("", line + "\n")
    assert escape_controls(message) == line.removeprefix("error: ")


def test_print_plain_on_a_full_disk_loses_messages_only():
    with open("/dev/full", "w") as file:  # noqa: PTH123  a device
        print_plain(Console(file=file, stderr=True), "device: cpu")
        print_plain(Console(file=file, stderr=True), "more")
    file = open("/dev/full", "w")  # noqa: PTH123, SIM115
    with pytest.raises(OSError, match="No space left"):
        print_plain(Console(file=file), "a figure")
    with pytest.raises(OSError, match="No space left"):
        file.close()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_run_command_without_a_stream(name, monkeypatch):
    monkeypatch.setattr(sys, name, None)
    assert run_command(lambda: print_plain(make_console(stderr=name == "stderr"), "dropped")) == (0, "")
    assert run_command(Mock(side_effect=ValueError("dropped"))) == (2, "dropped")
    getattr(sys, name).close()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_run_command_is_interrupted_by_a_signal(signum, capsys):
    before = signal.signal(signum, signal.default_int_handler)  # a background process may ignore it
    try:
        assert run_command(lambda: signal.raise_signal(signum) or time.sleep(9))[0] == 130
        assert signal.getsignal(signum) == signal.default_int_handler
    finally:
        signal.signal(signum, before)
    assert capsys.readouterr() == ("", f"interrupted by {signum.name}\n")


@pytest.mark.parametrize("bug", [ZeroDivisionError, RuntimeError])
def test_run_command_does_not_hide_a_bug(bug):
    with pytest.raises(bug):
        run_command(Mock(side_effect=bug))


@pytest.mark.parametrize("show", [write, print_plain, Console.print])
def test_run_command_with_a_closed_pipe(show, monkeypatch, capfd):
    """A closed pipe ends a command that writes text, but not one that prints messages."""
    reader, writer = os.pipe()
    os.close(reader)
    done = []

    def command():
        output = make_console()
        for step in range(3):
            show(output, "line\n")
            done.append(step)

    with os.fdopen(writer, "w") as stdout:  # closing it flushes what is left
        monkeypatch.setattr(sys, "stdout", stdout)
        assert run_command(command) == (0, "")
    assert done == ([] if show is write else [0, 1, 2])
    assert capfd.readouterr() == ("", "")
