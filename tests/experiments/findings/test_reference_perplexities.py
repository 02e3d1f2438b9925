"""Recipes give the bits of `jaxlm train`, mixtures take their weights from training text, artefacts are made."""

import dataclasses
import hashlib
import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.findings import reference_perplexities as published
from experiments.findings.reference_perplexities import Fitted, PublishedConfig, fitted, mixed, run_published
from experiments.shared.experiment import Output
from experiments.shared.recipes import recipe_config, train_recipe
from jaxlm.runs.config import resolve
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.train import start_run
from jaxlm.text.dataset import load_dataset

TEXT = "the cat sat on the mat. a rat sat on a hat: the cat sat on the rat!\n" * 60
RECIPES = ("minute", "ten_minutes")


def small(name, **options):
    recipe = resolve(recipe_config(name))
    shape = {"num_steps": 3, "embedding_dim": 2, "hidden_dim": 3, "log_every": 2}
    return dataclasses.replace(recipe, vocab_size=256, **shape, **options)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_one_of_sgd_that_jaxlm_train_takes(name):
    config = resolve(recipe_config(name))
    assert config.model == "mlp"
    assert (config.text, config.corpus, config.seed) == (None, "tinyshakespeare", 0)


@pytest.mark.slow
def test_a_recipe_gives_the_bits_of_jaxlm_train(text, tmp_path):
    config = small("ten_minutes", text=text, device="cpu")
    data = load_dataset("", text, "bpe", vocab_size=256)
    here = train_recipe(config, 256, data.train_ids, data.val_ids)
    _, variables, _ = jaxlm.load_run(start_run(config, tmp_path / "run"))
    assert jax.tree.all(jax.tree.map(np.array_equal, here.variables, variables))


@pytest.mark.slow
def test_the_artefacts(text, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "options_of", lambda name, config: small(name, seed=config.seed))
    train = published.trained_on_characters
    monkeypatch.setattr(published, "trained_on_characters", lambda data, seed, _: train(data, seed, True))
    monkeypatch.setattr(published, "_CLASSIC", hashlib.sha256(TEXT.encode()).hexdigest())
    config = PublishedConfig(text=text, seeds=2, output=Output(tmp_path / "run"))
    path = run_published(config, Console(file=(told := io.StringIO()), width=200))
    assert read_manifest(path)["state"] == "done"
    assert (path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (path / "table.txt").read_text("utf-8") in told.getvalue()
    rows = json.loads((path / "results.json").read_text("utf-8"))["rows"]
    assert [row["at_most"] for row in rows] == [126, 104, 105, 98, 94, 85, 4.85, 4.9]
    for row in rows:
        assert row["meets"] == (row["perplexity"] <= row["at_most"])
        assert row["perplexity"] == pytest.approx(np.mean(row["perplexities"]))
        assert len(row["perplexities"]) == (2 if "minute`" in row["title"] or "Muon" in row["title"] else 1)
        assert (row["interval_half_width"] is None) == (len(row["perplexities"]) == 1)
    assert "MISSED" in told.getvalue() or all(row["meets"] for row in rows)
    assert sum(rows[5]["weights"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("perplexity", "seconds", "most_seconds", "wanted"),
    [(97, [50, 59], 60, True), (99, [50, 59], 60, False), (97, [50, 61], 60, False), (97, [500], None, True)],
)
def test_a_row_meets_its_goal_in_its_time(perplexity, seconds, most_seconds, wanted):
    row = published.row_of("MLP", 98.0, [perplexity], seconds) | {"most_seconds": most_seconds}
    assert published.meets(row) is wanted


@pytest.mark.slow
def test_another_text_is_not_judged(text, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "options_of", lambda name, config: small(name, seed=config.seed))
    train = published.trained_on_characters
    monkeypatch.setattr(published, "trained_on_characters", lambda data, seed, _: train(data, seed, True))
    path = run_published(PublishedConfig(text=text, seeds=1, output=Output(tmp_path / "run")), Console(quiet=True))
    rows = json.loads((path / "results.json").read_text("utf-8"))["rows"]
    assert {row["meets"] for row in rows} == {None}


@pytest.mark.slow
def test_the_weights_of_the_mixture_know_no_validation(text):
    data = load_dataset("", text, "bpe", vocab_size=256)
    model = jaxlm.MLPLanguageModel(256, 5, 2, 3)
    network = Fitted(model, jaxlm.init(model, jax.random.key(0)))
    mixture, weights = mixed(small("ten_minutes"), network, data)
    other = dataclasses.replace(data, val_ids=data.val_ids[::-1].copy())
    assert mixed(small("ten_minutes"), network, other)[1] == weights
    # The variables are of the whole training text, the network's those given.
    contexts = np.asarray(data.val_ids[:5])[None]
    wanted = sum(
        weight * np.exp(jax.nn.log_softmax(np.asarray(each.model.apply(each.variables, contexts[:, -n:]))))
        for weight, each, n in zip(
            weights,
            [network, *(fitted(jaxlm.CountsNgramLM(256, n), data.train_ids) for n in (2, 4))],
            (5, 2, 4),
            strict=True,
        )
    )
    found = jax.nn.softmax(mixture.model.apply(mixture.variables, contexts))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("seeds", [0, 2**32])
def test_seeds_out_of_range_are_refused(tmp_path, seeds):
    config = PublishedConfig(seeds=seeds, seed=1, output=Output(tmp_path / "run"))
    with pytest.raises(ValueError, match=rf"--seeds must lie in 1\.\.{2**32 - 1}, got {seeds}"):
        run_published(config, Console(quiet=True))
    assert not (tmp_path / "run").exists()
