"""A sweep equals its runs trained one by one, and a run that diverges does not affect the others."""

import itertools
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import DROPOUT_MLP, IDS, MLP, VOCAB, assert_close, assert_same_bits

import jaxlm
from jaxlm.training.optimizers import sgd
from jaxlm.training.step import train_chunk
from jaxlm.training.sweep import sweep_grid, train_many

VAL_IDS = IDS[:50]
KEYS = jax.random.split(jax.random.key(5), 2)
OPTIONS = {"num_steps": 12, "log_every": 5}
ONE_DEVICE = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))


class ShiftedModel:
    """A user's own model with a collection that differs by run and is not trained."""

    vocab_size, context_length = VOCAB, 1

    def init(self, key, contexts):
        return {"params": {"table": jnp.zeros((VOCAB, VOCAB))}, "shift": {"by": jax.random.normal(key, (VOCAB,))}}

    def apply(self, variables, contexts):
        return variables["params"]["table"][contexts[:, 0]] + variables["shift"]["by"][None]


def scheduled_sgd(lr, momentum, weight_decay):
    decays = {"momentum": momentum, "weight_decay": weight_decay}
    return sgd(lr, 12, schedule="cosine", warmup_steps=3, clip_norm=1.0, **decays)


LRS, MOMENTA, DECAYS = [0.5, 0.3], [0.9, 0.0], [0.1, 0.2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "optimizer", "hyperparams"),
    [
        (ShiftedModel(), scheduled_sgd, {"lr": [1.0, 2.0], "momentum": MOMENTA, "weight_decay": DECAYS}),
        (DROPOUT_MLP, sgd, {"lr": LRS}),
    ],
    ids=["schedule_and_constants", "dropout"],
)
def test_train_many_equals_train_lm(model, optimizer, hyperparams):
    variables, histories = train_many(
        model, IDS, keys=KEYS, hyperparams=hyperparams, optimizer=optimizer, val_ids=VAL_IDS, **OPTIONS
    )
    for run, key in enumerate(KEYS):
        numbers = {name: values[run] for name, values in hyperparams.items()}
        options = numbers if optimizer is sgd else {"optimizer": optimizer(**numbers)}
        alone, history = jaxlm.train_lm(model, IDS, key=key, val_ids=VAL_IDS, **options, **OPTIONS)
        assert_close(jax.tree.map(lambda leaf, run=run: leaf[run], variables), alone, rtol=2e-4, atol=2e-6)
        assert histories[run]["steps"] == history["steps"] == [0, 5, 10, 11]
        for name in ("train_losses", "val_perplexities"):
            np.testing.assert_allclose(histories[run][name], history[name], rtol=1e-4)


@pytest.mark.slow
def test_diverging_run_does_not_affect_the_others():
    def sweep_lrs(*lrs):
        return train_many(MLP, IDS, keys=KEYS, hyperparams={"lr": lrs}, val_ids=VAL_IDS, **OPTIONS)

    (variables, histories), (expected, _) = sweep_lrs(0.1, 3e38), sweep_lrs(0.1, 0.2)
    assert math.isnan(histories[1]["val_perplexities"][-1])
    assert not np.isfinite(variables["params"]["projection"]["kernel"][1]).all()
    assert_same_bits(*(jax.tree.map(lambda leaf: leaf[0], tree) for tree in (variables, expected)))
    assert np.isfinite(histories[0]["val_perplexities"]).all()


@pytest.mark.slow
def test_train_many_of_no_steps_returns_init():
    hyperparams, options = {"lr": [0.1] * 2}, OPTIONS | {"num_steps": 0}
    variables, histories = train_many(MLP, IDS, keys=KEYS, hyperparams=hyperparams, **options)
    alone, _ = jaxlm.train_lm(MLP, IDS, key=KEYS[1], num_steps=0)
    assert_same_bits(jax.tree.map(lambda leaf: leaf[1], variables), alone)
    assert histories == [{"steps": [], "train_losses": [], "val_perplexities": []}] * 2


@pytest.mark.slow
def test_train_many_compiles_once():
    train_many(MLP, IDS, keys=KEYS, hyperparams={"lr": [0.1, 0.2]}, **OPTIONS)
    compiled = train_chunk._cache_size()
    for num_steps in (1, 40):
        options = OPTIONS | {"num_steps": num_steps}
        train_many(MLP, IDS[:-3], keys=KEYS, hyperparams={"lr": [0.3, 0.9]}, **options)
    assert train_chunk._cache_size() == compiled


