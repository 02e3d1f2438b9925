"""The floors are the source's own, a pooled network forgets order and nothing else, the artefacts are there."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.findings import token_order as position
from experiments.findings.token_order import (
    Plan,
    PooledLM,
    PositionConfig,
    order_blind,
    run_position,
    spread_of,
    train_best,
    ways,
)
from experiments.shared.experiment import Output
from experiments.shared.synthetic import conditional_entropy, cross_entropy, draw_rows, window_probabilities
from jaxlm.models.interface import num_params
from jaxlm.runs.manifest import read_manifest

PLAN = Plan((1, 3), 200, 2, 2000)
QUIET = Console(quiet=True)
V = 4


@pytest.fixture(scope="module")
def joint():
    return window_probabilities(draw_rows(V, 2, 0.5, 5))


def test_the_floors_by_hand():
    # a then b is followed by b for sure, b then a by a: knowing the order tells all, not knowing it 1 bit in half.
    joint = np.full((2, 2, 2), 1e-300)
    joint[0, 1, 1] = joint[1, 0, 0] = joint[0, 0, 0] = joint[1, 1, 1] = 0.25
    assert conditional_entropy(joint) == pytest.approx(0, abs=1e-9)
    assert conditional_entropy(order_blind(joint)) == pytest.approx(0.5 * math.log(2))


def test_the_order_blind_floor_is_that_of_the_multisets(joint):
    by_multiset = {}
    for a, b in itertools.product(range(V), repeat=2):
        by_multiset[frozenset((a, b))] = by_multiset.get(frozenset((a, b)), 0) + joint[a, b]
    floor = -sum((row * np.log(row / row.sum())).sum() for row in by_multiset.values())
    assert conditional_entropy(order_blind(joint)) == pytest.approx(floor, rel=1e-12)
    assert floor > conditional_entropy(joint) + 0.05


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_a_pooled_network_is_blind_to_order_alone(pool, joint):
    model = PooledLM(V, 2, 5, 7, pool)
    variables = jax.tree.map(lambda leaf: leaf * 3, jaxlm.init(model, jax.random.key(0)))
    one, other, third = model.apply(variables, jnp.array([[1, 3], [3, 1], [1, 1]]))
    np.testing.assert_allclose(one, other, rtol=1e-6)
    assert np.abs(one - third).max() > 1e-3
    assert cross_entropy(model, variables, joint) > conditional_entropy(order_blind(joint))


def test_what_is_pooled_by_numpy():
    contexts = np.array([[0, 1, 1], [3, 2, 0]])
    for pool, total in (("sum", np.sum), ("mean", np.mean)):
        model = PooledLM(V, 3, 5, 7, pool)
        variables = jaxlm.init(model, jax.random.key(0))
        params = jax.tree.map(np.asarray, variables["params"])
        pooled = total(params["embedding"]["embedding"][contexts], axis=1)
        hidden = np.tanh(pooled @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        wanted = hidden @ params["projection"]["kernel"] + params["projection"]["bias"]
        np.testing.assert_allclose(model.apply(variables, jnp.asarray(contexts)), wanted, rtol=1e-4, atol=1e-6)


def test_with_one_token_all_are_the_mlp():
    mlp = jaxlm.MLPLanguageModel(V, 1, 5, 7)
    variables = jaxlm.init(mlp, jax.random.key(0))
    contexts = jnp.arange(V)[:, None]
    for pool in ("sum", "mean"):
        pooled = PooledLM(V, 1, 5, 7, pool)
        jax.tree.map(np.testing.assert_array_equal, jaxlm.init(pooled, jax.random.key(0)), variables)
        np.testing.assert_array_equal(pooled.apply(variables, contexts), mlp.apply(variables, contexts))
    assert list(ways(V, 1, PLAN)) == ["concatenation"]


@pytest.mark.parametrize(("vocab_size", "context_length"), [(8, 2), (65, 4), (65, 8)])
def test_the_wider_sum_has_the_weights_of_the_concatenation(vocab_size, context_length):
    sizes = {
        way: num_params(jax.eval_shape(lambda model=model: jaxlm.init(model, jax.random.key(0))))
        for way, model in ways(vocab_size, context_length, PLAN).items()
    }
    v, n, d, h = vocab_size, context_length, 32, 64
    assert sizes["concatenation"] == v * d + (n * d * h + h) + (h * v + v)
    assert sizes["sum"] == sizes["mean"] == v * d + (d * h + h) + (h * v + v)
    # To within half a hidden unit.
    assert abs(sizes["sum, wider"] - sizes["concatenation"]) <= (d + 1 + v) / 2


@pytest.mark.slow
def test_the_rate_that_trains_is_chosen_for_every_seed():
    ids = np.tile(np.array([0, 1, 0, 2], np.int32), 500)  # after 0 1 comes 0, after 1 0 comes 2
    plan = PLAN._replace(learning_rates=(0.5, 1e-6))
    model = jaxlm.MLPLanguageModel(3, 2, 4, 8)
    lr, runs = train_best(
        model, ids, plan, lambda lr: position.momentum_sgd(lr, plan.num_steps), jax.random.key(0)
    )
    assert (lr, len(runs)) == (0.5, 2)
    perplexities = [jaxlm.perplexity(model, variables, ids) for variables in runs]
    assert all(1 <= perplexity < 1.1 for perplexity in perplexities)
    assert perplexities[0] != perplexities[1]


def test_spread():
    assert spread_of("x", [1.0, 3.0]) == {"x_by_seed": [1.0, 3.0], "x_mean": 2.0, "x_deviation": math.sqrt(2)}
    assert spread_of("x", [1.0])["x_deviation"] == 0


def untrained(model, train_ids, plan, optimizer, key):
    return 0.5, [jaxlm.init(model, key)] * plan.num_seeds


@pytest.mark.slow
def test_the_artefacts(tmp_path, monkeypatch):
    monkeypatch.setattr(position, "train_best", untrained)
    (tmp_path / "text.txt").write_text("the cat sat on the mat\n" * 30)
    config = PositionConfig(text=tmp_path / "text.txt", output=Output(tmp_path / "run"), quick=True)
    out = run_position(config, QUIET)
    assert read_manifest(out)["state"] == "done"
    results = json.loads((out / "results.json").read_text("utf-8"))
    vocab_size = len(set("the cat sat on the mat\n"))
    for row in results["text"]["rows"]:
        assert row["val_perplexity_mean"] == pytest.approx(vocab_size, rel=0.02)  # an untrained network is uniform
    for row in results["source"]["rows"]:
        assert row["nats_per_token_mean"] == pytest.approx(math.log(8), abs=0.02)
    floors = results["source"]["entropy_nats"], results["source"]["order_blind_floor_nats"]
    assert 0 < floors[0] < floors[1] < math.log(8)
    table = (out / "table.txt").read_text("utf-8")
    assert "concatenation" in table
    assert f"{floors[1]:.4f}" in table
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_seeds": 0}, "--num-seeds must be at least 1, got 0"),
        ({"seed": -1}, "--seed must lie in 0..4294967295, got -1"),
        ({}, "use a longer text"),
    ],
)
def test_what_is_refused_writes_nothing(options, message, tmp_path):
    (tmp_path / "text.txt").write_text("too short")
    with pytest.raises(ValueError, match=message):
        run_position(PositionConfig(text=tmp_path / "text.txt", output=Output(tmp_path / "run"), **options), QUIET)
    assert not (tmp_path / "run").exists()
