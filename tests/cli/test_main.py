"""The `jaxlm` command: words in, exit code, one line or one JSON document out."""

import contextlib
import json
import math
import shlex
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from cli_helpers import SMALL, make_run, one_line

from jaxlm.cli import COMMANDS, main, needs_only_cpu
from jaxlm.cli.count import CountOptions
from jaxlm.cli.devices import DevicesOptions
from jaxlm.cli.evaluate import EvaluateOptions
from jaxlm.cli.exchange import ExportOptions
from jaxlm.cli.sample import SampleOptions
from jaxlm.cli.sweep import SweepOptions, plan
from jaxlm.cli.train import TrainOptions
from jaxlm.runs.config import TrainConfig, config_to_json, resolve
from jaxlm.runs.summary import summarize_run
from jaxlm.utils.terminal import escape_controls


@pytest.fixture
def command(monkeypatch):
    """Return a function that replaces `jaxlm devices` by a function of a console."""

    def replace_command(function):
        monkeypatch.setitem(COMMANDS, "devices", (DevicesOptions, lambda options, console: function(console)))

    return replace_command


@pytest.fixture
def parse_train(monkeypatch):
    """Return a function that runs `jaxlm train` with these words and returns the parsed options."""
    calls = []
    monkeypatch.setitem(COMMANDS, "train", (TrainOptions, lambda options, console: calls.append(options) or {}))

    def parse(*words):
        assert main(["train", *map(str, words)]) == 0
        return calls.pop()

    return parse


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


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (FileNotFoundError(2, "No such file", "a\x1b[2J.txt"), 2, r"error: a\x1b[2J.txt: No such file"),
        (KeyboardInterrupt("SIGINT; resume"), 130, "interrupted by SIGINT; resume"),
    ],
)
def test_main_failure_is_a_line_a_code_and_a_document(failure, code, line, command, capsys):
    def fail(console):
        raise failure

    command(fail)
    for words in ["devices"], ["devices", "--json"]:
        assert main(words) == code
        captured = capsys.readouterr()
        assert one_line(captured.err) == line
        assert bool(captured.out) == ("--json" in words)
    assert json.loads(captured.out)["error"].replace("\x1b", r"\x1b") == line.removeprefix("error: ")


def test_main_hides_the_warning_about_donated_buffers(command, capsys):
    command(lambda console: warnings.warn("Some donated buffers were not usable: float32[3]", stacklevel=1) or {})
    assert main(["devices"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", ["", "train --num-steps 1.5", "sample m --prompt -x"])
def test_main_exits_with_2_for_invalid_words(words, capsys):
    for options in [], ["--json"]:
        with pytest.raises(SystemExit) as stop:
            main(words.split() + options)
        assert stop.value.code == 2
        captured = capsys.readouterr()
        assert bool(captured.out) == bool(options)
        assert "Traceback" not in captured.err
    assert json.loads(captured.out)["error"].startswith("these arguments are not valid")


@pytest.mark.parametrize("words", [["a\x9b2J"], ["train", "--model", "\u202eplm"]])
def test_main_escapes_controls_in_usage_errors(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    message = capsys.readouterr().err
    assert escape_controls(message) == message
    assert escape_controls(words[-1])[:8] in message


@pytest.mark.parametrize("text", ["--Nay", "-x", "--", "-1 in a \x1b million"])
def test_main_says_how_to_pass_a_text_that_starts_with_a_dash(text, monkeypatch, capsys):
    calls = []
    monkeypatch.setitem(COMMANDS, "sample", (SampleOptions, lambda options, console: calls.append(options) or {}))
    with contextlib.suppress(SystemExit):  # a number works
        assert main(["sample", "model", "--prompt", text]) == 0
    hint = capsys.readouterr().err.splitlines()[-1:]
    assert [options.prompt for options in calls] == ([] if hint else [text])
    assert [shlex.split(line)[-1] for line in hint] == ([] if calls else [f"--prompt={escape_controls(text)}"])
    assert main(["sample", "model", f"--prompt={text}"]) == 0
    assert calls[-1].prompt == text


def test_main_expands_the_home_directory(parse_train, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "options.json").write_text('{"text": "~/text.txt", "tokenizer": "~/run"}', "utf-8-sig")
    options = parse_train("--config=~/options.json", "--out=~/runs/new")
    assert (options.out, options.training.text) == (tmp_path / "runs" / "new", tmp_path / "text.txt")
    assert options.training.tokenizer == tmp_path / "run"
    assert parse_train("--text=~/text.txt").training.text == tmp_path / "text.txt"
    assert EvaluateOptions(Path("~/run")).model == tmp_path / "run"
    assert CountOptions(out=Path("x"), merge=(Path("~/a"), Path("b"))).merge == (tmp_path / "a", Path("b"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --resume nowhere", "error: nowhere is not a run directory"),
        ("train --config nowhere", "error: nowhere: No such file"),
        ("train --resume a --config b", "error: --resume reads the options from the run; remove --config"),
        ("train --lr nan", "error: lr must be in [0, 2147483647], got nan"),
        ("--tyro-print-completion foo", "error: Shell should be one"),
    ],
)
def test_main_reports_invalid_values_in_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    assert one_line(capsys.readouterr().err).startswith(message)


def test_train_config_file_gives_the_defaults(parse_train, tmp_path):
    (tmp_path / "options.json").write_text('{"model": "bigram", "lr": 0.3, "seed": 4}')
    words = ["--config", tmp_path / "options.json", "--seed", 5]
    assert parse_train(*words).training == TrainConfig(model="bigram", lr=0.3, seed=5)
    assert parse_train(*words, "--lr", None).training == TrainConfig(model="bigram", seed=5)
    assert parse_train(*words, "--seed", 0).training == TrainConfig(model="bigram", lr=0.3)
    (tmp_path / "options.json").write_text('{"corpus": "shakespeare"}')
    assert parse_train(*words[:2], "--text", "a.txt").training == TrainConfig(text="a.txt")


def test_train_config_file_with_flags(parse_train, tmp_path):
    """Also with a flag that the file already sets."""
    (tmp_path / "options.json").write_text('{"tensorboard": true}')
    options = parse_train("--config", tmp_path / "options.json", "--tensorboard", "--overwrite", "--json")
    assert options.overwrite
    assert options.json
    assert options.training == TrainConfig(tensorboard=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--model counts", {"model": "counts", "text": "/a.txt"}),
        ("--model bigram --lr 0.5", {"model": "bigram", "lr": 0.5, "text": "/a.txt"}),
        ("--model mlp", {"hidden_dim": 200, "text": "/a.txt"}),
        ("--tokenizer char", {"tokenizer": "char", "hidden_dim": 200, "text": "/a.txt"}),
        ("--corpus tinyshakespeare", {"hidden_dim": 200}),
        ("--text /b.txt", {"hidden_dim": 200, "text": "/b.txt"}),
    ],
)
def test_train_config_file_resets_options_of_another_choice(words, expected, parse_train, tmp_path):
    config = resolve(TrainConfig(text="/a.txt", hidden_dim=200, seed=3))
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))
    training = parse_train("--config", tmp_path / "config.json", *words.split()).training
    assert resolve(training) == resolve(TrainConfig(**expected, seed=3))


