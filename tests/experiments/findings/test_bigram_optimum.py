"""KL and entropies against SciPy's and against the library's own evaluation, and bad options refused."""

import io
import itertools
import json
import math

import jax
import numpy as np
import pytest
from rich.console import Console
from scipy import stats

import jaxlm
from experiments.findings.bigram_optimum import (
    CountsVsNeuralConfig,
    kl_by_context,
    recorded_steps,
    run_counts_vs_neural,
)
from experiments.shared.experiment import Output
from experiments.shared.synthetic import conditional_entropy

PAIRS = np.array([[3.0, 1.0, 0.0], [2.0, 2.0, 4.0], [0.0, 0.0, 0.0]])


def test_entropy_and_kl_are_scipys_row_by_row():
    shares = PAIRS.sum(axis=1) / PAIRS.sum()
    expected = sum(share * stats.entropy(row) for share, row in zip(shares, PAIRS, strict=True) if share)
    assert conditional_entropy(PAIRS / PAIRS.sum()) == pytest.approx(expected)
    model = jaxlm.NeuralBigramLM(3, 2)
    variables = jax.tree.map(lambda leaf: leaf + 0.3, jaxlm.init(model, jax.random.key(1)))
    rows = np.exp(jax.nn.log_softmax(model.apply(variables, np.arange(3))))
    expected = [share * stats.entropy(PAIRS[v], rows[v]) if share else 0 for v, share in enumerate(shares)]
    np.testing.assert_allclose(kl_by_context(model, variables, PAIRS), expected, rtol=1e-5)


def test_kl_is_the_training_nats_above_those_of_the_counts():
    ids = np.random.default_rng(0).integers(0, 3, 500).astype(np.int32)
    pairs = np.zeros((3, 3))
    for first, second in itertools.pairwise(ids):
        pairs[first, second] += 1
    model = jaxlm.NeuralBigramLM(3, 2)
    variables = jaxlm.init(model, jax.random.key(0))
    nats = jaxlm.evaluate(model, variables, ids).nats_per_token
    assert kl_by_context(model, variables, pairs).sum() == pytest.approx(
        nats - conditional_entropy(pairs / pairs.sum()), abs=1e-6
    )


@pytest.mark.parametrize("num_steps", [1, 9, 10, 47, 6000])
def test_the_last_step_is_recorded_once(num_steps):
    steps = recorded_steps(num_steps)
    assert steps == sorted(set(steps))
    assert steps[-1] == num_steps
    assert all(step % 10 == 0 for step in steps[:-1])


@pytest.mark.slow
def test_the_artefacts(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("abcacb" * 400 + "cab" * 200, "utf-8")
    config = CountsVsNeuralConfig(
        text=text, steps=150, lrs=(1.0,), quick=True, output=Output(out=tmp_path / "run")
    )
    out = run_counts_vs_neural(config, Console(file=(told := io.StringIO()), width=200))
    results = json.loads((out / "results.json").read_text("utf-8"))
    narrow, full = results["widths"]
    assert (narrow["width"], full["width"]) == (2, 3)
    for row in (narrow, full):
        assert row["kl_nats"][-1] == pytest.approx(row["final_kl_nats_by_lr"][0], rel=1e-3, abs=1e-5)
        assert min(row["kl_nats"]) > 0
    # A fresh model is uniform.
    assert full["kl_nats"][-1] < 0.01 * (math.log(3) - results["counts_nats_per_token"])
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "table.txt").read_text("utf-8") in told.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 300}, "--vocab-size 300 is for --tokenizer bpe; char has its own"),
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"lrs": ()}, "--lrs must be one positive finite number or more"),
        ({"lrs": (-1.0,)}, "--lrs must be one positive finite number or more"),
        ({"seed": -1}, "--seed must lie in 0..2\\*\\*32 - 1, got -1"),
    ],
)
def test_bad_options_are_refused_with_nothing_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_counts_vs_neural(
            CountsVsNeuralConfig(**options, output=Output(out=tmp_path / "run")), Console(quiet=True)
        )
    assert not (tmp_path / "run").exists()
