"""The neural bigram: its arrays, and its logits against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import NeuralBigramLM, init, perplexity


@pytest.fixture(scope="module")
def model():
    return NeuralBigramLM(vocab_size=6, embedding_dim=2)


def logits_in_numpy(variables, tokens):
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    embedding, projection = arrays["embedding"]["embedding"], arrays["projection"]
    return embedding[tokens] @ projection["kernel"] + projection["bias"]


@pytest.mark.course
def test_hyperparameters_are_kept():
    model = NeuralBigramLM(vocab_size=27, embedding_dim=8)
    assert (model.vocab_size, model.embedding_dim, model.context_length) == (27, 8, 1)


@pytest.mark.course
def test_variables_are_three_arrays():
    model = NeuralBigramLM(vocab_size=27, embedding_dim=8)
    variables = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == {
        "params": {
            "embedding": {"embedding": ((27, 8), jnp.float32)},
            "projection": {"kernel": ((8, 27), jnp.float32), "bias": ((27,), jnp.float32)},
        }
    }


@pytest.mark.course
def test_models_are_hashable_and_equal_by_their_hyperparameters():
    assert NeuralBigramLM(5, 2) == NeuralBigramLM(vocab_size=5, embedding_dim=2)
    assert len({NeuralBigramLM(5, 2), NeuralBigramLM(5, 2), NeuralBigramLM(5, 3), NeuralBigramLM(6, 2)}) == 3


@pytest.mark.parametrize("field", ["vocab_size", "embedding_dim"])
def test_hyperparameters_are_frozen(field):
    model = NeuralBigramLM(5, 2)
    with pytest.raises(Exception, match=r"(?i)frozen|cannot assign"):
        setattr(model, field, 3)
    assert model == NeuralBigramLM(5, 2)


@pytest.mark.course
@pytest.mark.parametrize(("vocab_size", "embedding_dim"), [(65, 1), (1000, 64)])
def test_fresh_model_is_uniform(vocab_size, embedding_dim):
    model = NeuralBigramLM(vocab_size, embedding_dim)
    ids = np.random.default_rng(0).integers(0, vocab_size, 3000)
    assert perplexity(model, init(model, jax.random.key(1)), ids) == pytest.approx(vocab_size, rel=0.02)


@pytest.mark.course
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_logits_are_embedding_times_projection(model, variables, shape):
    tokens = np.array([5, 0, 3, 0])
    logits = model.apply(variables, tokens.reshape(shape))
    assert (logits.shape, logits.dtype) == ((4, 6), jnp.float32)
    np.testing.assert_allclose(logits, logits_in_numpy(variables, tokens), rtol=1e-5, atol=1e-5)


def test_table_of_logits_has_the_rank_of_the_embedding(model, variables):
    table = np.asarray(model.apply(variables, np.arange(6)) - variables["params"]["projection"]["bias"][None, :])
    assert np.linalg.matrix_rank(table, tol=1e-4) == model.embedding_dim == 2


@pytest.mark.course
def test_logits_is_the_same_as_call(model, variables):
    contexts = np.array([[1], [4]])
    np.testing.assert_array_equal(
        model.apply(variables, contexts, method=model.logits), model.apply(variables, contexts)
    )


@pytest.mark.course
@pytest.mark.parametrize("shape", [(), (4, 2), (2, 2, 1)])
def test_contexts_of_another_shape_are_an_error(model, variables, shape):
    with pytest.raises(ValueError, match=r"shape \[B, 1\] or \[B\], got") as raised:
        model.apply(variables, np.zeros(shape, np.int32))
    assert str(list(shape)) in str(raised.value)


def test_jitted_equals_unjitted(model, variables):
    contexts = jnp.arange(6)
    with jax.disable_jit():
        unjitted = model.apply(variables, contexts)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, contexts), unjitted, rtol=1e-6, atol=1e-6)
