"""A run is gone on with as it was, or refused with the reason; what it made is found again, or said why not."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from rich.console import Console
from tiny_runs import assert_same, bits, make_quick, stopped_at, tiny_config

import jaxlm
from experiments.ladder.rungs import RECIPES
from jaxlm.checkpoints.train_states import best_step, checkpoint_steps
from jaxlm.runs import directory as runs, report, setup as jobs, train as training_runs
from jaxlm.runs.config import TrainConfig
from jaxlm.runs.directory import create_run, lock_run
from jaxlm.runs.load import load_run, open_model, read_run_config
from jaxlm.runs.manifest import read_manifest, write_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.train import resume_run, start_run
from jaxlm.text.dataset import load_dataset
from jaxlm.utils.checksums import file_checksums

NOBODY = 65534
PATIENCE = 120  # seconds, for a machine that does much else

# `jaxlm`, also where whoever runs the tests ignores SIGINT, as a shell does in the background.
COMMAND = """
import signal, sys
from jaxlm.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the text lies."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished_once(folder):
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        return start_run(tiny_config(folder), folder / "finished")


@pytest.fixture(scope="module")
def stopped_once(folder):
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        with stopped_at(patch, 8):
            start_run(tiny_config(folder), folder / "stopped")
    return folder / "stopped"


@pytest.fixture
def finished(finished_once, tmp_path):
    """A run that is done."""
    return shutil.copytree(finished_once, tmp_path / "finished")


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run that was stopped after step 8."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


@pytest.fixture
def counts(folder, tmp_path):
    """A run that counts, and is done."""
    config = TrainConfig(model="counts", text=folder / "text.txt", tokenizer="char", device="cpu")
    tiny_config(folder)
    return start_run(config, tmp_path / "counts")


def read(path):
    return json.loads(path.read_text("utf-8"))


def contents(path):
    """Every file below, and what it holds."""
    return {each.relative_to(path): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()}


