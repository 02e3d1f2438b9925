"""The ladder on a text that takes seconds, and its lesson on the real one."""

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.ladder.ladder import LadderOptions, describe_rung, prepare, train_again
from experiments.ladder.rungs import RECIPES, Rung, find_best_smoothing, fit_baselines, load_text, make_networks
from experiments.shared.experiment import RunContext
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.summary import summarize_run
from jaxlm.utils.timing import Timing

TEXT = "the cat sat on the mat. a rat sat on a hat: the cat sat on the rat!\n" * 20
NAMES = ["uniform", "unigram", "counts_bigram", "counts_bigram_best_k", "neural_bigram", "mlp"]
STEPS = 2


def small_options(text, **options):
    sizes = {"bigram_embedding_dim": 4, "mlp_embedding_dim": 3, "mlp_hidden_dim": 5, "num_tokens": 12}
    return LadderOptions(**{"text": text, "tokenizer": "char", "steps": STEPS, **sizes, **options})


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """The run directory, the results and the output of a small run from two seeds."""
    folder = tmp_path_factory.mktemp("ladder")
    (folder / "text.txt").write_text(TEXT)
    return run(prepare, small_options(folder / "text.txt", out=folder / "run", seeds=2))


@pytest.mark.slow
def test_ladder_writes_every_artifact(finished):
    files = ["config.json", "counts.png", "curves.png", "manifest.json", "metrics.jsonl", "models"]
    files += ["play.html", "report.html", "results.json", "samples.txt"]
    assert sorted(path.name for path in finished[0].iterdir() if path.name != ".lock") == files


@pytest.mark.slow
def test_results_and_manifest_describe_six_models(finished):
    out, results, _ = finished
    models = results["models"]
    assert [row["name"] for row in models] == NAMES
    for row in models:
        assert row["perplexity"] == pytest.approx(np.exp(row["nats_per_token"]))
        # Characters of one byte: a token is a byte.
        assert row["bits_per_byte"] == pytest.approx(row["nats_per_token"] / np.log(2))
    v = len(set(TEXT))
    assert [row["size"] for row in models[:4]] == [0, v, v**2, v**2]
    assert [row["size"] for row in models[4:]] == [v * 4 + 4 * v + v, v * 3 + (9 * 5 + 5) + 5 * v + v]
    assert models[0]["perplexity"] == pytest.approx(v, rel=1e-5)
    num_train = len(TEXT) * 9 // 10
    assert results["tokens"] == {"train": num_train, "validation": len(TEXT) - num_train}
    manifest, summary = read_manifest(out), summarize_run(out)
    assert (manifest["kind"], manifest["state"]) == ("ladder", "done")
    assert all(manifest[name] == results[name] for name in ("corpus", "tokenizer", "tokens"))
    best = min(models, key=lambda row: row["nats_per_token"])
    assert (summary["model"], summary["perplexity"]) == (best["name"], best["perplexity"])


@pytest.mark.slow
def test_metrics_hold_every_recorded_step(finished):
    out, results, _ = finished
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    perplexities = {row["name"]: row["perplexity"] for row in results["models"]}
    for name in ("neural_bigram", "mlp"):
        own = [line for line in lines if line["model"] == name]
        assert [line["step"] for line in own] == list(range(STEPS))
        assert own[-1]["val_perplexity"] == perplexities[name]


@pytest.mark.slow
def test_ladder_samples_continue_one_prompt(finished):
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
def test_saved_models_have_the_perplexities_of_their_rows(finished):
    out, results, _ = finished
    for row in (results["models"][number] for number in (2, 4, 5)):
        model, variables, tokenizer = jaxlm.load_model(out / "models" / row["name"])
        val_ids = tokenizer.encode(TEXT)[results["tokens"]["train"] :]
        assert jaxlm.perplexity(model, variables, val_ids) == row["perplexity"]


@pytest.mark.slow
def test_several_seeds_are_those_of_single_runs(finished):
    out, results, output = finished
    recipe, ids = RECIPES["momentum"], jaxlm.CharTokenizer.train(TEXT).encode(TEXT)
    train_ids, val_ids = jaxlm.split_ids(ids)
    for fold, (row, lr) in enumerate(zip(results["models"][4:], (recipe.bigram_lr, recipe.mlp_lr), strict=True)):
        perplexities = row["seeds"]["perplexities"]
        model, _, _ = jaxlm.load_model(out / "models" / row["name"])
        _, history = jaxlm.train_lm(
            model,
            train_ids,
            key=jax.random.fold_in(jax.random.key(1), fold),
            val_ids=val_ids,
            batch_size=recipe.batch_size,
            num_steps=STEPS,
            optimizer=recipe.optimizer(lr, STEPS),
            log_every=STEPS,
        )
        assert perplexities == [row["perplexity"], history["val_perplexities"][-1]]
        mean, half_width = np.mean(perplexities), 12.7062 * abs(np.subtract(*perplexities)) / 2
        assert row["seeds"]["perplexity"] == pytest.approx(mean)
        assert row["seeds"]["interval_half_width"] == pytest.approx(half_width, rel=1e-5)
        assert row["seeds"]["nats_per_token"] == pytest.approx(np.log(perplexities).mean())
        assert f"{mean:.2f}" in output
        assert f"± {half_width:.2f}" in output
    assert all("seeds" not in row for row in results["models"][:4])


