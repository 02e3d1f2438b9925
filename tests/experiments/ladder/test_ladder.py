"""The main job, on a text small enough to run in seconds; and the lesson, on the real one."""

import dataclasses
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.ladder import ladder
from experiments.ladder.ladder import LadderConfig, counts_bigrams, load_text, run_ladder
from jaxlm.runs.directory import create_run
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.summary import summarise_run
from jaxlm.utils.terminal import run_command

ROOT = Path(__file__).parents[3]
NAMES = ["uniform", "unigram", "counts_bigram", "counts_bigram_best_k", "neural_bigram", "mlp"]
TEXT = "the cat sat on the mat. a rat sat on a hat: the cat sat on the rat!\n" * 40


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def small(text, out, **options):
    config = LadderConfig(
        text=text,
        tokenizer="char",
        steps=30,
        bigram_embedding_dim=4,
        mlp_embedding_dim=3,
        mlp_hidden_dim=5,
        num_tokens=12,
        out=out,
    )
    return dataclasses.replace(config, **options)


def run(config):
    console = Console(file=io.StringIO(), width=80)
    run_ladder(config, console)
    return json.loads((config.out / "results.json").read_text("utf-8")), console.file.getvalue()


def without_times(results):
    rows = [{name: row[name] for name in row if not name.endswith("_seconds")} for row in results["models"]]
    return results | {"models": rows}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its folder, its results, what it printed."""
    folder = tmp_path_factory.mktemp("ladder")
    (folder / "text.txt").write_text(TEXT)
    config = small(folder / "text.txt", folder / "run")
    return config.out, *run(config)


@pytest.mark.slow
def test_every_artefact_is_there(finished):
    out, _, _ = finished
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "config.json",
        "counts.png",
        "curves.png",
        "manifest.json",
        "metrics.jsonl",
        "models",
        "report.html",
        "results.json",
        "samples.txt",
    ]
    assert sorted(path.name for path in (out / "models").iterdir()) == ["counts_bigram", "mlp", "neural_bigram"]


@pytest.mark.slow
def test_the_results_hold_the_six_models_and_what_they_depend_on(finished):
    _, results, _ = finished
    assert [row["name"] for row in results["models"]] == NAMES
    for row in results["models"]:
        assert row["perplexity"] == pytest.approx(np.exp(row["nats_per_token"]))
        # Characters of one byte: a token is a byte.
        assert row["bits_per_byte"] == pytest.approx(row["nats_per_token"] / np.log(2))
        assert row["compile_seconds"] >= 0
        assert row["train_seconds"] >= 0
    vocab_size = len(set(TEXT))
    sizes = [0, vocab_size, vocab_size**2, vocab_size**2]
    sizes += [
        vocab_size * 4 + 4 * vocab_size + vocab_size,
        vocab_size * 3 + (9 * 5 + 5) + 5 * vocab_size + vocab_size,
    ]
    assert [row["size"] for row in results["models"]] == sizes
    assert results["models"][0]["perplexity"] == pytest.approx(vocab_size, rel=1e-5)
    assert results["seed"] == 0
    assert re.fullmatch("[0-9a-f]{64}", results["corpus"]["sha256"])
    assert set(results["versions"]) >= {"jax", "flax", "optax", "jaxlm", "python"}


@pytest.mark.slow
def test_the_manifest_says_what_it_was_of_and_that_it_is_done(finished):
    out, results, _ = finished
    manifest = read_manifest(out)
    assert (manifest["kind"], manifest["state"], manifest["why"]) == ("ladder", "done", None)
    for name in ("corpus", "tokenizer", "tokens", "versions", "device"):
        assert manifest[name] == results[name]
    assert manifest["config"] == json.loads((out / "config.json").read_text("utf-8"))
    summary = summarise_run(out)
    best = min(results["models"], key=lambda row: row["nats_per_token"])
    assert (summary["model"], summary["perplexity"], summary["steps"]) == (best["title"], best["perplexity"], 30)


@pytest.mark.slow
def test_the_tokens_are_split_by_position(finished):
    _, results, _ = finished
    assert results["tokens"] == {"train": len(TEXT) * 9 // 10, "validation": len(TEXT) - len(TEXT) * 9 // 10}


@pytest.mark.slow
def test_each_recorded_step_is_a_line_of_metrics(finished):
    out, results, _ = finished
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines if line["model"] == "mlp"] == list(range(30))
    last = {line["model"]: line["val_perplexity"] for line in lines}
    for row in results["models"]:
        if row["name"] in last:
            assert row["perplexity"] == last[row["name"]]


@pytest.mark.slow
def test_every_model_speaks_from_the_same_prompt(finished):
    out, results, printed = finished
    first_line = TEXT[results["tokens"]["train"] :].partition("\n")[2]
    assert results["prompt"] == first_line[:3]
    assert len(results["samples"]) == 6
    for text in results["samples"].values():
        assert text.startswith(results["prompt"])
        assert len(text) == 3 + 12
        assert text in (out / "samples.txt").read_text("utf-8")
        assert text in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["counts_bigram", "neural_bigram", "mlp"])
def test_a_saved_model_has_the_perplexity_of_its_row(finished, name):
    out, results, _ = finished
    model, variables, tokenizer = jaxlm.load_model(out / "models" / name)
    val_ids = tokenizer.encode(TEXT)[results["tokens"]["train"] :]
    row = next(row for row in results["models"] if row["name"] == name)
    assert jaxlm.perplexity(model, variables, val_ids) == row["perplexity"]


def test_the_best_k_is_chosen_on_the_training_text_alone(text, tmp_path):
    """Another validation text, and k is the same."""
    num_train = len(TEXT) * 9 // 10
    (tmp_path / "other.txt").write_text(TEXT[:num_train] + TEXT[num_train:][::-1])
    best, other = (
        list(counts_bigrams(load_text(small(path, tmp_path / "run"))))[-1]
        for path in (text, tmp_path / "other.txt")
    )
    assert best.model.smoothing == other.model.smoothing
    assert best.evaluation != other.evaluation


@pytest.mark.slow
def test_the_same_command_gives_the_same_results_but_for_times(finished, tmp_path):
    _, results, _ = finished
    text = Path(results["corpus"]["source"])
    again, _ = run(small(text, tmp_path / "again"))
    assert without_times(again) == without_times(results)
    other, _ = run(small(text, tmp_path / "other", seed=1))
    assert other["models"][-1]["perplexity"] != results["models"][-1]["perplexity"]


def test_an_existing_run_is_refused_before_any_work(tmp_path):
    config = small(tmp_path / "no text is read", tmp_path / "run")
    with create_run(config.out, "ladder", {"seed": 1}, jax.devices("cpu")[0]):
        pass
    with pytest.raises(FileExistsError, match="--overwrite"):
        run(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": Path("nowhere.txt")}, "nowhere.txt"),
        ({"text": None, "corpus": "bible"}, "'bible'.*tinyshakespeare"),
        ({"tokenizer": "bpe", "vocab_size": 100}, "vocab_size=100 .*256"),
        ({"vocab_size": 300}, "--vocab-size 300 is for --tokenizer bpe"),
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"seed": -1}, r"--seed .* got -1"),
        ({"seed": 2**32}, r"--seed must lie in 0..4294967295, got 4294967296"),
        ({"num_tokens": -1}, "--num-tokens .* got -1"),
        ({"prompt": "th"}, "'th' makes 2 of the 3 tokens that the MLP needs"),
        ({"prompt": "thé cat"}, "'é' at position 2"),
        ({"mlp_hidden_dim": 0}, "hidden_dim .* got 0"),
        ({"mlp_context_length": 0}, "context_length .* got 0"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_bad_options_end_in_one_line_and_no_folder(text, tmp_path, capsys, options, message):
    config = small(**{"text": text, "out": tmp_path / "run"} | options)
    assert run_command(lambda: run(config)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"caf\xe9 au lait", "not UTF-8.*0xe9.*offset 3"),
        (b"too short", "has 9 tokens; .* the shorter has 1, and needs 2"),
        (b"still too short for it", "has 22 tokens; the ladder needs 48"),
    ],
)
def test_bad_texts_end_in_one_line_and_no_folder(tmp_path, capsys, content, message):
    (tmp_path / "bad.txt").write_bytes(content)
    config = small(tmp_path / "bad.txt", tmp_path / "run")
    assert run_command(lambda: run(config)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "bad.txt" in error
    assert not config.out.exists()


def test_a_run_that_diverges_does_not_look_finished(text, tmp_path, monkeypatch):
    wild = dataclasses.replace(ladder.RECIPES["course"], bigram_lr=1e38)
    monkeypatch.setitem(ladder.RECIPES, "course", wild)
    config = small(text, tmp_path / "run", recipe="course")
    with pytest.raises(FloatingPointError, match="at step"):
        run(config)
    artefacts = {path.name for path in config.out.iterdir()}
    assert artefacts <= {".lock", "config.json", "manifest.json", "metrics.jsonl"}
    manifest = read_manifest(config.out)
    assert manifest["state"] == "failed"
    assert "at step" in manifest["why"]


@pytest.mark.slow
def test_the_command_itself(text, tmp_path):
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "experiments.ladder.ladder", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    helped = command("--help")
    assert helped.returncode == 0
    assert "--vocab-size" in helped.stdout
    refused = command("--text", str(tmp_path / "none.txt"))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: cannot read")
    assert "Traceback" not in refused.stderr
    assert command("--tokenizer", "words").returncode == 2


@pytest.mark.slow
def test_the_lesson_comes_true(classic_shakespeare, tmp_path):
    """At V = 4096, after a sixth of the default steps: each rung predicts better than the one below."""
    (tmp_path / "classic.txt").write_text(classic_shakespeare, "utf-8")
    results, _ = run(LadderConfig(text=tmp_path / "classic.txt", steps=1000, out=tmp_path / "run"))
    perplexity = {row["name"]: row["perplexity"] for row in results["models"]}
    # Uniform, unigram and counts: figures that were published for this file and this vocabulary.
    assert perplexity["uniform"] == pytest.approx(4096, abs=0.5)
    assert perplexity["unigram"] == pytest.approx(474, abs=1)
    assert perplexity["counts_bigram"] == pytest.approx(462, abs=1)
    assert perplexity["counts_bigram_best_k"] == pytest.approx(181, abs=1)
    assert perplexity["neural_bigram"] < perplexity["counts_bigram_best_k"]
    assert perplexity["mlp"] < perplexity["neural_bigram"]


@pytest.mark.slow
def test_several_seeds_are_those_of_single_runs(tmp_path, text, finished):
    """The mean and its interval, from the perplexities of three runs with a seed each."""
    _, first, _ = finished
    results, told = run(small(text, tmp_path / "several", seeds=3))
    singles = [first, *(run(small(text, tmp_path / f"{seed}", seed=seed))[0] for seed in (1, 2))]
    for number, row in enumerate(results["models"]):
        if number < 4:
            assert "seeds" not in row
            continue
        perplexities = [single["models"][number]["perplexity"] for single in singles]
        assert len(set(perplexities)) == 3
        assert row["seeds"]["perplexities"] == perplexities
        assert row["perplexity"] == perplexities[0]
        half_width = 4.302653 * np.std(perplexities, ddof=1) / np.sqrt(3)  # Student's t with 2 degrees of freedom
        assert row["seeds"]["perplexity"] == pytest.approx(np.mean(perplexities))
        for name in ("nats_per_token", "bits_per_byte"):
            mean = np.mean([single["models"][number][name] for single in singles])
            assert row["seeds"][name] == pytest.approx(mean)
        assert f"{row['seeds']['nats_per_token']:.4f}" in told
        assert row["seeds"]["interval_half_width"] == pytest.approx(half_width)
        assert f"{np.mean(perplexities):.2f}" in told
        assert f"± {half_width:.2f}" in told
    assert results["samples"] == first["samples"]


@pytest.mark.slow
def test_a_later_seed_that_diverges_leaves_the_others_figures(tmp_path, text, monkeypatch):
    train_lm, trained = jaxlm.train_lm, []

    def diverging_at_last(model, ids, **options):
        trained.append(model)
        if len(trained) == 4:
            raise FloatingPointError("the loss is nan at step 3; lower lr")
        return train_lm(model, ids, **options)

    monkeypatch.setattr(jaxlm, "train_lm", diverging_at_last)
    results, told = run(small(text, tmp_path / "run", seeds=2))
    assert "MLP, seed 1: the loss is nan at step 3" in told
    several = results["models"][-1]["seeds"]
    assert several["perplexities"] == [results["models"][-1]["perplexity"], None]
    assert several["perplexity"] is None
    assert "± inf" in told


@pytest.mark.parametrize(("seed", "seeds", "most"), [(0, 0, 2**32), (2**32 - 2, 3, 2)])
def test_seeds_out_of_range_are_refused(tmp_path, text, seed, seeds, most):
    with pytest.raises(ValueError, match=rf"--seeds must lie in 1\.\.{most} with --seed {seed}, got {seeds}"):
        run(small(text, tmp_path / "run", seed=seed, seeds=seeds))
    assert not (tmp_path / "run").exists()