def flip(path, position=3):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def said(call, *arguments, **options):
    """What a call says on its console."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, record=True, width=200)
        call(*arguments, **options, console=console)
    return console.export_text()


# What a run makes.


def test_a_run_leaves_its_model_and_what_there_is_to_see_of_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "plot_curves", report.plot_curves)
    run = start_run(tiny_config(folder), tmp_path / "run")
    assert sorted(entry.name for entry in run.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "curves.png",
        "manifest.json",
        "metrics.jsonl",
        "model",
        "report.html",
        "results.json",
        "samples.txt",
        "tokenizer.json",
    ]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert read_run_config(run) == tiny_config(folder)
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [0, 5, 10, 11]
    data = load_dataset("", folder / "text.txt", "char")
    model, variables, tokenizer = load_run(run)
    assert tokenizer == data.tokenizer
    (row,) = read(run / "results.json")["models"]
    assert row["perplexity"] == jaxlm.perplexity(model, variables, data.val_ids)
    assert row["perplexity"] == read_metrics(run / "metrics.jsonl")[-1]["val_perplexity"]
    manifest = read_manifest(run)
    assert (manifest["state"], manifest["notes"]) == ("done", [])
    assert manifest["corpus"]["sha256"] == data.corpus.sha256


def test_counts_are_a_run_too(counts, folder):
    data = load_dataset("", folder / "text.txt", "char")
    model, variables, _ = load_run(counts)
    assert bits(variables) == bits(model.fit(jaxlm.init(model, jax.random.key(0)), data.train_ids))
    (row,) = read(counts / "results.json")["models"]
    assert row["perplexity"] == jaxlm.perplexity(model, variables, data.val_ids)
    assert (counts / "counts.png").exists()
    assert not (counts / "metrics.jsonl").exists()
    with pytest.raises(FileNotFoundError, match="counts are made at once; name final"):
        load_run(counts, "best")


def test_counts_that_were_stopped_are_made_anew(counts, folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training_runs, "save_model", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start_run(read_run_config(counts), tmp_path / "run")
    assert read_manifest(tmp_path / "run")["state"] == "interrupted"
    resume_run(tmp_path / "run")
    assert bits(load_run(tmp_path / "run")[1]) == bits(load_run(counts)[1])
    assert (tmp_path / "run" / "samples.txt").read_bytes() == (counts / "samples.txt").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bigram", "mlp"])
def test_the_defaults_are_those_of_the_ladder_to_the_bit(name, folder, tmp_path):
    tiny_config(folder)
    config = TrainConfig(model=name, text=folder / "text.txt", tokenizer="char", num_steps=5, seed=3)
    model, variables, _ = load_run(start_run(config, tmp_path / "run"))
    recipe, place = RECIPES["momentum"], ("bigram", "mlp").index(name)
    vocab_size = model.vocab_size
    rungs = jaxlm.NeuralBigramLM(vocab_size, 64), jaxlm.MLPLanguageModel(vocab_size, 3, 32, 64)
    expected, _ = jaxlm.train_lm(
        rungs[place],
        load_dataset("", folder / "text.txt", "char").train_ids,
        key=jax.random.fold_in(jax.random.key(3), place),
        batch_size=recipe.batch_size,
        num_steps=5,
        optimizer=recipe.optimizer((recipe.bigram_lr, recipe.mlp_lr)[place], 5),
    )
    assert model == rungs[place]
    assert bits(variables) == bits(expected)


def test_a_run_has_a_new_folder_of_its_own(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [start_run(tiny_config(folder, num_steps=1)) for _ in range(2)]
    assert len({*paths}) == 2
    assert all(re.fullmatch(r"runs/mlp-text-char-\d{8}-\d{6}(-2)?", path.as_posix()) for path in paths)


def test_a_run_is_replaced_only_when_asked(finished, folder):
    before = contents(finished)
    with pytest.raises(FileExistsError, match="--overwrite"):
        start_run(tiny_config(folder, seed=1), finished)
    assert contents(finished) == before
    start_run(tiny_config(folder, num_steps=1), finished, overwrite=True)
    assert [line["step"] for line in read_metrics(finished / "metrics.jsonl")] == [0]
    assert checkpoint_steps(finished / "checkpoints") == [1]


# Gone on with.


def test_a_run_that_is_done_is_left_alone(finished, folder):
    before = contents(finished)
    for config in (None, tiny_config(folder)):
        assert "is done: 12 steps; --num-steps lets it go on" in said(resume_run, finished, config)
    assert contents(finished) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: shutil.rmtree(run / "model"),
        lambda run: flip(run / "model" / "model.json"),
        lambda run: flip(max((run / "model").rglob("0.0"), key=lambda path: path.stat().st_size)),
        lambda run: (run / "results.json").unlink(),
        lambda run: (run / "samples.txt").unlink(),
    ],
)
def test_what_is_missing_of_a_run_that_is_done_is_made_anew(damage, finished, finished_once, caplog):
    damage(finished)
    assert "from step 12" in said(resume_run, finished)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "made anew" in caplog.text
    assert_same(finished, finished_once)
    assert contents(finished / "model").keys() == contents(finished_once / "model").keys()


def test_a_run_goes_on_where_it_was_moved_to(stopped, finished_once, tmp_path):
    run = shutil.move(stopped, tmp_path / "elsewhere")
    assert f"run: {run}, from step 8" in said(resume_run, run)
    assert_same(run, finished_once)
    assert not stopped.exists()


def test_a_clock_that_was_set_back_changes_nothing(stopped, finished_once, monkeypatch):
    before = read_manifest(stopped)
    yesterday = datetime.now().astimezone() - timedelta(days=1)
    monkeypatch.setattr(runs, "datetime", SimpleNamespace(now=lambda zone=None: yesterday.astimezone(zone)))
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - 86400)
    resume_run(stopped)
    after = read_manifest(stopped)
    assert after["ended"] < before["started"] == after["started"]
    assert after["seconds"] > before["seconds"]
    assert_same(stopped, finished_once)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lr": 0.25}, "--lr 0.5, not 0.25"),
        ({"seed": 1}, "--seed 0, not 1"),
        ({"model": "bigram", "context_length": None, "hidden_dim": None}, "--model mlp, not bigram"),
        ({"keep": 9, "momentum": 0.5}, "--momentum 0.9, not 0.5, --keep 3, not 9"),
        ({"num_steps": 11}, "--num-steps 12, not 11"),
        ({"text": None}, r"--text .*text\.txt, not None"),
    ],
)
def test_other_options_are_refused_by_name(options, named, stopped, folder):
    before = contents(stopped)
    with pytest.raises(
        ValueError, match=rf"was started with .*{named}.*; --num-steps alone may change, and only grow"
    ):
        resume_run(stopped, tiny_config(folder, **options))
    assert contents(stopped) == before


def test_the_text_may_lie_elsewhere(stopped, finished_once, folder, tmp_path):
    moved = Path(shutil.copy(folder / "text.txt", tmp_path / "moved.txt"))
    resume_run(stopped, tiny_config(folder, text=moved))
    assert_same(stopped, finished_once)
    assert read_run_config(stopped).text == moved


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: text + "ß"], ids=["shorter", "unknown"])
def test_another_text_is_refused(change, stopped, folder, tmp_path):
    before = contents(stopped)
    other = tmp_path / "other.txt"
    other.write_text(change((folder / "text.txt").read_text("utf-8")), "utf-8")
    with pytest.raises(ValueError, match=r"other\.txt has the sha256 \w+; .* was trained on a text with another"):
        resume_run(stopped, tiny_config(folder, text=other))
    assert contents(stopped) == before


def test_another_tokenizer_is_refused(stopped):
    """Of the same text, as another version of its library might train one."""
    manifest = read_manifest(stopped)
    write_manifest(stopped, manifest | {"tokenizer": manifest["tokenizer"] | {"sha256": "0f"}})
    with pytest.raises(ValueError, match=r"the tokenizer trained on .* was trained with another, 0f"):
        resume_run(stopped)
    assert read_manifest(stopped)["state"] == "interrupted"


def test_a_text_that_is_gone_is_named(stopped, folder):
    write_manifest(
        stopped, read_manifest(stopped) | {"config": {**read(stopped / "config.json"), "text": "/gone"}}
    )
    with pytest.raises(OSError, match="/gone"):
        resume_run(stopped)


def test_two_at_once_are_refused(stopped, finished_once, folder):
    with lock_run(stopped):
        with pytest.raises(BlockingIOError, match="another process works in"):
            resume_run(stopped)
        with pytest.raises(BlockingIOError, match="another process works in"):
            start_run(tiny_config(folder), stopped, overwrite=True)
    resume_run(stopped)
    assert_same(stopped, finished_once)


def test_what_is_no_run_of_training_is_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no run"):
        resume_run(tmp_path / "empty")
    with create_run(tmp_path / "ladder", "ladder", {}, jax.devices("cpu")[0]):
        pass
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="is a run of ladder, not of train"):
        resume_run(tmp_path / "ladder")
    assert contents(tmp_path) == before


# Faults.


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.replace(b'"version": 1', b'"version": 2'), r"version 1 \(version: 2\)"),
        (lambda content: content[: len(content) // 2], "is damaged"),
        (lambda content: content.replace(b'"lr": 0.5', b'"lr": 0.6'), "is damaged"),
    ],
    ids=["newer", "cut", "edited"],
)
def test_a_manifest_that_cannot_be_relied_on_is_refused(damage, message, stopped):
    path = stopped / "manifest.json"
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    before = contents(stopped)
    for use in (resume_run, load_run, open_model, read_run_config):
        with pytest.raises(ValueError, match=rf"manifest\.json .*{message}"):
            use(stopped)
    assert contents(stopped) == before


def test_options_that_were_edited_do_not_count(stopped, finished_once, caplog):
    path = stopped / "config.json"
    path.write_text(json.dumps(read(path) | {"lr": 0.25, "seed": 7}), "utf-8")
    resume_run(stopped)
    assert (
        "config.json says --lr 0.25, not 0.5, --seed 7, not 0; the options in manifest.json count" in caplog.text
    )
    assert_same(stopped, finished_once)
    assert read(path) == read(finished_once / "config.json")


@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"colour": "red"}', None])
def test_options_that_are_damaged_are_written_anew(content, stopped, finished_once, caplog):
    path = stopped / "config.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    resume_run(stopped)
    assert len(caplog.records) == (content is not None)
    assert_same(stopped, finished_once)
    assert read(path) == read(finished_once / "config.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("{"),
        lambda path: flip(path, 40),
        lambda path: (path.unlink(), jaxlm.CharTokenizer.train("another").save(path)),
    ],
    ids=["missing", "cut", "flipped", "another"],
)
def test_a_tokenizer_that_is_damaged_is_trained_again(damage, stopped, finished_once, caplog):
    damage(stopped / "tokenizer.json")
    is_there = (stopped / "tokenizer.json").exists()
    with pytest.raises(
        ValueError, match=r"tokenizer\.json is damaged or missing; go on with the run \(--resume\)"
    ):
        load_run(stopped)
    caplog.clear()
    resume_run(stopped)
    assert len(caplog.records) == is_there
    assert_same(stopped, finished_once)


@pytest.fixture
def public_folder():
    """A folder that everybody may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def without_privileges():
    """Root, who may write everywhere, is nobody for the block; anybody else stays who they are."""
    if os.name == "nt":
        pytest.skip("there, a folder's mode forbids nothing")
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)
    except PermissionError:
        pytest.skip("root writes everywhere, and may not become another here")
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_only_be_read_is_named_and_its_model_can_be_used(finished, stopped, public_folder):
    for run in (finished, stopped):
        copy = shutil.copytree(run, public_folder / run.name)
        before = contents(copy)
        copy.chmod(0o555)
        (copy / ".lock").chmod(0o444)
        try:
            with without_privileges():
                with pytest.raises(OSError, match=rf"{run.name} cannot be written \(Permission denied\)"):
                    resume_run(copy)
                assert bits(load_run(copy)[1]) == bits(load_run(copy, "last")[1])
        finally:
            copy.chmod(0o755)
        assert contents(copy) == before


