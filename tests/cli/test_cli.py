"""The words after `jaxlm`: what they mean, what help says of them, and how what is wrong with them is told."""

import ast
import dataclasses
import inspect
import io
import itertools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import pytest

from jaxlm import cli
from jaxlm.cli import commands, main, parse
from jaxlm.runs.config import TrainConfig, config_to_json, format_flag, resolve
from jaxlm.runs.directory import create_run

COMMANDS = {
    "train": (cli.Train, commands.train_model),
    "evaluate": (cli.Evaluate, commands.evaluate_text),
    "sample": (cli.Sample, commands.sample_text),
    "tokenize": (cli.Tokenize, commands.inspect_tokenizer),
    "corpus": (cli.Corpus, commands.tend_corpora),
    "runs": (cli.Runs, commands.show_runs),
    "devices": (cli.Devices, commands.show_devices),
    "export": (cli.Export, commands.export_file),
    "import": (cli.Import, commands.import_file),
}
each_command = pytest.mark.parametrize("name", COMMANDS)


def help_of(capsys, *words):
    """What `--help` prints, without boxes and line ends."""
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert not stop.value.code
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def documented_fields(record):
    """Each field of a dataclass, and the string below it."""
    statements = ast.parse(inspect.getsource(record)).body[0].body
    for field, below in itertools.pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            yield field.target.id, " ".join(below.value.value.split())


def started_run(path, **options):
    config = resolve(TrainConfig(**options))
    with create_run(path, "train", config_to_json(config), jax.devices("cpu")[0]):
        pass
    return config


def one_line(text):
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text.removesuffix("\n")


@each_command
def test_each_command_has_help(name, capsys):
    record, _ = COMMANDS[name]
    text = help_of(capsys, name)
    assert text.startswith(f"usage: jaxlm {name} ")
    assert " ".join(record.__doc__.split()) in text


def test_help_names_each_command(capsys):
    text = help_of(capsys)
    for name, (record, _) in COMMANDS.items():
        assert f"• {name} {' '.join(record.__doc__.split())}" in text


