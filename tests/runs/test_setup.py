"""Turn options into a training setup."""

import importlib.util
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console
from tiny_runs import QUIET, tiny_config

import jaxlm
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.runs.own import Own
from jaxlm.runs.setup import abstract_state, make_optimizer, prepare_training, train_key

BIGRAM = {"model": "bigram", "context_length": None, "hidden_dim": None}
COUNTS = {**BIGRAM, "model": "counts", "embedding_dim": None, "smoothing": 0.5}
MLP = {"dropout": 0.25, "direct_connections": True}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (MLP, lambda v: jaxlm.MLPLanguageModel(v, 2, 2, 4, 0.25, True)),
        (BIGRAM, lambda v: jaxlm.NeuralBigramLM(v, 2)),
        (COUNTS, lambda v: jaxlm.CountsBigramLM(v, smoothing=0.5)),
    ],
    ids=["mlp", "bigram", "counts"],
)
def test_prepare_training_builds_the_model(options, expected, tmp_path):
    output = io.StringIO()
    setup = prepare_training(tiny_config(tmp_path, **options), None, Console(file=output, width=200))
    assert setup.model == expected(setup.data.tokenizer.vocab_size)
    assert (setup.optimizer is None) == (options.get("model") == "counts")
    assert setup.device == jax.devices("cpu")[0]
    assert "400 characters, 360 training tokens, 40 validation tokens, vocabulary of 16" in output.getvalue()
    assert "device: cpu:0 (cpu): " in output.getvalue()


def test_prepare_training_uses_a_given_tokenizer(tmp_path):
    setup = prepare_training(tiny_config(tmp_path), Own(tokenizer=jaxlm.ByteTokenizer()), QUIET)
    assert setup.data.tokenizer == jaxlm.ByteTokenizer()
    assert setup.model.vocab_size == 256
    jaxlm.ByteTokenizer().save(tmp_path / "byte.json")
    setup = prepare_training(tiny_config(tmp_path, tokenizer=tmp_path / "byte.json"), None, QUIET)
    assert (setup.data.tokenizer, setup.tokenizer_name) == (jaxlm.ByteTokenizer(), "byte")


def test_prepare_training_needs_a_window_of_validation(tmp_path):
    assert prepare_training(tiny_config(tmp_path, context_length=39), None, QUIET).model.context_length == 39
    with pytest.raises(ValueError, match=r"text\.txt"):  # of 40 tokens
        prepare_training(tiny_config(tmp_path, context_length=40), None, QUIET)


def test_prepare_training_needs_tensorboard_for_events(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"install it: pip install 'jaxlm\[tensorboard\]'"):
        prepare_training(tiny_config(tmp_path, tensorboard=True), None, QUIET)


def test_prepare_training_rejects_a_model_too_large(tmp_path):
    options = {"embedding_dim": 2**31 - 1, "hidden_dim": 2**31 - 1}
    with pytest.raises(ValueError, match=r"the model has [0-9,]+ parameters, more than 1,099,511,627,776"):
        prepare_training(tiny_config(tmp_path, **options), None, QUIET)


def test_make_optimizer_shares_one_update(tmp_path):
    """A second run with other numbers then compiles nothing."""
    optimizers = [make_optimizer(tiny_config(tmp_path, momentum=momentum)) for momentum in (0.9, 0.5)]
    assert optimizers[0].update is optimizers[1].update


@pytest.mark.slow
def test_make_optimizer_is_the_sgd_of_the_options():
    options = {"schedule": "constant", "warmup_steps": 2, "momentum": 0.5, "weight_decay": 0.1}
    options |= {"clip_norm": 0.5}
    optimizers = make_optimizer(resolve(TrainConfig(num_steps=4, **options))), jaxlm.sgd(0.5, 4, **options)
    params, gradient = {"w": np.ones(3, np.float32)}, {"w": np.array([3.0, 0.0, 4.0], np.float32)}
    states = [optimizer.init(params) for optimizer in optimizers]
    for _ in range(4):
        updates = [each.update(gradient, state, params) for each, state in zip(optimizers, states, strict=True)]
        np.testing.assert_array_equal(*(update["w"] for update, _ in updates))
        assert np.any(updates[0][0]["w"])
        states = [state for _, state in updates]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adam", lambda rate: optax.chain(optax.add_decayed_weights(0.5), optax.adam(rate, b1=0.8))),
        ("adamw", lambda rate: optax.adamw(rate, b1=0.8, weight_decay=0.5)),
        ("muon", lambda rate: optax.contrib.muon(rate, beta=0.8, weight_decay=0.5, adam_weight_decay=0.5)),
    ],
)
def test_make_optimizer_is_one_of_optax(name, expected, schedule):
    """Step i has the rate 0.5 * (i + 1) / 3 during the two steps of warmup."""
    options = {"schedule": schedule, "warmup_steps": 2, "momentum": 0.8, "weight_decay": 0.5, "clip_norm": 1.0}
    config = resolve(TrainConfig(optimizer=name, lr=0.5, num_steps=4, **options))
    rates = [0.5 / 3, 1 / 3, 0.5, 0.25 if schedule == "cosine" else 0.5]
    params, gradient = {"w": np.ones((2, 3), np.float32)}, {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3)}
    clipped = jax.tree.map(lambda leaf: leaf / np.sqrt(55), gradient)  # to the norm 1
    optimizer, reference = make_optimizer(config), expected(lambda step: jnp.array(rates)[step])
    state, expected_state = optimizer.init(params), reference.init(params)
    for _ in rates:
        update, state = optimizer.update(gradient, state, params)
        expected_update, expected_state = reference.update(clipped, expected_state, params)
        np.testing.assert_allclose(update["w"], expected_update["w"], rtol=1e-4)


def test_train_key_depends_on_seed_and_model(tmp_path):
    configs = [tiny_config(tmp_path, **options) for options in ({"seed": 0}, {"seed": 1}, {"seed": 1, **BIGRAM})]
    expected = [jax.random.fold_in(jax.random.key(seed), fold) for seed, fold in ((0, 1), (1, 1), (1, 0))]
    for config, key in zip(configs, expected, strict=True):
        assert np.array_equal(*map(jax.random.key_data, (train_key(config), key)))


def test_abstract_state_has_the_shapes_of_training(tmp_path):
    setup = prepare_training(tiny_config(tmp_path), None, QUIET)
    state, best = abstract_state(setup.model, setup.optimizer, setup.config)
    params = jaxlm.init(setup.model, jax.random.key(0))["params"]
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert all(jax.tree.map(lambda leaf: leaf.shape, each.params) == shapes for each in (state, best))
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