def interrupted(*_, **__):
    raise KeyboardInterrupt("SIGINT")


@pytest.mark.skipif(os.name == "nt", reason="there, one process cannot send a signal")
@pytest.mark.parametrize("name", ["save_model", "render_page", "restore_position"])
def test_a_signal_before_or_after_the_training_ends_the_run_as_interrupted(
    name, stopped, finished_once, monkeypatch
):
    def terminate(*_, **__):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # or it would end the tests
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)

    with monkeypatch.context() as patch:
        patch.setattr(training_runs, name, terminate)
        with pytest.raises(KeyboardInterrupt):
            resume_run(stopped)
    assert read_manifest(stopped)["state"] == "interrupted"
    resume_run(stopped)
    assert_same(stopped, finished_once)


def test_a_run_that_is_not_begun_leaves_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "make_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        start_run(tiny_config(folder), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_versions_and_devices_are_noted(stopped):
    manifest = read_manifest(stopped)
    was = {"versions": {**manifest["versions"], "jaxlib": "0.0.1"}, "device": {"platform": "tpu", "kind": "v9"}}
    write_manifest(stopped, manifest | was)
    told = said(resume_run, stopped)
    notes = read_manifest(stopped)["notes"]
    assert re.match(r"resumed with jaxlib [\d.]+, earlier 0\.0\.1: the last bits may differ", notes[0])
    assert re.match(r"resumed on .*cpu.*, earlier on .*tpu.*: the last bits may differ", notes[1])
    assert all(f"note: {note}" in told for note in notes)