@pytest.mark.parametrize(
    ("name", "record"),
    [("train", TrainConfig), *((name, record) for name, (record, _) in COMMANDS.items())],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_help_has_a_line_for_each_option(name, record, capsys):
    text = help_of(capsys, name)
    documented = dict(documented_fields(record))
    assert documented.keys() == {field.name for field in dataclasses.fields(record)} - {"training"}
    for option, line in documented.items():
        name_of_it = (
            f"{format_flag(option)} " if format_flag(option) in text else ""
        )  # else it stands alone, by its place
        assert re.search(rf"{name_of_it}[^•]*?{re.escape(line)}", text), option


@each_command
def test_the_options_are_those_of_a_function(name):
    """A script can ask for whatever the command can."""
    record, function = COMMANDS[name]
    options = {field.name for field in dataclasses.fields(record)} - {"json"} - {"config"}
    assert inspect.signature(function).parameters.keys() == options | {"console"}


@pytest.mark.parametrize(
    "words",
    [
        "train --seed 3 --out run --overwrite",
        "evaluate run --part all --text a.txt",
        "sample run --top-k 5",
        "tokenize --encode word",
        "corpus verify shakespeare",
        "runs a b --plot c.png",
        "devices",
        "export run file --overwrite",
        "import file folder",
    ],
)
def test_a_command_calls_its_function_with_what_was_typed(words, monkeypatch, capsys):
    called = []
    _, function = COMMANDS[words.split()[0]]
    monkeypatch.setattr(commands, function.__name__, lambda **options: called.append(options) or {"answer": 42})
    assert main([*words.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"answer": 42}
    (options,) = called
    assert options.pop("console").stderr
    assert options == {
        name: value for name, value in vars(parse(words.split())).items() if name not in ("json", "config")
    }


@each_command
def test_the_defaults_are_those_of_the_function(name):
    record, function = COMMANDS[name]
    parameters = inspect.signature(function).parameters
    for field in dataclasses.fields(record):
        if field.name not in ("json", "config", "training"):
            default = parameters[field.name].default
            assert (field.default is dataclasses.MISSING) == (default is inspect.Parameter.empty)
            assert field.default is dataclasses.MISSING or field.default == default


def test_train_alone_takes_the_defaults():
    assert parse(["train"]) == cli.Train(TrainConfig())


def test_options_of_training_are_typed_without_a_prefix():
    words = [
        "train",
        "--model",
        "bigram",
        "--lr",
        "0.3",
        "--clip-norm",
        "None",
        "--text",
        "a.txt",
        "--tensorboard",
    ]
    config = TrainConfig(model="bigram", lr=0.3, clip_norm=None, text=Path("a.txt"), tensorboard=True)
    assert parse([*words, "--out", "run", "--json"]) == cli.Train(config, out=Path("run"), json=True)


def test_every_option_of_training_can_be_typed():
    typed = {
        "model": "counts",
        "schedule": "constant",
        "tokenizer": "char",
        "clip_norm": "0.5",
        "momentum": "0.25",
    }
    words = ["train"]
    for field in dataclasses.fields(TrainConfig):
        words += [format_flag(field.name), *([] if field.default is False else [typed.get(field.name, "7")])]
    config = parse(words).training
    assert all(
        value not in (field.default, None)
        for field, value in zip(dataclasses.fields(config), dataclasses.astuple(config), strict=True)
    )


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["sample", "run"], cli.Sample(Path("run"))),
        (["sample", "run", "--prompt", "-5", "--top-k", "3"], cli.Sample(Path("run"), prompt="-5", top_k=3)),
        (["sample", "run", "--prompt=--json"], cli.Sample(Path("run"), prompt="--json")),
        (["evaluate", "run", "--checkpoint", "400"], cli.Evaluate(Path("run"), checkpoint=400)),
        (["evaluate", "run", "--checkpoint", "best"], cli.Evaluate(Path("run"), checkpoint="best")),
        (["corpus"], cli.Corpus("list")),
        (["corpus", "fetch", "shakespeare"], cli.Corpus("fetch", "shakespeare")),
        (["runs"], cli.Runs((Path("runs"),))),
        (["runs", "a", "b", "--json"], cli.Runs((Path("a"), Path("b")), json=True)),
        (["runs", "--json", "a", "b"], cli.Runs((Path("a"), Path("b")), json=True)),
        (["export", "run", "file"], cli.Export(Path("run"), Path("file"))),
        (["import", "file", "folder"], cli.Import(Path("file"), Path("folder"))),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_are_understood(words, command):
    assert parse(words) == command


def test_another_model_typed_beside_a_file_takes_its_own_options(tmp_path):
    config = resolve(TrainConfig(text=Path("a.txt"), hidden_dim=200, seed=3))
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))
    words = ["--model", "counts", "--tokenizer", "char", "--smoothing", "0.5"]
    training = parse(["train", "--config", str(tmp_path / "config.json"), *words]).training
    wanted = TrainConfig(model="counts", text=Path("a.txt"), tokenizer="char", smoothing=0.5, seed=3)
    assert resolve(training) == resolve(wanted)


def test_a_file_of_options_is_the_default_and_typed_ones_come_first(tmp_path):
    (tmp_path / "options.json").write_text('{"model": "bigram", "lr": 0.3, "seed": 4}')
    words = ["train", "--config", str(tmp_path / "options.json"), "--seed", "5"]
    assert parse(words).training == TrainConfig(model="bigram", lr=0.3, seed=5)
    assert parse([*words, "--lr", "None"]).training == TrainConfig(model="bigram", seed=5)


def test_the_options_of_a_resumed_run_are_the_default_and_typed_ones_come_first(tmp_path):
    config = started_run(tmp_path / "run", model="bigram", num_steps=30, tokenizer="char")
    command = parse(["train", f"--resume={tmp_path / 'run'}", "--num-steps", "50"])
    assert command == cli.Train(dataclasses.replace(config, num_steps=50), resume=tmp_path / "run")


