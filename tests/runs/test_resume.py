"""Resume, extend and repair training runs, and refuse to."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from unittest.mock import Mock

import pytest
from rich.console import Console
from tiny_runs import QUIET, assert_same_run, bits, contents, read_json, signal_when, tiny_config

import jaxlm
from jaxlm.checkpoints.train_states import checkpoint_steps
from jaxlm.runs import results
from jaxlm.runs.load import load_model, open_run
from jaxlm.runs.lock import lock_run
from jaxlm.runs.manifest import read_manifest, write_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.summary import summarize_run
from jaxlm.runs.train import resume_run, start_run

slow = pytest.mark.slow


def print_of(call, *arguments):
    """Return what a call prints on its console."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, record=True, width=300)
        call(*arguments, console=console)
    return console.export_text()


@slow
def test_interrupted_counts_are_computed_again(counts_run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(results, "render_page", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            start_run(open_run(counts_run).config, tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["state"], manifest["why"]) == ("interrupted", "SIGTERM")
    resume_run(tmp_path / "run")
    assert read_manifest(tmp_path / "run")["state"] == "done"
    assert bits(load_model(tmp_path / "run")[1]) == bits(load_model(counts_run)[1])
    assert (tmp_path / "run" / "samples.txt").read_bytes() == (counts_run / "samples.txt").read_bytes()


def test_another_directory_is_not_resumed(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty is not a run directory"):
        resume_run(tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())


@slow
def test_a_stopped_run_resumes_with_equal_bits(stopped, finished_run):
    manifest = read_manifest(stopped)
    assert (manifest["state"], manifest["why"]) == ("interrupted", "SIGINT")
    assert checkpoint_steps(stopped / "checkpoints") == [4, 6]
    assert f"run: {stopped}, from step 6" in print_of(resume_run, str(stopped))
    assert_same_run(stopped, finished_run)
    manifest = read_manifest(stopped)
    assert (manifest["sessions"], manifest["notes"]) == (2, [])


@slow
def test_an_interrupted_overwrite_is_resumed_as_the_new_run(finished, counts_run, monkeypatch):
    """Nothing of the replaced run is loaded, listed or resumed."""
    monkeypatch.chdir(finished.parent)
    counts = open_run(counts_run).config
    with monkeypatch.context() as patch:
        patch.setattr("jaxlm.runs.directory.remove", Mock(side_effect=KeyboardInterrupt("SIGINT")))
        with pytest.raises(KeyboardInterrupt, match=r"resume with: jaxlm train --resume .*finished"):
            start_run(counts, finished, overwrite=True)
    assert (finished / "model").exists()
    assert open_run(finished).config == counts
    with pytest.raises(FileNotFoundError, match="its start was interrupted; resume it"):
        load_model(finished)
    assert summarize_run(finished).items() >= {"state": "interrupted", "perplexity": None}.items()
    resume_run(finished)
    assert bits(load_model(finished)[1]) == bits(load_model(counts_run)[1])
    assert not (finished / "checkpoints").exists()


@slow
def test_a_finished_run_does_not_change(finished, text_folder):
    before = contents(finished)
    for config in (None, tiny_config(text_folder)):
        assert "is done: 12 steps; raise num_steps to extend it" in print_of(resume_run, finished, config)
        assert contents(finished) == before


@slow
def test_an_extended_run_notes_its_new_length(finished, text_folder):
    longer = tiny_config(text_folder, num_steps=20)
    with pytest.raises(KeyboardInterrupt):
        resume_run(finished, longer, console=signal_when("step 15/", signal.SIGTERM))
    # Until it is done, the final model is that of the last checkpoint, not the earlier result.
    assert bits(load_model(finished)[1]) == bits(load_model(finished, 16)[1]) != bits(load_model(finished, 12)[1])
    assert not {"model", "results.json", "report.html", "samples.txt"} & {path.name for path in finished.iterdir()}
    resume_run(finished)
    assert read_manifest(finished)["notes"] == [
        "num_steps increased from 12 to 20; the cosine schedule now ends there"
    ]
    assert read_json(finished / "config.json")["num_steps"] == open_run(finished).config.num_steps == 20
    assert [line["step"] for line in read_metrics(finished / "metrics.jsonl")] == [0, 5, 10, 15, 19]


@slow
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lr": 0.25}, "lr 0.5, not 0.25"),
        ({"keep": 9, "momentum": 0.5}, "momentum 0.9, not 0.5, keep 3, not 9"),
        ({"num_steps": 11}, "num_steps 12, not 11"),
        ({"text": None}, r"text .*text\.txt, not None"),
    ],
)
def test_other_options_are_rejected_by_name(options, named, stopped, text_folder):
    before = contents(stopped)
    with pytest.raises(ValueError, match=rf"was started with .*{named}.*; only num_steps may increase"):
        resume_run(stopped, tiny_config(text_folder, **options))
    assert contents(stopped) == before


@slow
def test_a_run_with_patience_is_not_extended(stopped, text_folder):
    config = json.loads((stopped / "config.json").read_text()) | {"patience": 9}
    write_manifest(stopped, read_manifest(stopped) | {"config": config})
    with pytest.raises(ValueError, match="uses patience 9 and cannot be extended"):
        resume_run(stopped, tiny_config(text_folder, patience=9, num_steps=20))


@slow
def test_the_text_may_move(stopped, finished_run, text_folder, tmp_path, caplog):
    moved = Path(shutil.copy(text_folder / "text.txt", tmp_path / "moved.txt"))
    (stopped / "config.json").write_text('{"lr": 0.25}')  # a copy of the options, written again
    resume_run(stopped, tiny_config(text_folder, text=moved))
    assert_same_run(stopped, finished_run)
    assert open_run(stopped).config.text == moved
    assert read_json(stopped / "config.json") == read_manifest(stopped)["config"]
    assert not caplog.records


@slow
def test_another_or_missing_text_is_rejected(stopped, text_folder, tmp_path):
    before, other = contents(stopped), tmp_path / "other.txt"
    with pytest.raises(FileNotFoundError, match=r"other\.txt"):
        resume_run(stopped, tiny_config(text_folder, text=other))
    other.write_text((text_folder / "text.txt").read_text("utf-8") + "ß", "utf-8")
    with pytest.raises(ValueError, match=r"a different corpus: .*other\.txt"):
        resume_run(stopped, tiny_config(text_folder, text=other))
    assert contents(stopped) == before


@slow
def test_another_tokenizer_is_rejected(stopped):
    """Another version of its library might train another one on the same text."""
    (stopped / "jaxlm_tokenizer.json").unlink()
    manifest = read_manifest(stopped)
    write_manifest(stopped, manifest | {"tokenizer": manifest["tokenizer"] | {"sha256": "0f"}})
    with pytest.raises(ValueError, match=r"was trained with a different tokenizer: sha256 0f, not \w{64}"):
        resume_run(stopped)
    assert read_manifest(stopped)["state"] == "interrupted"


@slow
def test_the_tokenizer_of_an_earlier_version_is_used(stopped, finished_run):
    (stopped / "jaxlm_tokenizer.json").rename(stopped / "tokenizer.json")
    assert load_model(stopped).tokenizer == load_model(finished_run).tokenizer
    resume_run(stopped)
    assert_same_run(stopped, finished_run)


@slow
def test_a_run_in_use_is_refused(stopped):
    with lock_run(stopped), pytest.raises(BlockingIOError, match="in use by another process"):
        resume_run(stopped)


@slow
@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_text("{"), lambda path: jaxlm.CharTokenizer.train("another").save(path)],
    ids=["damaged", "another"],
)
def test_a_damaged_tokenizer_is_refused_and_a_missing_one_trained(damage, stopped, finished_run):
    damage(stopped / "jaxlm_tokenizer.json")
    for function in (load_model, resume_run):
        with pytest.raises(ValueError, match=r"tokenizer\.json is not (valid JSON|the tokenizer of this run)"):
            function(stopped)
    (stopped / "jaxlm_tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json is missing; resume the run to restore it"):
        load_model(stopped)
    resume_run(stopped)
    assert_same_run(stopped, finished_run)


