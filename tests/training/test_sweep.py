"""Runs side by side come to what they come to one after another, and one that diverges leaves the others alone."""

import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlm
from jaxlm.training import sweep as sweeps
from jaxlm.training.loop import plain_sgd
from jaxlm.training.optimizers import sgd
from jaxlm.training.sweep import sweep_grid, train_many

IDS = np.random.default_rng(0).integers(0, 7, 300)
VAL_IDS = np.random.default_rng(1).integers(0, 7, 60)
MODEL = jaxlm.MLPLanguageModel(7, 2, 3, 4)
KEYS = jax.random.split(jax.random.key(5), 3)
OPTIONS = {"batch_size": 8, "num_steps": 12, "log_every": 5}


def with_momentum(lr, momentum):
    return optax.sgd(lr, momentum)


def of_the_command(lr, momentum, weight_decay):
    return sgd(
        lr, 12, schedule="cosine", warmup_steps=3, momentum=momentum, weight_decay=weight_decay, clip_norm=1.0
    )


@pytest.mark.parametrize(
    ("model", "optimizer", "hyperparams"),
    [
        (MODEL, plain_sgd, {"lr": [0.1, 0.2, 0.3], "weight_decay": [0.0, 0.1, 0.2]}),
        (MODEL, with_momentum, {"lr": [0.1, 0.2, 0.3], "momentum": [0.9, 0.5, 0.0]}),
        (
            MODEL,
            of_the_command,
            {"lr": [1.0, 2.0, 3.0], "momentum": [0.9, 0.5, 0.0], "weight_decay": [0.0, 0.1, 0.2]},
        ),
        (jaxlm.NeuralBigramLM(7, 2), plain_sgd, {"lr": [0.5, 0.4, 0.3]}),
        (jaxlm.MLPLanguageModel(7, 2, 3, 4, dropout=0.5), plain_sgd, {"lr": [0.5, 0.4, 0.3]}),
    ],
    ids=["sgd", "momentum", "schedule", "bigram", "dropout"],
)
def test_each_run_is_that_of_train_lm(model, optimizer, hyperparams):
    variables, histories = train_many(
        model, IDS, keys=KEYS, hyperparams=hyperparams, optimizer=optimizer, val_ids=VAL_IDS, **OPTIONS
    )
    for run, key in enumerate(KEYS):
        numbers = {name: column[run] for name, column in hyperparams.items()}
        alone, history = jaxlm.train_lm(
            model, IDS, key=key, optimizer=optimizer(**numbers), val_ids=VAL_IDS, **OPTIONS
        )
        jax.tree.map(
            lambda many, one, run=run: np.testing.assert_allclose(many[run], one, rtol=2e-4, atol=2e-6),
            variables,
            alone,
        )
        assert histories[run]["steps"] == history["steps"] == [0, 5, 10, 11]
        for name in ("train_losses", "val_perplexities"):
            np.testing.assert_allclose(histories[run][name], history[name], rtol=1e-4)


def test_a_run_that_diverges_leaves_the_others_alone():
    lrs = [0.1, 3e38, 0.3]
    variables, histories = train_many(MODEL, IDS, keys=KEYS, hyperparams={"lr": lrs}, val_ids=VAL_IDS, **OPTIONS)
    assert math.isnan(histories[1]["val_perplexities"][-1])
    assert not np.isfinite(variables["params"]["projection"]["kernel"][1]).all()
    beside, _ = train_many(MODEL, IDS, keys=KEYS, hyperparams={"lr": [0.1, 0.2, 0.3]}, **OPTIONS)
    for run in (0, 2):
        jax.tree.map(
            lambda one, other, run=run: np.testing.assert_array_equal(one[run], other[run]), variables, beside
        )
        assert np.isfinite(histories[run]["val_perplexities"]).all()


def test_constants_are_each_runs_own_and_stay():
    class Shifted:
        vocab_size, context_length = 7, 1

        def init(self, key, contexts):
            return {"params": {"table": jnp.zeros((7, 7))}, "shift": {"by": jax.random.normal(key, (7,))}}

        def apply(self, variables, contexts):
            return variables["params"]["table"][contexts[:, 0]] + variables["shift"]["by"][None]

    model = Shifted()
    variables, _ = train_many(model, IDS, keys=KEYS, hyperparams={"lr": [0.1] * 3}, **OPTIONS)
    for run, key in enumerate(KEYS):
        alone, _ = jaxlm.train_lm(model, IDS, key=key, lr=0.1, **OPTIONS)
        np.testing.assert_array_equal(variables["shift"]["by"][run], alone["shift"]["by"])
        np.testing.assert_allclose(
            variables["params"]["table"][run], alone["params"]["table"], rtol=1e-4, atol=1e-6
        )


