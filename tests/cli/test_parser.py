import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_helpers import make_run, one_line

from jaxlm.cli import main, parse
from jaxlm.cli.corpus import CorpusOptions
from jaxlm.cli.evaluate import EvaluateOptions
from jaxlm.cli.exchange import ExportOptions, ImportOptions
from jaxlm.cli.parser import COMMANDS
from jaxlm.cli.runs import RunsOptions
from jaxlm.cli.sample import SampleOptions
from jaxlm.cli.train import TrainOptions
from jaxlm.runs.config import TrainConfig, config_to_json, format_flag, resolve


@pytest.mark.parametrize("name", COMMANDS)
def test_parse_help_of_each_command(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert not stop.value.code
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert text.startswith(f"usage: jaxlm {name} ")
    assert " ".join(COMMANDS[name][0].__doc__.split()) in text
    assert "--json Print one JSON document" in text
    assert ("MODEL Run directory" in text) == (name in ("evaluate", "sample", "export"))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("train", TrainOptions(TrainConfig())),
        (
            "train --model bigram --lr 0.3 --clip-norm None --text a.txt --tensorboard --out run --json",
            TrainOptions(
                TrainConfig(model="bigram", lr=0.3, clip_norm=None, text=Path("a.txt"), tensorboard=True),
                out=Path("run"),
                json=True,
            ),
        ),
        ("sample run --prompt -5 --top-k 3", SampleOptions(Path("run"), prompt="-5", top_k=3)),
        ("sample run --prompt=--json", SampleOptions(Path("run"), prompt="--json")),
        ("evaluate run --checkpoint 400", EvaluateOptions(Path("run"), checkpoint=400)),
        ("evaluate run --checkpoint best", EvaluateOptions(Path("run"), checkpoint="best")),
        ("corpus", CorpusOptions("list")),
        ("corpus fetch shakespeare", CorpusOptions("fetch", "shakespeare")),
        ("runs", RunsOptions((Path("runs"),))),
        ("runs --json a b", RunsOptions((Path("a"), Path("b")), json=True)),
        ("export run file", ExportOptions(Path("run"), Path("file"))),
        ("import file folder", ImportOptions(Path("file"), Path("folder"))),
    ],
)
def test_parse_returns_the_options(words, options):
    assert parse(words.split()) == options


def test_parse_accepts_every_option_of_training():
    values = {
        "model": "counts",
        "schedule": "constant",
        "tokenizer": "char",
        "clip_norm": "0.5",
        "momentum": "0.25",
    }
    words = ["train"]
    for field in dataclasses.fields(TrainConfig):
        words += [format_flag(field.name), *([] if field.default is False else [values.get(field.name, "7")])]
    config = parse(words).training
    for field in dataclasses.fields(TrainConfig):
        assert getattr(config, field.name) not in (field.default, None)


def test_parse_config_gives_the_defaults_of_train(tmp_path):
    (tmp_path / "options.json").write_text('{"model": "bigram", "lr": 0.3, "seed": 4}')
    words = ["train", "--config", str(tmp_path / "options.json"), "--seed", "5"]
    assert parse(words).training == TrainConfig(model="bigram", lr=0.3, seed=5)
    assert parse([*words, "--lr", "None"]).training == TrainConfig(model="bigram", seed=5)


def test_parse_config_with_another_model_resets_its_options(tmp_path):
    config = resolve(TrainConfig(text=Path("a.txt"), hidden_dim=200, seed=3))
    (tmp_path / "config.json").write_text(json.dumps(config_to_json(config)))
    words = ["--model", "counts", "--tokenizer", "char", "--smoothing", "0.5"]
    training = parse(["train", "--config", str(tmp_path / "config.json"), *words]).training
    expected = TrainConfig(model="counts", text=Path("a.txt"), tokenizer="char", smoothing=0.5, seed=3)
    assert resolve(training) == resolve(expected)