@slow
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_signal_outside_of_training_interrupts_the_run(where, stopped, finished_run, monkeypatch):
    console = signal_when("run: ", signal.SIGTERM) if where == "before" else QUIET
    with monkeypatch.context() as patch:
        patch.setattr(results, "render_page", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt):
            resume_run(stopped, console=console)
    assert read_manifest(stopped)["state"] == "interrupted"
    resume_run(stopped)
    assert_same_run(stopped, finished_run)


@slow
def test_other_versions_and_devices_are_noted(stopped):
    manifest = read_manifest(stopped)
    was = {"versions": {**manifest["versions"], "jaxlib": "0.0.1"}, "device": {"platform": "tpu", "kind": "v9"}}
    write_manifest(stopped, manifest | was | {"num_devices": 4})
    printed = print_of(resume_run, stopped)
    notes = read_manifest(stopped)["notes"]
    assert re.match(r"resumed with jaxlib [\d.]+, previously 0\.0\.1: the last bits may differ", notes[0])
    assert re.match(r"resumed with device .*cpu.*, previously .*tpu.*: the last bits may differ", notes[1])
    assert notes[2].startswith("resumed with num_devices 1, previously 4: the last bits may differ")
    assert len(notes) == 3
    assert all(f"note: {note}" in printed for note in notes)
