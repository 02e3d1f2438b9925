"""The floor without order by enumeration, and a pooled network that ignores order and nothing else."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from experiments.findings.token_order import Plan, PooledLM, make_models, measure, symmetrize, train_best_rate
from experiments.shared.synthetic import conditional_entropy
from jaxlm.models.interface import num_params
from jaxlm.text.dataset import load_dataset

PLAN = Plan(num_steps=50, num_seeds=2)
V = 4


def test_floor_of_a_source_that_is_its_order():
    # b follows (a, b) and a follows (b, a). Without the order, half of the contexts leave a coin toss.
    joint = np.full((2, 2, 2), 1e-300)
    joint[0, 1, 1] = joint[1, 0, 0] = joint[0, 0, 0] = joint[1, 1, 1] = 0.25
    assert conditional_entropy(joint) == pytest.approx(0, abs=1e-9)
    assert conditional_entropy(symmetrize(joint)) == pytest.approx(0.5 * math.log(2))


@pytest.mark.parametrize(("pool", "numpy_pool"), [("sum", np.sum), ("mean", np.mean)])
def test_pooled_network_matches_numpy(pool, numpy_pool):
    contexts = np.array([[1, 3], [3, 1], [1, 1]])
    model = PooledLM(jaxlm.MLPLanguageModel(V, 1, 5, 7), 2, pool)
    random = np.random.default_rng(0)
    shapes = {"embedding": {"embedding": (V, 5)}}
    shapes |= {"hidden": {"kernel": (5, 7), "bias": (7,)}, "projection": {"kernel": (7, V), "bias": (V,)}}
    params = {
        layer: {name: random.normal(size=shape).astype(np.float32) for name, shape in arrays.items()}
        for layer, arrays in shapes.items()
    }
    pooled = numpy_pool(params["embedding"]["embedding"][contexts], axis=1)
    hidden = np.tanh(pooled @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    expected = hidden @ params["projection"]["kernel"] + params["projection"]["bias"]
    variables = {"params": jax.tree.map(jnp.asarray, params)}
    logits = model.apply(variables, jnp.asarray(contexts))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5)
    assert np.abs(logits[0] - logits[2]).max() > 1e-3


@pytest.mark.parametrize(("vocab_size", "context_length"), [(8, 2), (65, 4), (65, 8)])
def test_wider_sum_has_the_parameters_of_the_concatenation(vocab_size, context_length):
    sizes = {
        title: num_params(jax.eval_shape(lambda model=model: jaxlm.init(model, jax.random.key(0))))
        for title, model in make_models(vocab_size, context_length, PLAN).items()
    }
    v, n, d, h = vocab_size, context_length, 32, 64
    assert sizes["concatenation"] == v * d + (n * d * h + h) + (h * v + v)
    assert sizes["sum"] == sizes["mean"] == v * d + (d * h + h) + (h * v + v)
    assert abs(sizes["sum, wider"] - sizes["concatenation"]) <= (d + 1 + v) / 2  # half a hidden unit
    assert list(make_models(vocab_size, 1, PLAN)) == ["concatenation"]


@pytest.mark.slow
def test_train_best_rate_returns_every_seed_with_that_rate():
    ids = np.tile(np.array([0, 1, 0, 2], np.int32), 100)  # 0 follows (0, 1), 2 follows (1, 0)
    plan = PLAN._replace(learning_rates=(1e-6, 0.5, 1e-5))
    model = jaxlm.MLPLanguageModel(3, 2, 4, 8)
    lr, runs = train_best_rate(model, ids, plan, jax.random.key(0))
    assert (lr, len(runs)) == (0.5, 2)
    perplexities = [jaxlm.perplexity(model, variables, ids) for variables in runs]
    assert all(1 <= perplexity < 1.1 for perplexity in perplexities)
    assert perplexities[0] != perplexities[1]


@pytest.mark.stress
def test_measure_reports_text_and_source(run_measure, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 30)
    plan = Plan((2,), 1, 2, 2000, (1e-6,), ("sum",))
    results, table = run_measure(partial(measure, 0, plan, load_dataset("", tmp_path / "text.txt", "char")))
    vocab_size = len(set("the cat sat on the mat\n"))
    for row in results["text"]["rows"]:
        assert row["mean"] == pytest.approx(vocab_size, rel=0.02)  # an untrained network is uniform
        assert row["mean"] == pytest.approx(np.mean(row["scores"]))
        assert row["deviation"] == pytest.approx(np.std(row["scores"], ddof=1))
    for row in results["source"]["rows"]:
        assert row["mean"] == pytest.approx(math.log(8), abs=0.02)
    floors = results["source"]["entropy_nats"], results["source"]["floor_without_order_nats"]
    assert 0 < floors[0] < floors[1] < math.log(8)
    assert f"entropy {floors[0]:.4f}, floor without order {floors[1]:.4f}" in table
