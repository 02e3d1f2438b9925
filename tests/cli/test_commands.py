"""What each subcommand does: what a person reads, what a program gets, and what is refused."""

import io
import json
import math
import os
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from jaxlm.cli import commands
from jaxlm.devices.selection import Choice
from jaxlm.runs.config import TrainConfig, config_to_json
from jaxlm.runs.directory import create_run
from jaxlm.runs.load import read_run_config
from jaxlm.runs.manifest import read_manifest, write_manifest
from jaxlm.runs.metrics_log import append_metrics, replace_nonfinite
from jaxlm.runs.setup import SAMPLE_FOLD

CPU = jax.devices("cpu")[0]
TEXT = "to be or not to be that is the question\n" * 60
SMALL = {
    "tokenizer": "char",
    "embedding_dim": 4,
    "hidden_dim": 8,
    "batch_size": 8,
    "num_steps": 20,
    "log_every": 10,
}


class Screen(io.StringIO):
    """Keeps each write apart, as a terminal shows them one after the other."""

    def __init__(self):
        super().__init__()
        self.writes = []

    def write(self, text):
        self.writes.append(text)
        return super().write(text)


def pipe():
    return Console(file=Screen(), width=100)


def terminal():
    return Console(file=Screen(), width=100, force_terminal=True, color_system=None)


def shown(console):
    return console.file.getvalue()


def check_document(document):
    json.dumps(replace_nonfinite(document), allow_nan=False)


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "hamlet.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="session")
def trained(text, tmp_path_factory):
    """A small run, its document and what was printed."""
    console = pipe()
    path = tmp_path_factory.mktemp("runs") / "small"
    document = commands.train_model(TrainConfig(text=text, **SMALL), out=path, console=console)
    return path, document, shown(console)


@pytest.fixture(scope="session")
def run(trained):
    return trained[0]


def saved_counts(path, text):
    """A table of the pairs of bytes in `text`, and of no others, saved as a model's folder."""
    tokenizer = jaxlm.ByteTokenizer()
    model = jaxlm.CountsBigramLM(tokenizer.vocab_size, smoothing=0.0)
    variables = model.fit(jaxlm.init(model, jax.random.key(0)), tokenizer.encode(text))
    jaxlm.save_model(path, model, variables, tokenizer)
    return path


def told_run(path, *, ends=None, kind="train", config=None, losses=(), **facts):
    """A run's folder as a session that ended so leaves it, without the work."""
    try:
        with create_run(path, kind, config or config_to_json(TrainConfig()), CPU, facts=facts):
            for step, loss in enumerate(losses):
                line = {"model": "mlp", "step": step, "train_loss": loss, "val_perplexity": math.exp(loss)}
                append_metrics(path / "metrics.jsonl", {**line, "val_nats_per_token": loss})
            if ends is not None:
                raise ends
    except (KeyboardInterrupt, OSError):
        assert ends is not None
    return path


# ---- train


def test_train_shows_figures_a_sample_and_what_to_do_next(trained):
    path, document, printed = trained
    assert "\nMLP " in printed
    assert document["results"]["samples"]["MLP"] in printed
    assert printed.endswith(f"look at {path / 'report.html'}; or: jaxlm sample {path}\n")


def test_train_returns_headline_figures_and_results(trained):
    path, document, _ = trained
    check_document(document)
    (row,) = document["results"]["models"]
    assert (document["state"], document["path"], document["steps"]) == ("done", str(path), 20)
    assert document["perplexity"] == row["perplexity"] == pytest.approx(math.exp(row["nats_per_token"]))


def test_a_run_that_is_done_is_shown_again(run):
    console = pipe()
    document = commands.train_model(read_run_config(run), resume=run, console=console)
    assert f"{run} is done: 20 steps; --num-steps lets it go on" in shown(console)
    assert document["steps"] == 20


@pytest.mark.parametrize("other", [{"out": Path("elsewhere")}, {"overwrite": True}])
def test_a_resumed_run_stays_in_its_folder(run, other):
    with pytest.raises(ValueError, match="leave --out and --overwrite out"):
        commands.train_model(TrainConfig(), resume=run, **other)


