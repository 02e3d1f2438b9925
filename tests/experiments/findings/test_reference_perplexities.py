"""Every row has its goal, and the mixture weights do not depend on the validation text."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

import jaxlm
from experiments.findings.reference_perplexities import ReferencePerplexitiesOptions, fit_mixture, measure
from experiments.shared.recipes import read_recipe
from experiments.shared.training import fit_counts
from jaxlm.text.dataset import load_dataset

TEXT = "the cat sat on the mat. a rat sat on a hat: the cat sat on the rat!\n" * 60
OPTIONS = ReferencePerplexitiesOptions(quick=True)


def small_config(name):
    sizes = {"vocab_size": 256, "embedding_dim": 2, "hidden_dim": 3, "log_every": 2}
    return replace(read_recipe(name, quick_steps=3), **sizes)


@pytest.fixture
def load(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return partial(load_dataset, "", tmp_path / "text.txt")


@pytest.mark.stress
def test_measure_compares_eight_rows_with_goals(run_measure, load):
    recipes = {name: small_config(name) for name in ("minute", "ten_minutes")}
    results, table = run_measure(partial(measure, OPTIONS, recipes, load("bpe", vocab_size=256), load("char")))
    rows = results["rows"]
    assert [row["goal"] for row in rows] == [126, 104, 105, 98, 94, 85, 4.85, 4.9]
    assert [len(row["perplexities"]) for row in rows] == [1, 1, 1, 2, 1, 1, 1, 2]
    for row in rows:
        assert row["perplexity"] == pytest.approx(np.mean(row["perplexities"]))
        assert (row["interval_half_width"] is None) == (len(row["perplexities"]) == 1)
        assert f"{row['perplexity']:.2f}" in table
    assert sum(rows[5]["weights"]) == pytest.approx(1)
    assert rows[5]["perplexity"] <= min(row["perplexity"] for row in rows[1:5]) * 1.01


@pytest.mark.stress
def test_fit_mixture_ignores_the_validation_text(load):
    data = load("bpe", vocab_size=256)
    network = jaxlm.MLPLanguageModel(256, 5, 2, 3)
    variables = jaxlm.init(network, jax.random.key(0))
    mixture, mixture_variables = fit_mixture(small_config("ten_minutes"), network, variables, data)
    other = replace(data, val_ids=data.val_ids[::-1].copy())
    assert fit_mixture(small_config("ten_minutes"), network, variables, other)[0] == mixture
    # The counts are those of the whole training text; the network keeps its variables.
    contexts = data.val_ids[:5][None]
    models = [(network, variables)]
    for length in (2, 4):
        counts = jaxlm.CountsNgramLM(256, length)
        models.append((counts, fit_counts(counts, data.train_ids)))
    expected = sum(
        weight * jax.nn.softmax(np.asarray(model.apply(each, contexts[:, 5 - model.context_length :])))
        for weight, (model, each) in zip(mixture.weights, models, strict=True)
    )
    found = jax.nn.softmax(mixture.apply(mixture_variables, contexts))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
