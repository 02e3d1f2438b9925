"""The ladder on a text that takes seconds, and its lesson on the real one."""

import io
import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.ladder.ladder import LadderOptions, describe_rung, measure, prepare, train_again
from experiments.ladder.rungs import RECIPES, Rung, fit_bigrams, load_text, make_networks
from experiments.shared.experiment import Experiment, RunContext, run_experiment
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.summary import summarise_run
from jaxlm.utils.timing import Timing

TEXT = "the cat sat on the mat. a rat sat on a hat: the cat sat on the rat!\n" * 40
NAMES = ["uniform", "unigram", "counts_bigram", "counts_bigram_best_k", "neural_bigram", "mlp"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def small_options(text, **options):
    sizes = {"bigram_embedding_dim": 4, "mlp_embedding_dim": 3, "mlp_hidden_dim": 5, "num_tokens": 12}
    return LadderOptions(**{"text": text, "tokenizer": "char", "steps": 30, **sizes, **options})


def run(options, prepare=prepare):
    console = Console(file=io.StringIO(), width=80)
    path = run_experiment(prepare, options, console)
    return json.loads((path / "results.json").read_text("utf-8")), console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The run directory, the results and the output of a small run."""
    folder = tmp_path_factory.mktemp("ladder")
    (folder / "text.txt").write_text(TEXT)
    options = small_options(folder / "text.txt", out=folder / "run")
    return options.out, *run(options)


@pytest.mark.slow
def test_every_artifact_is_written(finished):
    files = (
        "config.json counts.png curves.png manifest.json metrics.jsonl models report.html results.json samples.txt"
    )
    assert sorted(path.name for path in finished[0].iterdir() if path.name != ".lock") == files.split()


@pytest.mark.slow
def test_results_and_manifest_describe_six_models(finished):
    out, results, _ = finished
    models = results["models"]
    assert [row["name"] for row in models] == NAMES
    for row in models:
        assert row["perplexity"] == pytest.approx(np.exp(row["nats_per_token"]))
        # Characters of one byte: a token is a byte.
        assert row["bits_per_byte"] == pytest.approx(row["nats_per_token"] / np.log(2))
        assert min(row["compile_seconds"], row["train_seconds"]) >= 0
    v = len(set(TEXT))
    assert [row["size"] for row in models[:4]] == [0, v, v**2, v**2]
    assert [row["size"] for row in models[4:]] == [v * 4 + 4 * v + v, v * 3 + (9 * 5 + 5) + 5 * v + v]
    assert models[0]["perplexity"] == pytest.approx(v, rel=1e-5)
    num_train = len(TEXT) * 9 // 10
    assert results["tokens"] == {"train": num_train, "validation": len(TEXT) - num_train}
    assert (results["seed"], results["recipe"]) == (0, "momentum")
    manifest, summary = read_manifest(out), summarise_run(out)
    assert (manifest["kind"], manifest["state"]) == ("ladder", "done")
    assert all(manifest[name] == results[name] for name in ("corpus", "tokenizer", "tokens"))
    best = min(models, key=lambda row: row["nats_per_token"])
    assert (summary["model"], summary["perplexity"], summary["steps"]) == (best["title"], best["perplexity"], 30)


@pytest.mark.slow
def test_metrics_hold_every_recorded_step(finished):
    out, results, _ = finished
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    perplexities = {row["name"]: row["perplexity"] for row in results["models"]}
    for name in ("neural_bigram", "mlp"):
        own = [line for line in lines if line["model"] == name]
        assert [line["step"] for line in own] == list(range(30))
        assert own[-1]["val_perplexity"] == perplexities[name]


@pytest.mark.slow
def test_every_model_continues_the_same_prompt(finished):
    out, results, output = finished
    first_line = TEXT[results["tokens"]["train"] :].partition("\n")[2]
    assert results["prompt"] == first_line[:3]
    assert len(results["samples"]) == 6
    for sample in results["samples"].values():
        assert sample.startswith(results["prompt"])
        assert len(sample) == 3 + 12
        assert sample in (out / "samples.txt").read_text("utf-8")
        assert sample in output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["counts_bigram", "neural_bigram", "mlp"])
def test_saved_model_has_the_perplexity_of_its_row(finished, name):
    out, results, _ = finished
    model, variables, tokenizer = jaxlm.load_model(out / "models" / name)
    val_ids = tokenizer.encode(TEXT)[results["tokens"]["train"] :]
    row = next(row for row in results["models"] if row["name"] == name)
    assert jaxlm.perplexity(model, variables, val_ids) == row["perplexity"]


@pytest.mark.slow
def test_several_seeds_are_those_of_single_runs(tmp_path, finished):
    _, first, _ = finished
    text = Path(first["corpus"]["source"])
    results, output = run(small_options(text, out=tmp_path / "several", seeds=2))
    second, _ = run(small_options(text, out=tmp_path / "second", seed=1))
    assert results["samples"] == first["samples"]
    times = {"compile_seconds", "train_seconds", "seeds"}
    for row, single, other in zip(results["models"], first["models"], second["models"], strict=True):
        assert {name: row[name] for name in row.keys() - times} == {
            name: single[name] for name in row.keys() - times
        }
        assert ("seeds" in row) == (row["name"] in NAMES[4:])
        if "seeds" in row:
            perplexities = [single["perplexity"], other["perplexity"]]
            assert perplexities[0] != perplexities[1]
            assert row["seeds"]["perplexities"] == perplexities
            mean, half_width = np.mean(perplexities), 12.7062 * abs(np.subtract(*perplexities)) / 2
            assert row["seeds"]["perplexity"] == pytest.approx(mean)
            assert row["seeds"]["interval_half_width"] == pytest.approx(half_width, rel=1e-5)
            for name in ("nats_per_token", "bits_per_byte"):
                assert row["seeds"][name] == pytest.approx((single[name] + other[name]) / 2)
            assert f"{mean:.2f}" in output
            assert f"± {half_width:.2f}" in output


def test_best_k_does_not_depend_on_the_validation_text(text, tmp_path):
    num_train = len(TEXT) * 9 // 10
    (tmp_path / "other.txt").write_text(TEXT[:num_train] + TEXT[num_train:][::-1])
    best, other = (
        fit_bigrams(load_text(small_options(path), "char"))[1] for path in (text, tmp_path / "other.txt")
    )
    assert best.model.smoothing == other.model.smoothing
    assert best.evaluation != other.evaluation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"seeds": 0}, "--seeds must be in [1, 4294967296] with --seed 0, got 0"),
        ({"num_tokens": -1}, "--num-tokens must be at least 0, got -1"),
        ({"prompt": "th"}, "'th' has 2 tokens; --mlp-context-length 3"),
        ({"mlp_context_length": 0}, "context_length"),
    ],
)
def test_prepare_refuses_an_option(text, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare(small_options(text, **options))


def test_prepare_refuses_a_short_text(tmp_path):
    (tmp_path / "short.txt").write_text("still too short for it")
    with pytest.raises(ValueError, match=r"short\.txt has 22 tokens; the ladder needs at least 48"):
        prepare(small_options(tmp_path / "short.txt"))


def make_wild_networks(options, data):
    recipe = replace(RECIPES["course"], bigram_lr=1e38)
    return make_networks(data.tokenizer.vocab_size, options, recipe, options.steps)


@pytest.mark.slow
def test_diverging_training_ends_as_a_failed_run(text, tmp_path):
    options = small_options(text, out=tmp_path / "run")
    data = load_text(options, "char")
    wild = partial(measure, options, data, data.val_ids[:3], make_wild_networks(options, data), "")
    with pytest.raises(FloatingPointError, match="at step"):
        run(options, lambda _: Experiment("ladder", wild))
    files = {path.name for path in options.out.iterdir()}
    assert files <= {".lock", "config.json", "manifest.json", "metrics.jsonl"}
    manifest = read_manifest(options.out)
    assert manifest["state"] == "failed"
    assert "at step" in manifest["why"]


@pytest.mark.slow
def test_later_seed_that_diverges_has_infinite_perplexity(text):
    options = small_options(text)
    data = load_text(options, "char")
    console = Console(file=io.StringIO(), width=200)
    context = RunContext(Path(), jax.devices("cpu")[0], {}, console)
    network = make_wild_networks(options, data)[0]
    assert train_again(network, data, 1, context) == math.inf
    assert re.search(r"neural bigram, seed 1: .* at step", console.file.getvalue())
    evaluation = jaxlm.Evaluation(math.log(9), 9.0, 10)
    rung = Rung("x", "x", network.model, {}, evaluation, Timing(), perplexities=[9.0, math.inf])
    assert describe_rung(rung, data)["seeds"]["interval_half_width"] == math.inf


@pytest.mark.stress
def test_each_rung_is_better_than_the_one_below(classic_shakespeare, tmp_path):
    """V = 4096, after a sixth of the default steps."""
    (tmp_path / "classic.txt").write_text(classic_shakespeare, "utf-8")
    results, _ = run(LadderOptions(text=tmp_path / "classic.txt", steps=1000, out=tmp_path / "run"))
    perplexities = {row["name"]: row["perplexity"] for row in results["models"]}
    # Published for this file and this vocabulary.
    published = {"uniform": 4096, "unigram": 474, "counts_bigram": 462, "counts_bigram_best_k": 181}
    for name, perplexity in published.items():
        assert perplexities[name] == pytest.approx(perplexity, abs=1)
    assert perplexities["mlp"] < perplexities["neural_bigram"] < perplexities["counts_bigram_best_k"]
