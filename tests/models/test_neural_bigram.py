"""The neural bigram: its arrays, and its logits against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import NeuralBigramLM, init


@pytest.fixture(scope="module")
def model():
    return NeuralBigramLM(vocab_size=6, embedding_dim=2)


@pytest.mark.course
def test_hyperparameters_are_stored():
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
def test_models_with_equal_hyperparameters_are_equal():
    assert NeuralBigramLM(5, 2) == NeuralBigramLM(vocab_size=5, embedding_dim=2)
    assert len({NeuralBigramLM(5, 2), NeuralBigramLM(5, 2), NeuralBigramLM(5, 3), NeuralBigramLM(6, 2)}) == 3


@pytest.mark.course
def test_fresh_model_is_uniform(fresh_perplexity):
    """The smallest embedding is the hard case."""
    assert fresh_perplexity(NeuralBigramLM(65, embedding_dim=1)) == pytest.approx(65, rel=0.02)


@pytest.mark.course
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_logits_are_embedding_times_projection(model, variables, shape):
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    tokens = np.array([5, 0, 3, 0])
    logits = model.apply(variables, tokens.reshape(shape))
    assert (logits.shape, logits.dtype) == ((4, 6), jnp.float32)
    expected = arrays["embedding"]["embedding"][tokens] @ arrays["projection"]["kernel"]
    np.testing.assert_allclose(logits, expected + arrays["projection"]["bias"], rtol=1e-5, atol=1e-5)


@pytest.mark.course
def test_logits_is_the_same_as_call(model, variables):
    contexts = np.array([[5], [0], [3], [0]])
    np.testing.assert_array_equal(
        model.apply(variables, contexts, method=model.logits), model.apply(variables, contexts)
    )


@pytest.mark.course
@pytest.mark.parametrize("shape", [(), (4, 2), (2, 2, 1)])
def test_contexts_of_another_shape_are_an_error(model, variables, shape):
    with pytest.raises(ValueError, match=r"shape \[B, 1\] or \[B\], got") as raised:
        model.apply(variables, np.zeros(shape, np.int32))
    assert str(list(shape)) in str(raised.value)
