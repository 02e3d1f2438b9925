"""Start training runs."""

import os
import re
import signal

import jax
import pytest
from tiny_runs import bits, read_json, signal_when, tiny_config

import jaxlm
from jaxlm.runs.config import TrainConfig
from jaxlm.runs.load import load_model, open_run
from jaxlm.runs.manifest import describe_environment, read_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.setup import training_recipe
from jaxlm.runs.train import start_run
from jaxlm.text.dataset import load_dataset

slow = pytest.mark.slow
PNG = b"\x89PNG"


def test_a_run_of_counts(counts_run):
    data = load_dataset("", open_run(counts_run).config.text, "char")
    model, variables, tokenizer = load_model(counts_run)
    assert (model, tokenizer) == (jaxlm.CountsBigramLM(16), data.tokenizer)
    assert bits(variables) == bits(model.fit(jaxlm.init(model, jax.random.key(0)), data.train_ids))
    (row,) = read_json(counts_run / "results.json")["models"]
    assert row["perplexity"] == jaxlm.perplexity(model, variables, data.val_ids)
    assert row["size_unit"] == "counts"
    assert (counts_run / "counts.png").read_bytes().startswith(PNG)
    assert not (counts_run / "metrics.jsonl").exists()
    with pytest.raises(FileNotFoundError, match="a counts model has only 'final'"):
        load_model(counts_run, "best")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM handler")
def test_a_run_interrupted_before_its_start_leaves_nothing(text_folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        start_run(tiny_config(text_folder), tmp_path / "run", console=signal_when("device:", signal.SIGTERM))
    assert not (tmp_path / "run").exists()


@slow
def test_a_run_leaves_model_figures_and_report(finished, text_folder):
    names = {"checkpoints", "model", "report.html", "results.json", "samples.txt", "jaxlm_tokenizer.json"}
    names |= {".lock", "config.json", "manifest.json", "metrics.jsonl"}
    assert {entry.name for entry in finished.iterdir()} == names
    assert "MLP" in (report := (finished / "report.html").read_text())
    assert report.count("<circle") == 2 * 4  # of training loss and validation perplexity
    assert open_run(finished).config == tiny_config(text_folder)
    assert [line["step"] for line in read_metrics(finished / "metrics.jsonl")] == [0, 5, 10, 11]
    data = load_dataset("", text_folder / "text.txt", "char")
    model, variables, tokenizer = load_model(finished)
    assert tokenizer == data.tokenizer
    (row,) = read_json(finished / "results.json")["models"]
    assert row["perplexity"] == jaxlm.perplexity(model, variables, data.val_ids)
    assert row["perplexity"] == read_metrics(finished / "metrics.jsonl")[-1]["val_perplexity"]
    results = read_json(finished / "results.json")
    corpus = {"name": "text", "source": str(text_folder / "text.txt"), "sha256": data.corpus.sha256}
    assert results["corpus"] == corpus | {"license": data.corpus.license}
    expected = {"schema_version": 1, "seed": 10, "tokens": {"train": 360, "validation": 40}}
    expected |= {"tokenizer": {"name": "char", "vocab_size": 16}, "validation_bytes_per_token": 1.0}
    expected["versions"] = describe_environment(jax.devices("cpu")[0])["versions"]
    assert results.items() >= expected.items()
    sample = results["samples"]["MLP"]
    assert (finished / "samples.txt").read_text() == f"--- MLP ---\n{sample}\n"
    assert len(sample) == model.context_length + 100
    manifest = read_manifest(finished)
    assert (manifest["state"], manifest["notes"], manifest["sessions"]) == ("done", [], 1)
    assert manifest["corpus"]["sha256"] == data.corpus.sha256


@slow
def test_the_recipe_gives_the_bits_of_a_run(text_folder, tmp_path):
    text = tiny_config(text_folder).text
    config = TrainConfig(text=text, tokenizer="char", num_steps=5, seed=3)
    model, variables, _ = load_model(start_run(config, tmp_path / "run"))
    assert model == jaxlm.MLPLanguageModel(16, context_length=3, embedding_dim=32, hidden_dim=64)
    same_model, options = training_recipe(config, vocab_size=16)
    assert same_model == model
    assert (options["batch_size"], options["num_steps"], options["patience"]) == (128, 5, None)
    key, train_ids = jax.random.fold_in(jax.random.key(3), 1), load_dataset("", text, "char").train_ids
    with jax.default_device(jax.devices("cpu")[0]):  # as in the run, to compile the program once
        expected, _ = jaxlm.train_lm(model, train_ids, **options | {"key": key})
    assert bits(variables) == bits(expected)


def test_a_run_without_a_path_has_a_new_directory(counts_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = start_run(open_run(counts_run).config)
    assert re.fullmatch(r"runs/counts-text-char-\d{8}-\d{6}", path.as_posix())