def test_a_second_sweep_of_other_numbers_and_lengths_compiles_nothing():
    train_many(MODEL, IDS, keys=KEYS, hyperparams={"lr": [0.1, 0.2, 0.3]}, **OPTIONS)
    compiled = sweeps._train_many_until._cache_size()
    for num_steps in (1, 40):
        options = OPTIONS | {"num_steps": num_steps}
        train_many(MODEL, IDS[:-3], keys=KEYS, hyperparams={"lr": [0.3, 0.2, 0.9]}, **options)
    assert sweeps._train_many_until._cache_size() == compiled


@pytest.mark.slow
def test_devices_that_divide_the_runs_share_them():
    """A process of its own, for a CPU that is several devices."""
    program = """
import jax, numpy as np, jaxlm

def sweep(device):
    model, keys = jaxlm.MLPLanguageModel(7, 2, 3, 4), jax.random.split(jax.random.key(5), 4)
    options = {"batch_size": 8, "num_steps": 12, "log_every": 12, "device": device}
    return jaxlm.train_many(model, np.arange(300) ** 2 % 7, keys=keys, hyperparams={"lr": [0.1] * 4}, **options)[0]

shared, alone = sweep("cpu"), sweep(jax.devices("cpu")[1])
assert {len(leaf.devices()) for leaf in jax.tree.leaves(shared)} == {2}
assert jax.tree.leaves(alone)[0].devices() == {jax.devices("cpu")[1]}
jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6), shared, alone)
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_a_grid_is_every_key_with_every_combination():
    keys, numbers = sweep_grid(KEYS, lr=[0.1, 0.2], momentum=[0, 0.5, 0.9])
    rows = [
        (jax.random.key_data(key).tolist(), lr, momentum)
        for key, lr, momentum in zip(keys, numbers["lr"].tolist(), numbers["momentum"].tolist(), strict=True)
    ]
    wanted = [
        (jax.random.key_data(key).tolist(), lr, momentum)
        for key in KEYS
        for lr in (0.1, 0.2)
        for momentum in (0, 0.5, 0.9)
    ]
    assert rows == wanted
    assert sweep_grid(KEYS)[1] == {}


@pytest.mark.parametrize(
    "keys",
    [lambda: jax.random.split(jax.random.key(6), 2)[:0], lambda: jax.random.key(6), lambda: np.zeros(3)],
    ids=["none", "one", "numbers"],
)
def test_a_grid_needs_keys(keys):
    with pytest.raises(ValueError, match="keys must be an array of one random key or more"):
        sweep_grid(keys(), lr=[0.1])


@pytest.mark.parametrize("numbers", [[], 0.1, [[0.1, 0.2]], ["a"]])
def test_a_grid_needs_numbers_for_each_name(numbers):
    with pytest.raises(ValueError, match="momentum must be a list of one number or more"):
        sweep_grid(KEYS, lr=[0.1], momentum=numbers)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"hyperparams": {"lr": [0.1, 0.2]}},
            r"lr must hold a number for each of the 3 keys, got the shape \[2\]",
        ),
        ({"hyperparams": {"lr": 0.1}}, r"lr must hold a number for each of the 3 keys, got the shape \[\]"),
        ({"hyperparams": {"lr": [0.1, math.nan, 0.2]}}, "lr must be finite, got nan"),
        ({"keys": KEYS[:0]}, "keys must be an array of one random key or more"),
        ({"keys": KEYS[0]}, "keys must be an array of one random key or more"),
        ({"keys": jnp.arange(3)}, "keys must be an array of one random key or more"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_steps": -1}, "num_steps must be at least 0, got -1"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"train_ids": IDS[:2]}, "train_ids"),
        ({"train_ids": IDS + 1}, "7"),
        ({"val_ids": IDS[:2]}, "val_ids"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    options = {"train_ids": IDS, "keys": KEYS, "hyperparams": {"lr": [0.1, 0.2, 0.3]}, **OPTIONS} | arguments
    with pytest.raises(ValueError, match=words):
        train_many(MODEL, options.pop("train_ids"), **options)


def test_counts_are_not_trained():
    with pytest.raises(TypeError, match=r"call model\.fit"):
        train_many(jaxlm.CountsBigramLM(7), IDS, keys=KEYS, hyperparams={"lr": [0.1] * 3}, **OPTIONS)


def test_no_steps_leave_the_variables_as_they_begin():
    variables, histories = train_many(
        MODEL, IDS, keys=KEYS, hyperparams={"lr": [0.1] * 3}, **OPTIONS | {"num_steps": 0}
    )
    alone, _ = jaxlm.train_lm(MODEL, IDS, key=KEYS[1], num_steps=0)
    jax.tree.map(lambda many, one: np.testing.assert_array_equal(many[1], one), variables, alone)
    assert histories == [{"steps": [], "train_losses": [], "val_perplexities": []}] * 3