def test_parse_resume_gives_the_options_of_the_run(tmp_path):
    config = resolve(TrainConfig(model="bigram", num_steps=30, tokenizer="char"))
    path = make_run(tmp_path / "run", config=config_to_json(config))
    options = parse(["train", f"--resume={path}", "--num-steps", "50"])
    assert options == TrainOptions(dataclasses.replace(config, num_steps=50), resume=path)


INVALID = {
    "": "missing command; choose one of train, evaluate, .*; see jaxlm --help",
    "trian": r"unknown command 'trian' \(did you mean train\?\); see jaxlm --help",
    "xyz": "unknown command 'xyz'; choose one of train, evaluate, ",
    "--num-steps 3 train": "--num-steps must come after the command, as in: jaxlm runs --num-steps",
    "train --num-stepz 3": "--num-stepz.*did you mean --num-steps.*; see jaxlm train --help",
    "train extra": "extra; see jaxlm train --help",
    "train --num-steps": "--num-steps.*; see jaxlm train --help",
    "train --num-steps 1.5": r"--num-steps.*1\.5",
    "train --model foo": "foo.*--model.*counts",
    "train --resume": "--resume",
    "train --resume nowhere": "nowhere",
    "train --config nowhere": "cannot read nowhere .No such file or directory.; --config must name a JSON file",
    "train --config .": "cannot read . .Is a directory.; --config",
    "train --resume a --config b": "--resume reads the options from the run; remove --config",
    "train --lr nan": "--lr .*nan",
    "sample": "MODEL.*; see jaxlm sample --help",
    "sample run --top-k None": "--top-k.*None",
    "corpus look": "look.*list.*fetch.*verify",
    "runs nowhere": "nowhere does not exist; jaxlm train creates runs",
    "--tyro-print-completion foo": "foo",
}


@pytest.mark.parametrize("words", INVALID)
def test_main_reports_invalid_words_in_one_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    line = one_line(captured.err)
    assert re.match(f"error: .*{INVALID[words]}", line)
    assert captured.out == ""
    if not words.startswith("--tyro"):
        assert main([*words.split(), "--json"]) == 2
        captured = capsys.readouterr()
        assert json.loads(captured.out) == {"error": one_line(captured.err).removeprefix("error: ")}


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_main_error_has_no_colours_and_boxes(encoding, capsys, monkeypatch):
    screen = io.TextIOWrapper(io.BytesIO(), encoding)
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(["train", "--num-stepz", "3"]) == 2
    assert re.fullmatch(r"error: [ -~]*--num-stepz[ -~]*--num-steps[ -~]*", one_line(capsys.readouterr().err))


@pytest.mark.slow
def test_main_help_and_errors_import_no_heavy_library():
    program = (
        "import sys\n"
        "from jaxlm.cli import main\n"
        "def imported(names): return sorted(set(names.split()) & set(sys.modules))\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = imported('jax numpy matplotlib orbax rich typeguard')\n"
        "for words in (['train', '--num-stepz', '3'], ['train', '--config', 'nowhere']): main(words)\n"
        "print(heavy, imported('jax numpy matplotlib orbax'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"


@pytest.mark.slow
def test_python_m_jaxlm_is_the_command():
    done = subprocess.run([sys.executable, "-m", "jaxlm", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert one_line(done.stderr).startswith("error: unknown command 'trian'")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_in_bash_offers_options_and_leaves_files(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--tyro-print-completion", "bash"])
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    program = (
        f"source {tmp_path / 'completion'}; complete -p jaxlm\n"
        "for words in 'jaxlm tr' 'jaxlm train --num' 'jaxlm sample r'; do\n"
        "  COMP_WORDS=($words) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()\n"
        "  _jaxlm; echo ${#COMPREPLY[@]} ${COMPREPLY[@]}\n"
        "done"
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "complete -o default -F _jaxlm jaxlm",
        "1 train",
        "1 --num-steps",
        "0",
    ]