def test_sweep_config_file_gives_the_options_of_all_runs(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(
        COMMANDS, "sweep", (SweepOptions, lambda options, console: calls.append(plan(options)) or {})
    )
    (tmp_path / "options.json").write_text('{"model": "bigram", "lr": 0.3, "seed": 4}')
    words = f"sweep --config {tmp_path / 'options.json'} --out x --num-steps 50 --grid seed=1,2"
    assert main([*words.split(), "--grid", "lr=1"]) == 0
    assert calls == [[TrainConfig(model="bigram", lr=1, seed=seed, num_steps=50) for seed in (1, 2)]]


def test_train_resume_gives_the_options_of_the_run(parse_train, tmp_path):
    config = resolve(TrainConfig(model="bigram", num_steps=30, tokenizer="char"))
    path = make_run(tmp_path / "run", config=config_to_json(config), own={})
    options = parse_train(f"--resume={path}", "--num-steps", "50")
    assert options == TrainOptions(replace(config, num_steps=50), resume=path)


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


def test_main_delays_an_interrupt_of_its_imports(monkeypatch, capsys):
    class InterruptingFinder:
        @staticmethod
        def find_spec(name, *arguments):
            if name == "jaxlm.utils.compilation_cache":
                signal.raise_signal(signal.SIGINT)

    monkeypatch.delitem(sys.modules, "jaxlm.utils.compilation_cache")
    monkeypatch.setattr(sys, "meta_path", [InterruptingFinder, *sys.meta_path])
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may ignore it
    try:
        assert main(["devices"]) == 130
    finally:
        signal.signal(signal.SIGINT, previous)
    assert capsys.readouterr().err.endswith("interrupted by SIGINT\n")


@pytest.mark.slow
def test_main_help_imports_no_heavy_library():
    program = (
        "import sys\n"
        "from jaxlm.cli import main\n"
        "for words in ['--help'], ['train', '--help'], ['train', '--num-stepz', '3'], ['--help', 'devices']:\n"
        "    try: main(words)\n"
        "    except SystemExit: pass\n"
        "print(sorted(set('jax numpy matplotlib orbax rich filelock'.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_train_interrupted_says_how_to_resume(text, tmp_path):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "num_steps"]
    path = tmp_path / "run"
    words = ["train", f"--text={text}", *options, "--num-steps=1000000", f"--out={path}"]
    program = (  # a process in the background may ignore SIGINT
        "import runpy, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('jaxlm', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", program, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any("validation perplexity" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith(f"interrupted by SIGINT; resume with: jaxlm train --resume {path}\n")
    assert summarize_run(path)["state"] == "interrupted"