# Read again.


def test_every_checkpoint_of_a_run_can_be_had(finished):
    steps, best = checkpoint_steps(finished / "checkpoints"), best_step(finished / "checkpoints")
    assert steps[-1] == 12
    by_step = {step: bits(load_run(finished, step)[1]) for step in steps}
    assert len({str(each) for each in by_step.values()}) == len(steps)
    assert bits(load_run(finished)[1]) == bits(load_run(finished, "last")[1]) == by_step[12]
    assert bits(load_run(finished, "best")[1]) == by_step[best]
    there = ", ".join(map(str, steps))
    for unknown in (5, "5", "newest"):
        with pytest.raises(
            FileNotFoundError, match=f"no checkpoint {unknown!r}; there are final, best, last, {there}"
        ):
            load_run(finished, unknown)


def test_until_a_run_is_done_its_last_checkpoint_is_the_final_one(stopped, finished_once, caplog):
    assert bits(load_run(stopped)[1]) == bits(load_run(stopped, 8)[1]) != bits(load_run(finished_once)[1])
    flip(max((stopped / "checkpoints" / "step-0000000008").rglob("0.0"), key=lambda path: path.stat().st_size))
    assert bits(load_run(stopped)[1]) == bits(load_run(stopped, 6)[1])
    assert "step-0000000008" in caplog.text
    with pytest.raises(ValueError, match=r"step-0000000008/arrays is damaged"):
        load_run(stopped, 8)
    for step in (4, 6):
        shutil.rmtree(stopped / "checkpoints" / f"step-{step:010}")
    with pytest.raises(ValueError, match="has no checkpoint that is whole; go on with the run"):
        load_run(stopped)
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet; go on with the run"):
        load_run(stopped)


