"""KL against SciPy and against the library's evaluation."""

import math
from functools import partial

import jax
import numpy as np
import pytest
from scipy import stats

import jaxlm
from experiments.findings.bigram_optimum import BigramOptimumOptions, kl_by_context, measure
from experiments.shared.synthetic import conditional_entropy
from jaxlm.text.dataset import load_dataset

PAIRS = np.array([[3.0, 1.0, 0.0], [2.0, 2.0, 4.0], [0.0, 0.0, 0.0]])


def test_kl_by_context_matches_scipy():
    shares = PAIRS.sum(axis=1) / PAIRS.sum()
    entropy = sum(share * stats.entropy(row) for share, row in zip(shares, PAIRS, strict=True) if share)
    assert conditional_entropy(PAIRS / PAIRS.sum()) == pytest.approx(entropy)
    model = jaxlm.NeuralBigramLM(3, 2)
    variables = jax.tree.map(lambda leaf: leaf + 0.3, jaxlm.init(model, jax.random.key(1)))
    rows = np.exp(jax.nn.log_softmax(model.apply(variables, np.arange(3))))
    expected = [share * stats.entropy(PAIRS[v], rows[v]) if share else 0 for v, share in enumerate(shares)]
    np.testing.assert_allclose(kl_by_context(model, variables, PAIRS), expected, rtol=1e-5)


@pytest.mark.slow
def test_measure_approaches_the_counts(run_measure, tmp_path):
    (tmp_path / "text.txt").write_text("aabaab" * 400 + "bab" * 200)
    options = BigramOptimumOptions(steps=150, quick=True)
    results, table = run_measure(partial(measure, options, load_dataset("", tmp_path / "text.txt", "char")))
    (row,) = results["dims"]
    assert row["dim"] == 2
    assert row["kl_nats"] == min(row["kl_nats_by_lr"])
    assert sum(row["percent_of_kl_by_worst_context"].values()) == pytest.approx(100)
    # A new model is uniform.
    assert 0 < row["kl_nats"] < 0.05 * (math.log(2) - results["counts_nats_per_token"])
    loss = results["counts_nats_per_token"] + row["kl_nats"]
    assert f"{loss:.5f}" in table
    assert f"{math.exp(loss):.4f}" in table
