"""The language-model interface: each model implements it, and its functions check their arguments."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm import (
    CountsBigramLM,
    MLPLanguageModel,
    NeuralBigramLM,
    evaluate,
    init,
)
from jaxlm.models.interface import (
    check_contexts,
    num_contexts,
    num_init_params,
    num_params,
)

MODELS = [
    CountsBigramLM(vocab_size=7),
    NeuralBigramLM(vocab_size=7, embedding_dim=3),
    MLPLanguageModel(vocab_size=7, context_length=2, embedding_dim=3, hidden_dim=4),
]
MLP_SIZE = 7 * 3 + (2 * 3 + 1) * 4 + (4 + 1) * 7
each_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


def zeros_like_init(model):
    shapes = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def test_init_depends_on_the_key_only():
    model = NeuralBigramLM(65, embedding_dim=1)
    kernels = [init(model, jax.random.key(seed))["params"]["projection"]["kernel"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_init_passes_the_key_and_one_context():
    class Recorder:
        vocab_size, context_length = 5, 3

        def init(self, key, contexts):
            return key, contexts

    key = jax.random.key(0)
    got_key, contexts = init(Recorder(), key)
    assert got_key is key
    assert (contexts.shape, contexts.dtype) == ((1, 3), jnp.int32)


def test_init_of_no_key_is_a_type_error():
    with pytest.raises(TypeError, match=r"key must be a random key such as jax.random.key\(0\), got 0"):
        init(MODELS[0], 0)


@each_model
def test_models_are_static_arguments_and_work_under_vmap(model):
    traces = []

    def apply(model, variables, contexts):
        traces.append(model)
        return jax.vmap(model.apply, in_axes=(None, 0))(variables, contexts)

    jitted = jax.jit(apply, static_argnames="model")
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: (9 * random.random(leaf.shape)).astype(leaf.dtype), zeros_like_init(model)
    )
    contexts = random.integers(0, 7, (3, 4, model.context_length)).astype(np.int32)
    together = jitted(model, variables, contexts)
    flat = model.apply(variables, contexts.reshape(12, model.context_length))
    np.testing.assert_allclose(together.reshape(12, 7), flat, rtol=1e-5, atol=1e-6)
    jitted(dataclasses.replace(model), variables, contexts)  # equal, not identical
    assert len(traces) == 1


@each_model
@pytest.mark.parametrize(
    ("size", "error"),
    [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError), ("3", TypeError), (None, TypeError)],
)
def test_sizes_must_be_positive_integers(model, size, error):
    fields = {field.name for field in dataclasses.fields(model)}
    for name in fields & {"vocab_size", "context_length", "embedding_dim", "hidden_dim"}:
        with pytest.raises(error, match=rf"{type(model).__name__}: {name} .*got {size!r}"):
            dataclasses.replace(model, **{name: size})


@each_model
def test_hyperparameters_are_frozen(model):
    for field in dataclasses.fields(model):
        if field.name not in ("name", "parent"):
            with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to {field.name}"):
                setattr(model, field.name, 5)
    assert model in MODELS


def test_num_contexts_of_numpy_sizes_does_not_wrap():
    model = MLPLanguageModel(np.int64(4096), np.int64(8), 2, 3)
    assert model == MLPLanguageModel(4096, 8, 2, 3)
    assert num_contexts(model) == 2**96  # 0 in 64 bits


def test_num_init_params_counts_all_arrays():
    assert num_init_params(MODELS[2]) == num_params(zeros_like_init(MODELS[2])) == MLP_SIZE


class One(NamedTuple):
    vocab_size: int = 2
    context_length: int = 1

    def init(self, key, contexts):
        return jnp.zeros(self.vocab_size)


class Two(One):
    def init(self, key, contexts):
        return jnp.zeros((self.vocab_size, 2))


def test_num_init_params_of_equal_tuples_of_two_types():
    assert One() == Two()
    assert (num_init_params(One()), num_init_params(Two())) == (2, 4)


def test_check_contexts_returns_a_batch():
    np.testing.assert_array_equal(check_contexts(np.array([3, 1]), 1), [[3], [1]])
    for context_length in (0, 1, 2):
        contexts = np.arange(4 * context_length).reshape(4, context_length)
        np.testing.assert_array_equal(check_contexts(contexts, context_length), contexts)


@pytest.mark.parametrize(
    ("contexts", "context_length", "error", "message"),
    [
        (np.zeros((), int), 1, ValueError, r"shape \[B, 1\] or \[B\], got \[\]"),
        (np.zeros((4, 2), int), 1, ValueError, r"shape \[B, 1\] or \[B\], got \[4, 2\]"),
        (np.zeros(2, int), 2, ValueError, r"shape \[B, 2\], got \[2\]"),
        (np.zeros((4, 1), int), 2, ValueError, r"shape \[B, 2\], got \[4, 1\]"),
        (np.zeros((4, 2, 1), int), 2, ValueError, r"shape \[B, 2\], got \[4, 2, 1\]"),
        (np.zeros((2, 1), np.float32), 1, TypeError, "integers, got float32"),
        (np.zeros((2, 1), bool), 1, TypeError, "integers, got bool"),
    ],
)
def test_check_contexts_rejects(contexts, context_length, error, message):
    with pytest.raises(error, match=message):
        check_contexts(contexts, context_length)


class ChoiceMade(Exception):
    """Ends a call once the device is chosen."""


@pytest.mark.parametrize(
    ("call", "size"),
    [
        (lambda model, ids, _: jaxlm.train_lm(model, ids, key=jax.random.key(1), num_steps=1), MLP_SIZE),
        (lambda model, ids, variables: evaluate(model, variables, ids), MLP_SIZE),
        (
            lambda model, ids, variables: jaxlm.sample(model, variables, ids[:2], 1, key=jax.random.key(2)),
            MLP_SIZE,
        ),
        (
            lambda model, ids, _: jaxlm.train_many(
                model, ids, keys=jax.random.split(jax.random.key(3)), hyperparams={"lr": [1, 2]}, num_steps=1
            ),
            2 * MLP_SIZE,
        ),
    ],
    ids=["train_lm", "evaluate", "sample", "train_many"],
)
def test_auto_device_depends_on_the_size_of_the_model(monkeypatch, call, size):
    def choose_device(device, *, num_weights=None):
        assert (device, num_weights) == ("auto", size)
        raise ChoiceMade

    monkeypatch.setattr("jaxlm.devices.selection.choose_device", choose_device)
    with pytest.raises(ChoiceMade):
        call(MODELS[2], np.arange(60) % 7, zeros_like_init(MODELS[2]))