def test_no_other_state_is_taken_for_the_best(folder, tmp_path, monkeypatch):
    """A run that was stopped before a state that was validated was saved."""
    with stopped_at(monkeypatch, 4):
        start_run(tiny_config(folder), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-0000000001")
    with pytest.raises(FileNotFoundError, match="no checkpoint 'best'; there are final, last, 4"):
        load_run(tmp_path / "run", "best")


def test_the_final_model_of_a_run_that_goes_on_is_not_the_earlier_one(finished, folder, monkeypatch):
    with stopped_at(monkeypatch, 16):
        resume_run(finished, tiny_config(folder, num_steps=20))
    assert bits(load_run(finished)[1]) == bits(load_run(finished, 16)[1]) != bits(load_run(finished, 12)[1])
    assert not {"model", "results.json", "report.html", "samples.txt"} & {
        entry.name for entry in finished.iterdir()
    }


def test_the_final_model_of_a_run_that_is_done_is_never_another(finished):
    shutil.rmtree(finished / "model")
    with pytest.raises(FileNotFoundError, match=r"model\.json is missing; go on with the run \(--resume\)"):
        load_run(finished)


def test_a_model_is_opened_wherever_it_lies(finished, tmp_path):
    model, variables, tokenizer = open_model(finished)
    jaxlm.save_model(tmp_path / "saved", model, variables, tokenizer)
    jaxlm.export_model(tmp_path / "model.safetensors", model, variables, tokenizer)
    for path in (tmp_path / "saved", tmp_path / "model.safetensors", finished / "model"):
        opened = open_model(path)
        assert (opened[0], opened[2]) == (model, tokenizer)
        assert bits(opened[1]) == bits(variables)
        with pytest.raises(ValueError, match="is no run, so it has no checkpoint 'best'"):
            open_model(path, "best")
    best = best_step(finished / "checkpoints")
    assert bits(open_model(finished, "best")[1]) == bits(open_model(finished, best)[1])


def test_what_holds_no_model_with_a_tokenizer_is_said_to(finished, tmp_path):
    model, variables, _ = open_model(finished)
    jaxlm.save_model(tmp_path / "saved", model, variables)
    with pytest.raises(ValueError, match="was saved without a tokenizer"):
        open_model(tmp_path / "saved")
    with pytest.raises(FileNotFoundError, match="holds no run and no saved model"):
        open_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_model(tmp_path / "nowhere")
    with create_run(tmp_path / "ladder", "ladder", {}, jax.devices("cpu")[0]):
        pass
    with pytest.raises(ValueError, match=r"is a run of ladder, not of train; its models are in .*ladder/models"):
        open_model(tmp_path / "ladder")


# Signals, to a process of its own.


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there, one process cannot send another a signal")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_told_to_stop_saves_and_ends_and_goes_on(signum, folder, tmp_path):
    config = tiny_config(folder, num_steps=50_000, log_every=25_000, save_every=None)
    words = ["--tokenizer", "char", "--context-length", "2", "--embedding-dim", "2", "--hidden-dim", "4"]
    words += ["--batch-size", "4", "--num-steps", "50000", "--log-every", "25000", "--schedule", "constant"]
    words += ["--save-seconds", "600", "--keep", "3"]
    run = tmp_path / "run"
    command = [sys.executable, "-c", COMMAND, "train", "--text", str(config.text), "--device", "cpu", *words]
    with subprocess.Popen([*command, "--out", str(run)], stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + PATIENCE
        while not (run / "metrics.jsonl").exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signum)
        _, error = process.communicate(timeout=PATIENCE)
    assert (process.returncode, error.splitlines()) == (
        130,
        [
            "stopping after this step; a second signal ends the process at once",
            f"interrupted by {signum.name}; resume with: jaxlm train --resume {run}",
        ],
    )
    manifest = read_manifest(run)
    assert (manifest["state"], manifest["why"]) == ("interrupted", signum.name)
    assert 0 < checkpoint_steps(run / "checkpoints")[-1] < config.num_steps
    resume_run(run)
    assert_same(run, start_run(config, tmp_path / "unbroken"))
    assert np.isfinite(read_metrics(run / "metrics.jsonl")[-1]["train_loss"])


def test_which_checkpoint_is_best_is_never_guessed_in_silence(finished, caplog):
    damaged = finished / "checkpoints" / f"step-{checkpoint_steps(finished / 'checkpoints')[0]:010d}"
    (damaged / "checkpoint.json").write_text("{")
    load_run(finished, "last")
    assert not caplog.records
    load_run(finished, "best")
    assert "the checkpoint of step 6 is damaged, and may have been the best" in caplog.text


def test_a_run_of_which_no_checkpoint_can_be_used_stays_as_it_is(stopped):
    (stopped / "metrics.jsonl").write_bytes((stopped / "metrics.jsonl").read_bytes().replace(b"0", b"1"))
    before = file_checksums(stopped)
    with pytest.raises(ValueError, match=r"has checkpoints, and none can be used: the warnings say why"):
        resume_run(stopped)
    assert file_checksums(stopped) == before


def test_what_comes_after_the_checkpoint_that_can_be_used_is_set_aside(stopped, finished):
    *_, last = checkpoint_steps(stopped / "checkpoints")
    path = stopped / "checkpoints" / f"step-{last:010d}"
    (path / "checkpoint.json").write_text("{}")
    resume_run(stopped)
    assert [each.name for each in (stopped / "checkpoints").glob("unusable-*")] == [f"unusable-{path.name}"]
    assert (stopped / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_a_model_without_checkpoints_is_not_lost_to_a_longer_run(finished):
    shutil.rmtree(finished / "checkpoints")
    before = file_checksums(finished)
    with pytest.raises(ValueError, match="has a model and no checkpoint to go on from; start another run"):
        resume_run(finished, replace(read_run_config(finished), num_steps=20))
    assert file_checksums(finished) == before


def test_a_run_of_another_optimizer_stays_as_it_is(stopped, monkeypatch):
    """As another version of Optax might make it."""
    before = file_checksums(stopped)
    monkeypatch.setattr(jobs, "sgd", lambda lr, num_steps, **options: optax.adam(lr))
    with pytest.raises(ValueError, match="has checkpoints, and none can be used"):
        resume_run(stopped)
    assert file_checksums(stopped) == before