@pytest.mark.slow
def test_train_many_splits_runs_over_devices():
    """Runs in a process whose CPU counts as two devices."""
    program = """
import jax, numpy as np, jaxlm

def sweep(device, runs=4, **mesh):
    model, keys, lr = jaxlm.NeuralBigramLM(7, 3), jax.random.split(jax.random.key(5), runs), [0.1] * runs
    options = {"batch_size": 8, "num_steps": 12, "log_every": 12, "device": device, **mesh}
    return jaxlm.train_many(model, np.arange(300) ** 2 % 7, keys=keys, hyperparams={"lr": lr}, **options)[0]

both, one = sweep("cpu"), sweep(jax.devices("cpu")[1])
meshed = sweep("auto", mesh=jax.sharding.Mesh(np.array(jax.devices("cpu")), ("data",)))
jax.tree.map(np.testing.assert_array_equal, meshed, both)
assert {len(leaf.devices()) for leaf in jax.tree.leaves(both)} == {2}
assert {len(leaf.devices()) for leaf in jax.tree.leaves(sweep("cpu", runs=3))} == {1}
assert jax.tree.leaves(one)[0].devices() == {jax.devices("cpu")[1]}
jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6), both, one)
"""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_sweep_grid_holds_all_combinations():
    keys, numbers = sweep_grid(KEYS, lr=[0.1, 0.2], momentum=[0, 0.5, 0.9])
    rows = zip(
        jax.random.key_data(keys).tolist(), numbers["lr"].tolist(), numbers["momentum"].tolist(), strict=True
    )
    expected = itertools.product(jax.random.key_data(KEYS).tolist(), [0.1, 0.2], [0, 0.5, 0.9])
    assert list(rows) == list(expected)
    assert sweep_grid(KEYS)[1] == {}


@pytest.mark.parametrize("keys", [KEYS[0], np.zeros(3), 0], ids=["scalar", "floats", "int"])
def test_sweep_of_other_keys_is_a_type_error(keys):
    for run in (lambda: sweep_grid(keys, lr=[0.1]), lambda: train_many(MLP, IDS, keys=keys, hyperparams={})):
        with pytest.raises(TypeError, match=r"keys must be random keys such as jax.random.split\(key\)"):
            run()


@pytest.mark.parametrize(
    ("keys", "got"), [(KEYS[:0], "none"), (jax.random.split(jax.random.key(0, impl="rbg"), 2), "rbg, which draws")]
)
def test_sweep_without_threefry_keys_is_a_value_error(keys, got):
    with pytest.raises(ValueError, match=f"keys must be at least one threefry2x32 key, got {got}"):
        train_many(MLP, IDS, keys=keys, hyperparams={"lr": LRS})


def test_sweep_grid_accepts_legacy_keys():
    keys, _ = sweep_grid(jax.random.split(jax.random.PRNGKey(5), 2))
    assert (jax.random.key_data(keys) == jax.random.key_data(KEYS)).all()


@pytest.mark.parametrize("numbers", [[], 0.1, [[0.1, 0.2]], ["a"]])
def test_sweep_grid_without_numbers_is_a_value_error(numbers):
    with pytest.raises(ValueError, match="momentum must be a list of at least one number"):
        sweep_grid(KEYS, lr=[0.1], momentum=numbers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hyperparams": {"lr": [0.1]}}, r"lr must hold 2 finite numbers, one per key, got shape \[1\]"),
        ({"hyperparams": {"lr": 0.1}}, r"lr must hold 2 finite numbers, one per key, got shape \[\]"),
        ({"hyperparams": {"lr": [0.1, math.nan]}}, r"lr must hold 2 finite numbers, one per key, got \[0.1 nan\]"),
        ({"hyperparams": {"lr": [math.inf, 0.1]}}, r"lr must hold 2 finite numbers, one per key, got \[inf 0.1\]"),
        ({"hyperparams": {"lr": [0.1, -0.5]}}, r"lr must be in \[0, inf\), got -0.5"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_steps": -1}, "num_steps must be at least 0, got -1"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"train_ids": IDS[:2]}, "train_ids"),
        ({"train_ids": IDS + 2}, "6"),
        ({"val_ids": IDS[:2]}, "val_ids"),
        ({"device": "cpu", "mesh": ONE_DEVICE}, "device cpu and mesh exclude each other"),
    ],
)
def test_train_many_out_of_range_is_a_value_error(arguments, message):
    options = {"train_ids": IDS, "keys": KEYS, "hyperparams": {"lr": LRS}, **OPTIONS} | arguments
    with pytest.raises(ValueError, match=message):
        train_many(MLP, **options)


def test_train_many_of_counts_is_a_type_error():
    with pytest.raises(TypeError, match=r"call model\.fit"):
        train_many(jaxlm.CountsBigramLM(VOCAB), IDS, keys=KEYS, hyperparams={"lr": [0.1] * 2}, **OPTIONS)