@pytest.mark.parametrize(("words", "name"), [(["SIGTERM"], "SIGTERM"), ([], "SIGINT")])
def test_an_interrupted_training_says_how_to_go_on(words, name, monkeypatch):
    def start_run(config, out, *, on_start, **options):
        on_start(Path("runs/begun here"))
        raise KeyboardInterrupt(*words)

    monkeypatch.setattr(commands, "start_run", start_run)
    with pytest.raises(
        KeyboardInterrupt, match=rf"^by {name}; go on with: jaxlm train --resume 'runs/begun here'$"
    ):
        commands.train_model(TrainConfig())


def test_an_interrupt_before_there_is_a_run_says_only_that(monkeypatch):
    def start_run(config, out, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "start_run", start_run)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        commands.train_model(TrainConfig())


def test_an_interrupted_resume_says_how_to_go_on(run, monkeypatch):
    def resume_run(path, config, **options):
        raise KeyboardInterrupt("SIGTERM")

    monkeypatch.setattr(commands, "resume_run", resume_run)
    with pytest.raises(KeyboardInterrupt, match=f"^by SIGTERM; go on with: jaxlm train --resume {run}$"):
        commands.train_model(TrainConfig(), resume=run)


# ---- evaluate


def test_a_run_is_evaluated_on_its_own_validation_text(trained, text):
    path, trained_document, _ = trained
    console = pipe()
    document = commands.evaluate_text(path, console=console)
    check_document(document)
    assert document["perplexity"] == trained_document["perplexity"]
    assert document["bits_per_byte"] == pytest.approx(document["nats_per_token"] / math.log(2))  # a byte a token
    assert (document["part"], document["text"]) == ("validation", str(text))
    assert shown(console) == (
        "device: cpu:0 (cpu): no accelerator's plugin is installed\n"
        f"{text}, validation: {document['num_tokens']} tokens, perplexity {document['perplexity']:.2f}, "
        f"{document['nats_per_token']:.4f} nats/token, {document['bits_per_byte']:.3f} bits/byte\n"
    )


def test_the_parts_of_a_text_are_those_of_training(run):
    tokens = {
        part: commands.evaluate_text(run, part=part)["num_tokens"] for part in ("validation", "train", "all")
    }
    assert tokens == {"validation": 240 - 3, "train": 2160 - 3, "all": 2400 - 3}


def test_another_text_is_evaluated_whole_and_may_be_short(run, tmp_path):
    (tmp_path / "short.txt").write_text("to be")
    document = commands.evaluate_text(run, text=tmp_path / "short.txt")
    assert (document["part"], document["num_tokens"]) == ("all", 2)


def test_a_saved_model_and_an_exported_file_score_as_their_run(run, text, tmp_path):
    commands.export_file(run, tmp_path / "model.safetensors")
    models = [run, run / "model", tmp_path / "model.safetensors"]
    scores = {commands.evaluate_text(model, text=text)["nats_per_token"] for model in models}
    assert len(scores) == 1


def test_a_checkpoint_is_named_by_its_number(run):
    last, best = (commands.evaluate_text(run, checkpoint=checkpoint) for checkpoint in (20, "best"))
    assert last["perplexity"] == commands.evaluate_text(run)["perplexity"] >= best["perplexity"]
    with pytest.raises(FileNotFoundError, match=r"has no checkpoint 7; there are final, best, last, .*20"):
        commands.evaluate_text(run, checkpoint=7)