@pytest.mark.slow
def test_train_again_of_a_diverging_seed_is_infinite(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    options = small_options(tmp_path / "text.txt", steps=30)
    data = load_text(options, "char", min_tokens=8)
    recipe = replace(RECIPES["course"], bigram_lr=1e38)
    network = make_networks(data.tokenizer.vocab_size, options, recipe, options.steps)[0]
    console = Console(file=io.StringIO(), width=200)
    context = RunContext(Path(), jax.devices("cpu")[0], console)
    assert train_again(network, data, 1, context) == math.inf
    assert re.search(r"neural bigram, seed 1: .* at step", console.file.getvalue())
    evaluation = jaxlm.Evaluation(math.log(9), 9.0, 10)
    rung = Rung("x", "x", network.model, {}, evaluation, Timing(), perplexities=[9.0, math.inf])
    assert describe_rung(rung, data)["seeds"]["interval_half_width"] == math.inf


def test_default_recipe_is_that_of_jaxlm_train():
    options, recipe = LadderOptions(), RECIPES["momentum"]
    for name, lr in (("bigram", recipe.bigram_lr), ("mlp", recipe.mlp_lr)):
        config = resolve(TrainConfig(model=name))
        assert (config.num_steps, config.batch_size, config.lr) == (recipe.num_steps, recipe.batch_size, lr)
        assert config.embedding_dim == getattr(options, f"{name}_embedding_dim")
        assert (config.schedule, config.momentum, config.clip_norm, config.weight_decay) == ("cosine", 0.9, 1, 0)
    assert (config.context_length, config.hidden_dim) == (options.mlp_context_length, options.mlp_hidden_dim)


def test_find_best_smoothing_has_the_lowest_perplexity():
    table = 12 * np.roll(np.eye(6, dtype=np.int32), 1, axis=1)
    held_out_ids = np.append(np.arange(75) % 6, [5, 2, 0, 4, 1])
    candidates = [100.0, 0.3, 0.001]
    variables = {"counts": {"table": table}}
    perplexities = [jaxlm.perplexity(jaxlm.CountsBigramLM(6, k), variables, held_out_ids) for k in candidates]
    assert min(perplexities) == perplexities[1]
    assert find_best_smoothing(table, held_out_ids, candidates) == 0.3


def test_best_k_does_not_depend_on_the_validation_text(tmp_path):
    num_train = len(TEXT) * 9 // 10
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "other.txt").write_text(TEXT[:num_train] + TEXT[num_train:][::-1])
    best, other = (
        fit_baselines(load_text(small_options(tmp_path / name), "char", min_tokens=8))[3]
        for name in ("text.txt", "other.txt")
    )
    assert best.model.smoothing == other.model.smoothing
    assert best.evaluation != other.evaluation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"num_tokens": -1}, "--num-tokens must be at least 0, got -1"),
        ({"mlp_context_length": 99}, "needs 200: use a longer text"),
    ],
)
def test_prepare_refuses_an_option(tmp_path, options, message):
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare(small_options(tmp_path / "text.txt", **options))


@pytest.mark.stress
def test_each_rung_is_better_than_the_one_below(run, classic_shakespeare, tmp_path):
    """V = 4096, after a sixth of the default steps."""
    (tmp_path / "classic.txt").write_text(classic_shakespeare, "utf-8")
    _, results, _ = run(prepare, LadderOptions(text=tmp_path / "classic.txt", steps=1000, out=tmp_path / "run"))
    perplexities = {row["name"]: row["perplexity"] for row in results["models"]}
    # Published for this file and this vocabulary.
    published = {"uniform": 4096, "unigram": 474, "counts_bigram": 462, "counts_bigram_best_k": 181}
    for name, perplexity in published.items():
        assert perplexities[name] == pytest.approx(perplexity, abs=1)
    assert perplexities["mlp"] < perplexities["neural_bigram"] < perplexities["counts_bigram_best_k"]