def test_help_shows_the_options_of_the_run_that_is_resumed(tmp_path, capsys):
    started_run(tmp_path / "run", num_steps=31)
    assert "Training steps in all. (default: 31)" in help_of(capsys, "train", "--resume", str(tmp_path / "run"))


WRONG = {
    "": "name a command: train, evaluate, .*; see jaxlm --help",
    "trian": r"there is no command 'trian' \(is it train\?\); there are train, evaluate",
    "--num-steps 3 train": "--num-steps stands before the command; put it behind, as in: jaxlm runs --num-steps",
    "train --num-stepz 3": "unrecognized options: --num-stepz, 3; did you mean --num-steps INT",
    "train extra": "unrecognized options: extra; see jaxlm train --help",
    "train --num-steps": "missing value for argument '--num-steps', expected 1 values; see jaxlm train --help",
    "train --num-steps 1.5": "--num-steps: invalid literal for int.*'1.5'; see jaxlm train --help",
    "train --lr abc": r"--lr: no type matching .*FLOAT could be instantiated from \['abc'\]; see jaxlm",
    "train --model foo": r"invalid choice 'foo' for argument '--model', expected one of \('counts', ",
    "train --resume": "missing value for argument '--resume'",
    "train --resume nowhere": "nowhere holds no run",
    "train --config nowhere": "cannot read nowhere .No such file or directory.; --config takes a JSON file",
    "train --config .": "cannot read . .Is a directory.; --config takes",
    "train --resume a --config b": "--resume takes the options of its run; leave --config out",
    "train --lr nan": "--lr must be a finite number or null, got nan",
    "train --num-steps -5": "--num-steps must lie in .*, got -5",
    "sample": "missing from jaxlm sample: MODEL A run's folder.*; see jaxlm sample --help",
    "sample run --checkpoint foo": r"--checkpoint: no type matching .*from \['foo'\]",
    "sample run --top-k None": r"--top-k: no type matching INT could be instantiated from \['None'\]",
    "evaluate run --part foo": r"invalid choice 'foo' for argument '--part', expected one of \(",
    "corpus look": "invalid choice 'look' for argument 'action', expected one of .'list', 'fetch', 'verify'",
    "runs nowhere": "there is no folder nowhere; jaxlm train makes runs",
    "export run": "missing from jaxlm export: OUT The file to write",
    "--tyro-print-completion foo": "Shell should be one .*, but got foo",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_told_in_one_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert re.match("error: " + WRONG[words], one_line(captured.err))
    assert captured.out == ""


@pytest.mark.parametrize("words", [words for words in WRONG if not words.startswith("--tyro")])
def test_what_is_wrong_is_one_json_document(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*words.split(), "--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": one_line(captured.err).removeprefix("error: ")}


def test_json_before_the_command_is_json_all_the_same(capsys):
    assert main(["--json", "runs"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == "--json stands before the command; put it behind, as in: jaxlm runs --json"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_colours_and_boxes_stay_out_of_the_line(encoding, capsys, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(["train", "--num-stepz", "3"]) == 2
    assert one_line(capsys.readouterr().err).startswith(
        "error: unrecognized options: --num-stepz, 3; did you mean"
    )


def test_what_steers_a_terminal_is_shown_in_the_line(capsys):
    assert main(["train", "--config", "\x1b[2J"]) == 2
    assert r"cannot read \x1b[2J" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (ValueError("a is 3;\n use b"), 2, "error: a is 3; use b"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 2, "error: a.txt: No such file or directory"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device"),
        (FloatingPointError("loss is nan at step 3"), 2, "error: loss is nan at step 3"),
        (MemoryError("9 GB"), 2, "error: out of memory (9 GB); make the model or the batch smaller"),
        (KeyboardInterrupt("by SIGINT; go on"), 130, "interrupted by SIGINT; go on"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wants_json", [False, True], ids=["plain", "json"])
def test_a_failure_is_a_line_a_code_and_a_document(failure, code, line, wants_json, capsys, monkeypatch):
    def show_devices(*, probe, console):
        raise failure

    monkeypatch.setattr(commands, "show_devices", show_devices)
    assert main(["devices", *(["--json"] if wants_json else [])]) == code
    captured = capsys.readouterr()
    assert one_line(captured.err) == line
    if wants_json:
        assert json.loads(captured.out) == {"error": line.removeprefix("error: ")}
    else:
        assert captured.out == ""


def test_with_json_standard_output_holds_the_document_alone(capsys, monkeypatch):
    def show_devices(*, probe, console):
        console.print("to a person")
        return {"figures": [1.5, math.inf, math.nan]}

    monkeypatch.setattr(commands, "show_devices", show_devices)
    assert main(["devices", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"figures": [1.5, None, None]}
    assert captured.err == "to a person\n"
    assert main(["devices"]) == 0
    assert capsys.readouterr().out == "to a person\n"


def test_a_platform_that_takes_over_no_array_is_no_news(monkeypatch, capsys):
    """JAX's own list of those that do, without the CPU; warnings are errors here."""
    from jax._src.interpreters import mlir

    def show_devices(*, probe, console):
        jax.jit(lambda array: array + 1, donate_argnums=0)(jax.numpy.zeros(3))
        return {}

    monkeypatch.setattr(mlir, "_platforms_with_donation", [])
    with pytest.warns(UserWarning, match="Donation is not implemented for"):
        show_devices(probe=False, console=None)
    monkeypatch.setattr(commands, "show_devices", show_devices)
    assert main(["devices"]) == 0
    assert capsys.readouterr().err == ""


def test_a_bug_is_not_hidden(monkeypatch):
    def show_devices(*, probe, console):
        raise ZeroDivisionError

    monkeypatch.setattr(commands, "show_devices", show_devices)
    with pytest.raises(ZeroDivisionError):
        main(["devices"])


@pytest.fixture
def default_interrupt():
    """SIGINT as at a terminal; what runs in the background may ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("default_interrupt")
def test_an_interrupt_while_jax_is_imported_comes_after_it():
    imported = []

    def start():
        with cli._late_interrupt():
            signal.raise_signal(signal.SIGINT)
            imported.append("jax")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert imported == ["jax"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("default_interrupt")
def test_a_thread_may_run_the_command(monkeypatch, capsys):
    monkeypatch.setattr(commands, "show_devices", lambda *, probe, console: {})
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["devices", "--json"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert capsys.readouterr().out == "{}\n"


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["train", "--help"], "jax numpy matplotlib rich typeguard"),
        (["train", "--num-stepz", "3"], "jax numpy matplotlib"),
        (["train", "--config", "nowhere"], "jax numpy matplotlib"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_wrong_options_wait_for_no_library(words, unwanted):
    program = (
        "import sys\n"
        "from jaxlm.cli import main\n"
        "try: main(sys.argv[2:])\n"
        "except SystemExit: pass\n"
        "print('imported:', sorted(set(sys.argv[1].split()) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, unwanted, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "imported: []"


def test_python_m_jaxlm_is_the_command():
    done = subprocess.run([sys.executable, "-m", "jaxlm", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("error: there is no command 'trian'")


def test_bash_completes_commands_options_and_files(tmp_path, capsys):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    with pytest.raises(SystemExit) as stop:
        main(["--tyro-print-completion", "bash"])
    assert not stop.value.code
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    program = (
        f"source {tmp_path / 'completion'}; complete -p jaxlm\n"
        "for words in 'jaxlm tr' 'jaxlm train --num' 'jaxlm train --model m' 'jaxlm sample run --t' \\\n"
        "  'jaxlm sample r'; do COMP_WORDS=($words) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()\n"
        "  _jaxlm; echo ${#COMPREPLY[@]} ${COMPREPLY[@]}\n"
        "done"
    )
    done = subprocess.run([bash, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "complete -o default -F _jaxlm jaxlm",
        "1 train",
        "1 --num-steps",
        "1 mlp",
        "3 --temperature --top-k --top-p",
        "0",
    ]