def test_a_text_that_has_changed_is_not_taken_for_the_runs_own(run, text, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    write_manifest(other, read_manifest(run) | {"corpus": {"sha256": "0" * 64}})
    with pytest.raises(
        ValueError, match=r"hamlet\.txt has changed since .*run was trained on it; --text takes it"
    ):
        commands.evaluate_text(other)
    assert commands.evaluate_text(other, text=text)["num_tokens"] == len(TEXT) - 3


def test_evaluate_refuses_what_names_no_text(run, text):
    with pytest.raises(ValueError, match=r"--text .* and --corpus shakespeare both name a text; leave one"):
        commands.evaluate_text(run, text=text, corpus="shakespeare")
    with pytest.raises(ValueError, match="is no run, so it has no text of its own: name one by --text FILE or"):
        commands.evaluate_text(run / "model")


# ---- what is no model


@pytest.mark.parametrize(
    "use",
    [
        commands.evaluate_text,
        commands.sample_text,
        lambda path: commands.export_file(path, path.parent / "model.safetensors"),
    ],
    ids=["evaluate", "sample", "export"],
)
def test_what_is_no_model_is_told(use, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere; name a run's folder, a saved model's"):
        use(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no run and no saved model"):
        use(tmp_path / "empty")
    (tmp_path / "noise.txt").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"noise\.txt is damaged, or no safetensors file"):
        use(tmp_path / "noise.txt")
    damaged = told_run(tmp_path / "damaged")
    (damaged / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        use(damaged)
    ladder = told_run(tmp_path / "ladder", kind="ladder", config={"seed": 0})
    saved_counts(ladder / "models" / "counts", "abab")
    with pytest.raises(ValueError, match=r"is a run of several models; name one of .*ladder/models/counts"):
        use(ladder)


# ---- sample


def test_a_sample_is_that_of_the_library(run):
    console = pipe()
    document = commands.sample_text(run, prompt="to be", num_tokens=30, seed=3, console=console)
    check_document(document)
    model, variables, tokenizer = jaxlm.open_model(run)
    key = jax.random.fold_in(jax.random.key(3), SAMPLE_FOLD)
    ids = jaxlm.sample(model, variables, tokenizer.encode("to be"), 30, key=key)
    assert document["samples"] == [tokenizer.decode(ids)]
    assert document["ids"] == [ids.tolist()]
    assert shown(console) == document["samples"][0] + "\n"


def test_it_appears_on_a_terminal_as_it_is_drawn(run):
    console = terminal()
    document = commands.sample_text(run, prompt="to be", num_tokens=30, console=console)
    assert shown(console) == document["samples"][0] + "\n"
    assert len([text for text in console.file.writes if text]) == 1 + 30 + 1
    assert document == commands.sample_text(run, prompt="to be", num_tokens=30)


def test_the_line_ends_before_a_short_prompt_are_not_shown(run):
    console = pipe()
    document = commands.sample_text(run, prompt="t", num_tokens=4, console=console)
    assert document["samples"][0].startswith("t")
    assert [len(ids) for ids in document["ids"]] == [5]
    assert len(shown(console)) == 5 + 1


@pytest.mark.parametrize("prompt", ["", "to be"])
def test_no_tokens_are_the_prompt_alone(run, prompt):
    console = terminal()
    assert commands.sample_text(run, prompt=prompt, num_tokens=0, console=console)["samples"] == [prompt]
    assert shown(console) == prompt + "\n"


def test_several_streams_are_numbered(run):
    console = terminal()
    document = commands.sample_text(run, num_tokens=6, streams=2, temperature=0, console=console)
    first, second = document["samples"]
    assert first == second
    assert shown(console) == f"--- 1 ---\n{first}\n--- 2 ---\n{second}\n"


def test_a_character_of_several_tokens_appears_whole(tmp_path):
    model = saved_counts(tmp_path / "model", "日本語\n" * 20)
    console = terminal()
    document = commands.sample_text(model, prompt="語", num_tokens=40, console=console)
    assert shown(console) == document["samples"][0] + "\n"
    prompt, *pieces, _ = console.file.writes
    assert prompt == "語"
    assert {*pieces} <= {"", "日", "本", "語", "\n"}
    assert sum(map(bool, pieces)) > 10


def test_what_steers_a_terminal_is_shown_there_and_exact_elsewhere(tmp_path):
    model = saved_counts(tmp_path / "model", "\x1b[2J" * 20)
    screen, file = terminal(), pipe()
    for console in (screen, file):
        commands.sample_text(model, prompt="\x1b", num_tokens=3, console=console)
    assert shown(screen) == "\\x1b[2J\n"
    assert shown(file) == "\x1b[2J\n"


def test_a_sample_that_breaks_off_ends_its_line(tmp_path):
    model = saved_counts(tmp_path / "model", "abcd")  # nothing ever came after the d
    console = terminal()
    with pytest.raises(ValueError, match="no token has any probability"):
        commands.sample_text(model, prompt="a", num_tokens=9, console=console)
    assert shown(console) == "abcd\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, r"--seed must lie in 0\.\.4294967295, got -1"),
        ({"seed": 2**32}, "--seed must lie in"),
        ({"streams": 0}, "--streams must be at least 1, got 0"),
        ({"num_tokens": -1}, "num_tokens must be at least 0, got -1"),
        ({"temperature": math.nan}, "temperature must be finite .* got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\]"),
        ({"prompt": "to £"}, "character '£' at position 3 is not among the"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_sample_refuses(run, options, message):
    console = terminal()
    with pytest.raises(ValueError, match=message):
        commands.sample_text(run, console=console, **options)
    assert shown(console) == ""


# ---- tokenize


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_a_tokenizer_is_trained_shown_and_saved(kind, text, tmp_path):
    console = pipe()
    out = tmp_path / "tokenizer.json"
    vocab_size = 260 if kind == "bpe" else None
    document = commands.inspect_tokenizer(
        text=text, tokenizer=kind, vocab_size=vocab_size, encode="to be", out=out, console=console
    )
    check_document(document)
    tokenizer = jaxlm.load_tokenizer(out)
    ids = tokenizer.encode(TEXT)
    assert (document["vocab_size"], document["tokens"]) == (tokenizer.vocab_size, len(ids))
    assert document["bytes_per_token"] == len(TEXT) / len(ids)
    assert document["unused"] == tokenizer.vocab_size - len(set(ids.tolist()))
    assert "".join(each["token"] for each in document["encoded"]) == "to be"
    best = document["frequent"][0]
    assert best["count"] == np.bincount(ids).max() == (ids == best["id"]).sum()
    lines = shown(console).splitlines()
    assert lines[0].startswith(f"{text}: 2,400 characters, {len(ids):,} tokens")
    assert [line.split(":")[0] for line in lines[1:]] == ["frequent", "longest", "encoded", "saved"]


def test_a_saved_tokenizer_is_shown(run, text):
    of_run, of_file = (commands.inspect_tokenizer(text=text, load=load) for load in (run, run / "tokenizer.json"))
    assert of_run == of_file
    assert of_run["vocab_size"] == len(set(TEXT))


def test_a_word_that_cannot_be_encoded_leaves_no_file(text, tmp_path):
    console = pipe()
    with pytest.raises(ValueError, match="character '£'"):
        commands.inspect_tokenizer(
            text=text, tokenizer="char", encode="£", out=tmp_path / "tokenizer.json", console=console
        )
    assert shown(console) == ""
    assert not (tmp_path / "tokenizer.json").exists()


def test_tokenize_refuses(text, run):
    with pytest.raises(FileExistsError, match=r"hamlet\.txt exists; choose another --out"):
        commands.inspect_tokenizer(text=text, tokenizer="byte", out=text)
    for options in ({"tokenizer": "byte"}, {"load": run}):
        with pytest.raises(ValueError, match="--vocab-size 300 is for a BPE tokenizer that is trained here"):
            commands.inspect_tokenizer(text=text, vocab_size=300, **options)
    with pytest.raises(ValueError, match="vocab_size=0 is below the 256 bytes"):
        commands.inspect_tokenizer(text=text, vocab_size=0)


# ---- corpus


def test_corpora_are_listed_where_they_will_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path))
    console = pipe()
    document = commands.tend_corpora(console=console)
    check_document(document)
    assert document["corpora"][0] == {
        "name": "tinyshakespeare",
        "path": str(tmp_path / "tinyshakespeare.txt"),
        "bytes": None,
    }
    assert shown(console).splitlines()[1] == (
        f"shakespeare: not here yet (jaxlm corpus fetch shakespeare), {tmp_path / 'shakespeare.txt'}"
    )
    (tmp_path / "shakespeare.txt").write_text("x" * 1234)
    console = pipe()
    commands.tend_corpora("list", "shakespeare", console=console)
    assert shown(console) == f"shakespeare: 1,234 bytes, {tmp_path / 'shakespeare.txt'}\n"


def test_corpora_are_fetched_and_verified(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(commands, "load_corpus", lambda name: done.append(("fetch", name)))
    monkeypatch.setattr(commands, "verify_corpus", lambda name: done.append(("verify", name)))
    for action in ("fetch", "verify"):
        commands.tend_corpora(action)
    names = "tinyshakespeare", "shakespeare"
    assert done == [(action, name) for action in ("fetch", "verify") for name in names]


def test_a_corpus_that_is_damaged_missing_or_unknown_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="fetch it: jaxlm corpus fetch tinyshakespeare"):
        commands.tend_corpora("verify")
    (tmp_path / "tinyshakespeare.txt").write_text("To be")
    with pytest.raises(ValueError, match=r"tinyshakespeare\.txt is damaged"):
        commands.tend_corpora("verify", "tinyshakespeare")
    with pytest.raises(ValueError, match="no corpus is named 'hamlet'; there are"):
        commands.tend_corpora("list", "hamlet")


# ---- runs


@pytest.fixture
def runs(tmp_path):
    """A folder of runs that ended in each way."""
    folder = tmp_path / "runs"
    told_run(folder / "done", losses=[4.0, 2.5])
    told_run(folder / "stopped", ends=KeyboardInterrupt("SIGINT"), losses=[4.0])
    told_run(folder / "full", ends=OSError("no space; free some space, and go on with --resume runs/full"))
    killed = told_run(folder / "killed")
    write_manifest(killed, read_manifest(killed) | {"state": "running", "ended": None})
    (told_run(folder / "torn") / "manifest.json").write_text("{")
    told_run(folder / "ladder", kind="ladder", config={"seed": 0}, ends=KeyboardInterrupt("SIGTERM"))
    (folder / "notes").mkdir()
    return folder


def test_runs_are_listed_with_what_ails_them_and_how_to_go_on(runs):
    console = pipe()
    document = commands.show_runs([runs], console=console)
    check_document(document)
    assert {row["run"]: row["state"] for row in document["runs"]} == {
        "done": "done",
        "stopped": "interrupted",
        "full": "failed",
        "killed": "killed",
        "torn": "damaged",
        "ladder": "interrupted",
    }
    lines = set(shown(console).splitlines())
    assert f"stopped: interrupted (SIGINT); go on with: jaxlm train --resume {runs / 'stopped'}" in lines
    assert f"killed: killed; go on with: jaxlm train --resume {runs / 'killed'}" in lines
    assert "full: failed (no space; free some space, and go on with --resume runs/full)" in lines
    assert "ladder: interrupted (SIGTERM)" in lines
    assert f"torn: damaged ({runs / 'torn' / 'manifest.json'} is damaged: it is no JSON)" in lines
    assert not any(line.startswith("done:") for line in lines)


def test_one_run_is_told_of(runs):
    path = told_run(runs / "noted", ends=KeyboardInterrupt("SIGINT"), losses=[2.0])
    write_manifest(path, read_manifest(path) | {"notes": ["resumed on another \x1b[2J device"], "seconds": 61.25})
    console = pipe()
    document = commands.show_runs([path], console=console)
    check_document(document)
    assert document["manifest"]["state"] == document["runs"][0]["state"] == "interrupted"
    *_, time_line, note, way_on = shown(console).splitlines()
    assert re.fullmatch(r"started \S+, ended \S+; 61\.2 s", time_line)
    assert note == r"note: resumed on another \x1b[2J device"
    assert way_on == f"{path}: interrupted (SIGINT); go on with: jaxlm train --resume {path}"


def test_runs_are_compared_in_one_table_and_one_plot(runs, tmp_path):
    corpus, tokenizer = {"sha256": "a"}, {"sha256": "b", "vocab_size": 64}
    config = config_to_json(TrainConfig(num_steps=2, clip_norm=None))
    paths = [
        told_run(runs / "one", losses=[4.0, 3.0], corpus=corpus, tokenizer=tokenizer),
        told_run(runs / "two", losses=[4.0, 2.0], config=config, corpus=corpus, tokenizer=tokenizer),
    ]
    console, plot = pipe(), tmp_path / "pictures" / "both.png"
    document = commands.show_runs(paths, plot=plot, console=console)
    check_document(document)
    one, two = map(str, paths)
    assert document["differing"] == {"num_steps": {one: 6000, two: 2}, "clip_norm": {one: 1.0, two: None}}
    assert [row["perplexity"] for row in document["runs"]] == pytest.approx([math.exp(3), math.exp(2)])
    assert (document["notes"], document["plot"]) == ([], str(plot))
    assert plot.read_bytes().startswith(b"\x89PNG")
    lines = [line.split() for line in shown(console).splitlines()]
    assert ["--num-steps", "6000", "2"] in lines
    assert ["--clip-norm", "1.0", "-"] in lines
    assert shown(console).endswith(f"look at {plot}\n")


def test_the_plot_has_a_place_of_its_own(runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    drawn = []
    monkeypatch.setattr(commands, "plot_curves", lambda path, *data: drawn.append((path, *data)))
    document = commands.show_runs([Path("runs/done"), Path("runs/stopped"), Path("runs/done")])
    ((path, curves, floors, vocab_size),) = drawn
    assert re.fullmatch(r"runs/comparison-\d{8}-\d{6}\.png", document["plot"])
    assert path == Path(document["plot"])
    assert {title: len(lines) for title, lines in curves.items()} == {"runs/done: mlp": 2, "runs/stopped: mlp": 1}
    assert (floors, vocab_size) == ({}, None)


def test_what_does_not_compare_is_told(runs, monkeypatch):
    monkeypatch.setattr(commands, "plot_curves", lambda *data: None)
    facts = [("a", "b"), ("a", "c"), ("d", "c")]
    one, two, three = (
        told_run(runs / f"of {text} {tokenizer}", corpus={"sha256": text}, tokenizer={"sha256": tokenizer})
        for text, tokenizer in facts
    )
    plot = runs / "both.png"
    (note,) = commands.show_runs([one, two], plot=plot)["notes"]
    assert note == "these runs have different tokenizers: bits/byte compare, perplexity and nats/token do not"
    (note,) = commands.show_runs([one, three], plot=plot)["notes"]
    assert note == "these runs are of different texts: their figures do not compare"


def test_a_folder_without_runs_says_how_to_make_one(tmp_path):
    console = pipe()
    assert commands.show_runs([tmp_path], console=console) == {"runs": []}
    assert shown(console) == f"no runs in {tmp_path}; jaxlm train makes them, below runs/ or at its --out\n"


def test_runs_refuses(runs, run):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; jaxlm train makes runs"):
        commands.show_runs([runs / "nowhere"])
    with pytest.raises(FileNotFoundError, match="notes holds no run"):
        commands.show_runs([run, runs / "notes"])
    with pytest.raises(ValueError, match=r"torn/manifest\.json is damaged"):
        commands.show_runs([runs / "torn"])
    with pytest.raises(ValueError, match=r"--plot x\.png is of a comparison: name two runs or more"):
        commands.show_runs([run], plot=Path("x.png"))
    for name in ("notes.txt", "plot"):
        with pytest.raises(ValueError, match=rf"--plot {name} must name a \.png file"):
            commands.show_runs([run, runs / "done"], plot=Path(name))


# ---- devices, export, import


def test_devices_are_shown_with_what_is_wrong_and_what_auto_takes(monkeypatch):
    cpu = {"platform": "cpu", "device": "cpu:0 (cpu)", "plugin": None, "version": None, "verdict": "built in"}
    metal = {"platform": "METAL", "device": None, "plugin": "jax-metal", "version": "0.1.1", "verdict": "fails"}
    format_device = {
        "devices": [
            cpu | {"reason": None, "gflops": 123.4, "gbytes": 10.6, "auto": ["small", "large"]},
            metal | {"reason": "crashes\x1b[2J", "gflops": None, "gbytes": None, "auto": []},
        ],
        "auto": [
            {"num_weights": 1000, "device": "cpu:0 (cpu)", "reason": "nothing else works"},
            {"num_weights": 10**7, "device": "cpu:0 (cpu)", "reason": "nothing else works"},
        ],
    }
    monkeypatch.setattr(commands, "describe_devices", lambda: format_device)
    console = pipe()
    assert commands.show_devices(console=console) == format_device
    lines = [line.split() for line in shown(console).splitlines()]
    assert ["cpu", "cpu:0", "(cpu)", "-", "built", "in", "123", "11"] in lines
    assert ["METAL", "-", "jax-metal", "0.1.1", "fails", "-", "-"] in lines
    *_, trouble, auto = shown(console).splitlines()
    assert trouble == r"jax-metal 0.1.1: fails: crashes\x1b[2J"
    assert auto == "auto takes cpu:0 (cpu): nothing else works"
    format_device["auto"][1]["device"] = "mps:0 (M1)"
    console = pipe()
    commands.show_devices(console=console)
    assert shown(console).splitlines()[-2:] == [
        "auto (for a model of 1,000 weights) takes cpu:0 (cpu): nothing else works",
        "auto (for a model of 10,000,000 weights) takes mps:0 (M1): nothing else works",
    ]


def test_plugins_are_tried_again_where_that_is_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(commands, "forget_verdicts", lambda: calls.append("forget"))
    monkeypatch.setattr(commands, "describe_devices", lambda: calls.append("look") or {"devices": [], "auto": []})
    commands.show_devices()
    assert calls == ["look"]
    commands.show_devices(probe=True)
    assert calls == ["look", "forget", "look"]


@pytest.mark.parametrize("command", [commands.evaluate_text, commands.sample_text])
def test_a_small_model_is_told_to_auto_as_one(run, command, monkeypatch):
    asked = []

    def choose_device(device, *, num_weights):
        asked.append((device, num_weights))
        return Choice(jax.devices("cpu")[0], "it is here")

    monkeypatch.setattr(commands, "choose_device", choose_device)
    console = Console(file=(told := io.StringIO()))
    monkeypatch.setattr(commands, "standard_error", lambda: console)
    command(run, console=Console(file=io.StringIO()) if command is commands.sample_text else console)
    assert "device: cpu:0 (cpu): it is here\n" in told.getvalue()
    vocab_size = len(set(TEXT))
    size = vocab_size * 4 + (3 * 4 + 1) * 8 + (8 + 1) * vocab_size
    assert asked == [("auto", size)]


def test_a_model_is_opened_where_jax_has_no_cpu(run, monkeypatch):
    def fail(device):
        raise ValueError("no 'cpu' device here")

    monkeypatch.setattr(commands, "resolve_device", fail)
    with pytest.raises(ValueError, match="no 'cpu' device here"):
        commands.sample_text(run, num_tokens=3)
    told = jax.config.jax_platforms
    jax.config.update("jax_platforms", "chip")
    try:
        assert commands.sample_text(run, num_tokens=3)["samples"]
    finally:
        jax.config.update("jax_platforms", told)


def test_an_exported_file_comes_back_as_a_folder(run, tmp_path):
    out, back = pipe(), pipe()
    exported = commands.export_file(run, tmp_path / "model.safetensors", console=out)
    imported = commands.import_file(tmp_path / "model.safetensors", tmp_path / "model", console=back)
    model, variables, tokenizer = jaxlm.open_model(run)
    again, variables_again, tokenizer_again = jaxlm.load_model(tmp_path / "model")
    assert (again, tokenizer_again) == (model, tokenizer)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, variables_again))
    fields = {"vocab_size": len(set(TEXT)), "context_length": 3, "embedding_dim": 4, "hidden_dim": 8}
    fields |= {"dropout": 0.0, "direct_connections": False}
    assert exported["model"] == imported["model"] == {"class": "MLPLanguageModel"} | fields
    words = "MLPLanguageModel(vocab_size=14, context_length=3, embedding_dim=4, hidden_dim=8"
    words += ", dropout=0.0, direct_connections=False)"
    assert shown(out) == f"wrote {tmp_path / 'model.safetensors'}: {exported['bytes']:,} bytes, {words}\n"
    assert shown(back) == f"saved {tmp_path / 'model'}: {words}\n"


def test_export_and_import_replace_nothing_unasked(run, tmp_path):
    (tmp_path / "mine").write_text("years of work")
    with pytest.raises(FileExistsError, match="replace it with --overwrite"):
        commands.export_file(run, tmp_path / "mine")
    with pytest.raises(IsADirectoryError, match=r"is a folder; name a file, as .*/model\.safetensors"):
        commands.export_file(run, tmp_path, overwrite=True)
    assert (tmp_path / "mine").read_text() == "years of work"
    commands.export_file(run, tmp_path / "mine", overwrite=True)
    with pytest.raises(FileExistsError, match="exists; save to another path"):
        commands.import_file(tmp_path / "mine", tmp_path)


# ---- all of it


def test_without_a_console_nothing_is_said(run, text, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(commands, "describe_devices", lambda: {"devices": [], "auto": []})
    commands.evaluate_text(run)
    commands.sample_text(run, num_tokens=3)
    commands.inspect_tokenizer(text=text, tokenizer="char")
    commands.tend_corpora()
    commands.show_runs([run])
    commands.show_runs([run.parent])
    commands.show_devices()
    commands.export_file(run, tmp_path / "file")
    commands.import_file(tmp_path / "file", tmp_path / "folder")
    assert capfd.readouterr() == ("", "")


def on_a_terminal(words, *, interrupt_at=None):
    """Runs the command on a terminal of its own; returns its code, its output and the seconds of each read."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    command = [sys.executable, "-c", _TAKE_THE_TERMINAL, *words]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    output, seconds = b"", []
    while select.select([master], [], [], 60)[0]:
        try:
            content = os.read(master, 4096)
        except OSError:  # Linux's word for the end
            break
        output += content
        seconds.append(time.monotonic())
        if interrupt_at is not None and interrupt_at in output:
            os.write(master, b"\x03")
            interrupt_at = None
    os.close(master)
    return process.wait(60), output.decode().replace("\r\n", "\n"), seconds


# So that Ctrl-C reaches it: its standard input becomes the terminal of its session, and it hears SIGINT, which the
# background, where these tests may run, ignores.
_TAKE_THE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "jaxlm", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_a_sample_streams_over_a_terminal(run):
    words = ["sample", str(run), "--prompt", "to be", "--num-tokens", "300"]
    code, output, seconds = on_a_terminal(words)
    assert code == 0
    assert len(seconds) > 30
    assert len({round(each, 3) for each in seconds}) > 10
    piped = subprocess.run([sys.executable, "-m", "jaxlm", *words], capture_output=True, text=True, check=True)
    assert output == piped.stderr + piped.stdout


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_says_how_to_go_on(text, tmp_path):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "num_steps"]
    path = tmp_path / "run"
    words = ["train", f"--text={text}", *options, "--num-steps=1000000", f"--out={path}"]
    code, output, _ = on_a_terminal(words, interrupt_at=b"validation perplexity")
    assert code == 130
    assert output.endswith(f"interrupted by SIGINT; go on with: jaxlm train --resume {path}\n")
    assert commands.show_runs([path])["runs"][0]["state"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["runs"], ["runs", "--json"]], ids=" ".join)
def test_a_reader_that_has_gone_ends_the_command_quietly(words, runs):
    command = [sys.executable, "-m", "jaxlm", *words, str(runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 0
    assert "Error" not in error
