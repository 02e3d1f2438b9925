"""The MLP: its arrays, its logits against NumPy, and dropout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import MLPLanguageModel, init
from jaxlm.models.interface import compute_logits

CONTEXTS = np.array([[0, 1, 2], [5, 5, 5], [2, 1, 0], [3, 0, 4], [0, 2, 1], [1, 0, 2]])


@pytest.fixture(scope="module")
def model():
    return MLPLanguageModel(6, 3, 2, 4, direct_connections=True)


@pytest.fixture(scope="module")
def plain_variables(variables):
    """The variables of the model without direct connections."""
    return {"params": {name: value for name, value in variables["params"].items() if name != "direct"}}


def logits_in_numpy(variables, contexts):
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    rows = []
    for context in contexts:
        joined = np.concatenate([arrays["embedding"]["embedding"][token] for token in context])
        hidden = np.tanh(joined @ arrays["hidden"]["kernel"] + arrays["hidden"]["bias"])
        direct = joined @ arrays["direct"]["kernel"] if "direct" in arrays else 0
        rows.append(hidden @ arrays["projection"]["kernel"] + arrays["projection"]["bias"] + direct)
    return np.array(rows)


@pytest.mark.course
def test_hyperparameters_are_stored():
    model = MLPLanguageModel(vocab_size=27, context_length=3, embedding_dim=8, hidden_dim=16)
    assert (model.vocab_size, model.context_length, model.embedding_dim, model.hidden_dim) == (27, 3, 8, 16)


@pytest.mark.course
def test_variables_are_five_arrays():
    model = MLPLanguageModel(vocab_size=27, context_length=3, embedding_dim=8, hidden_dim=16)
    variables = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == {
        "params": {
            "embedding": {"embedding": ((27, 8), jnp.float32)},
            "hidden": {"kernel": ((24, 16), jnp.float32), "bias": ((16,), jnp.float32)},
            "projection": {"kernel": ((16, 27), jnp.float32), "bias": ((27,), jnp.float32)},
        }
    }


@pytest.mark.course
def test_models_with_equal_hyperparameters_are_equal():
    models = [MLPLanguageModel(6, 3, 2, 4), MLPLanguageModel(6, 2, 2, 4), MLPLanguageModel(6, 3, 2, 5)]
    assert models[0] == MLPLanguageModel(vocab_size=6, context_length=3, embedding_dim=2, hidden_dim=4)
    assert len({*models, MLPLanguageModel(6, 3, 2, 4), MLPLanguageModel(6, 3, 2, 4, dropout=0.9)}) == 4


@pytest.mark.course
def test_fresh_model_is_uniform(fresh_perplexity):
    """The small dimensions and both sums of the logits are the hard case."""
    assert fresh_perplexity(MLPLanguageModel(65, 3, 2, 4, direct_connections=True)) == pytest.approx(65, rel=0.02)


@pytest.mark.course
def test_logits_are_those_of_equation_1(plain_variables):
    model = MLPLanguageModel(6, 3, 2, 4, dropout=0.9)  # predictions are made without dropout
    for method in (model.logits, None):
        logits = model.apply(plain_variables, CONTEXTS, method=method)
        assert (logits.shape, logits.dtype) == ((6, 6), jnp.float32)
        np.testing.assert_allclose(logits, logits_in_numpy(plain_variables, CONTEXTS), rtol=1e-5, atol=1e-5)


def test_direct_connections_add_a_product_of_the_embeddings(model, variables):
    assert variables["params"]["direct"]["kernel"].shape == (3 * 2, 6)
    logits = model.apply(variables, CONTEXTS)
    np.testing.assert_allclose(logits, logits_in_numpy(variables, CONTEXTS), rtol=1e-5, atol=1e-5)


@pytest.mark.course
def test_order_of_the_context_matters(model, variables):
    logits = np.asarray(model.apply(variables, CONTEXTS))[[0, 2, 4, 5]]  # the same three tokens
    distances = np.abs(logits[:, None, :] - logits[None, :, :]).max(axis=2)
    assert (distances[~np.eye(4, dtype=bool)] > 1e-2).all()


@pytest.mark.course
@pytest.mark.parametrize("shape", [(3,), (4, 2), (4, 4), (4, 3, 1)])
def test_contexts_of_another_shape_are_an_error(model, variables, shape):
    with pytest.raises(ValueError, match=r"shape \[B, 3\], got") as raised:
        model.apply(variables, np.zeros(shape, np.int32))
    assert str(list(shape)) in str(raised.value)


def test_dropout_drops_its_share_and_scales_the_rest():
    """The kernel of the projection is the identity, so the logits are the hidden units."""
    rate, hidden_dim, num_windows = 0.3, 50, 1000
    model = MLPLanguageModel(hidden_dim, 1, 2, hidden_dim, dropout=rate)
    kernels = {"kernel": jnp.ones((2, hidden_dim))}, {"kernel": jnp.eye(hidden_dim)}
    hidden, projection = (kernel | {"bias": jnp.zeros(hidden_dim)} for kernel in kernels)
    embedding = {"embedding": jnp.ones((hidden_dim, 2))}
    variables = {"params": {"embedding": embedding, "hidden": hidden, "projection": projection}}
    contexts = np.ones((num_windows, 1), np.int32)
    apply = jax.jit(model.apply_in_training)
    ratios, others = (np.asarray(apply(variables, contexts, jax.random.key(i))) / np.tanh(2) for i in (1, 2))
    is_dropped = ratios == 0
    assert is_dropped.mean() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / ratios.size) ** 0.5)
    np.testing.assert_allclose(ratios[~is_dropped], 1 / (1 - rate), rtol=1e-5)
    # Each window drops its own units, and another key drops others.
    assert len(np.unique(is_dropped, axis=0)) == num_windows
    assert ((others == 0) != is_dropped).any()


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_must_be_in_its_range(dropout):
    with pytest.raises(ValueError, match=rf"dropout must be in \[0, 1\), got {dropout}"):
        MLPLanguageModel(6, 3, 2, 4, dropout=dropout)


def test_direct_connections_must_be_bool():
    with pytest.raises(TypeError, match="direct_connections must be true or false, got 'no'"):
        MLPLanguageModel(6, 3, 2, 4, direct_connections="no")


def test_compute_logits_has_the_dropout_of_flax(plain_variables):
    model = MLPLanguageModel(6, 3, 2, 4, dropout=0.5)
    key = jax.random.key(3)
    logits = compute_logits(model, plain_variables, CONTEXTS, key=key)
    in_flax = {"deterministic": False, "rngs": {"dropout": key}}
    np.testing.assert_array_equal(logits, model.apply(plain_variables, CONTEXTS, **in_flax))
    assert (logits != model.apply(plain_variables, CONTEXTS)).any()


def test_compute_logits_of_a_wrapper_in_training_are_its_own(plain_variables):
    class Halved(NamedTuple):
        model: MLPLanguageModel
        vocab_size: int = 6
        context_length: int = 3

        def __getattr__(self, name):
            return getattr(self.model, name)

        def apply(self, variables, contexts):
            return self.model.apply(variables, contexts) / 2

    halved = Halved(MLPLanguageModel(6, 3, 2, 4, 0.5))
    logits = compute_logits(halved, plain_variables, CONTEXTS, key=jax.random.key(3))
    np.testing.assert_array_equal(logits, halved.apply(plain_variables, CONTEXTS))
