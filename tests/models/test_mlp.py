"""The MLP: its arrays, its logits against NumPy, and what of the context it sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import MLPLanguageModel, evaluate, init, perplexity
from jaxlm.models.interface import compute_training_logits


@pytest.fixture(scope="module")
def model():
    return MLPLanguageModel(vocab_size=6, context_length=3, embedding_dim=2, hidden_dim=4)


def logits_in_numpy(variables, contexts):
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    rows = []
    for context in contexts:
        joined = np.concatenate([arrays["embedding"]["embedding"][token] for token in context])
        hidden = np.tanh(joined @ arrays["hidden"]["kernel"] + arrays["hidden"]["bias"])
        rows.append(hidden @ arrays["projection"]["kernel"] + arrays["projection"]["bias"])
    return np.array(rows)


@pytest.mark.course
def test_hyperparameters_are_kept():
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
def test_models_are_hashable_and_equal_by_their_hyperparameters():
    models = [MLPLanguageModel(6, 3, 2, 4), MLPLanguageModel(6, 2, 2, 4), MLPLanguageModel(6, 3, 2, 5)]
    assert models[0] == MLPLanguageModel(vocab_size=6, context_length=3, embedding_dim=2, hidden_dim=4)
    assert len({*models, MLPLanguageModel(6, 3, 2, 4)}) == 3


@pytest.mark.parametrize("field", ["vocab_size", "context_length", "embedding_dim", "hidden_dim"])
def test_hyperparameters_are_frozen(field):
    model = MLPLanguageModel(6, 3, 2, 4)
    with pytest.raises(Exception, match=r"(?i)frozen|cannot assign"):
        setattr(model, field, 5)
    assert model == MLPLanguageModel(6, 3, 2, 4)


@pytest.mark.course
@pytest.mark.parametrize(
    ("vocab_size", "embedding_dim", "hidden_dim"), [(65, 2, 4), (1000, 32, 64), (65, 2, 2048)]
)
def test_fresh_model_is_uniform(vocab_size, embedding_dim, hidden_dim):
    model = MLPLanguageModel(vocab_size, 3, embedding_dim, hidden_dim)
    ids = np.random.default_rng(0).integers(0, vocab_size, 3000)
    assert perplexity(model, init(model, jax.random.key(1)), ids) == pytest.approx(vocab_size, rel=0.02)


@pytest.mark.course
def test_logits_are_those_of_equation_1(model, variables):
    contexts = np.array([[0, 1, 2], [5, 5, 5], [2, 1, 0], [3, 0, 4]])
    logits = model.apply(variables, contexts)
    assert (logits.shape, logits.dtype) == ((4, 6), jnp.float32)
    np.testing.assert_allclose(logits, logits_in_numpy(variables, contexts), rtol=1e-5, atol=1e-5)


@pytest.mark.course
def test_order_of_the_context_matters(model, variables):
    logits = np.asarray(model.apply(variables, np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0]])))
    distances = np.abs(logits[:, None, :] - logits[None, :, :]).max(axis=2)
    assert (distances[~np.eye(4, dtype=bool)] > 1e-2).all()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_token_of_the_context_matters(model, variables, position):
    contexts = np.array([[1, 1, 1], [1, 1, 1]])
    contexts[1, position] = 4
    logits = np.asarray(model.apply(variables, contexts))
    assert np.abs(logits[0] - logits[1]).max() > 1e-2


def test_only_the_tokens_of_the_context_matter(model, variables):
    """The last token of a stream is predicted from the three before it: those in front change nothing."""

    def last_nats(front):
        ids = np.array([*front, 2, 5, 1, 3])
        whole, rest = evaluate(model, variables, ids), evaluate(model, variables, ids[:-1])
        return whole.nats_per_token * whole.num_tokens - rest.nats_per_token * rest.num_tokens

    logits = logits_in_numpy(variables, [[2, 5, 1]])[0]
    expected = np.log(np.exp(logits).sum()) - logits[3]
    assert last_nats([0, 0]) == pytest.approx(expected, abs=1e-5)
    assert last_nats([4, 1]) == pytest.approx(expected, abs=1e-5)


def test_rows_of_a_batch_do_not_see_each_other(model, variables):
    contexts = jnp.array([[0, 1, 2], [3, 4, 5]])
    alone = model.apply(variables, contexts[1:])
    np.testing.assert_allclose(model.apply(variables, contexts)[1:], alone, rtol=1e-6, atol=1e-6)


def test_logits_is_the_same_as_call(model, variables):
    contexts = np.array([[1, 2, 3]])
    np.testing.assert_array_equal(
        model.apply(variables, contexts, method=model.logits), model.apply(variables, contexts)
    )


@pytest.mark.course
@pytest.mark.parametrize("shape", [(3,), (4, 2), (4, 4), (4, 3, 1)])
def test_contexts_of_another_shape_are_an_error_that_names_both(model, variables, shape):
    with pytest.raises(ValueError, match=r"shape \[B, 3\], got") as raised:
        model.apply(variables, np.zeros(shape, np.int32))
    assert str(list(shape)) in str(raised.value)


def test_jitted_equals_unjitted(model, variables):
    contexts = jnp.array([[0, 1, 2], [3, 4, 5]])
    with jax.disable_jit():
        unjitted = model.apply(variables, contexts)
    np.testing.assert_allclose(jax.jit(model.apply)(variables, contexts), unjitted, rtol=1e-6, atol=1e-6)


# Direct connections, and dropout.


def test_direct_connections_add_a_product_of_the_embeddings():
    model = MLPLanguageModel(6, 3, 2, 4, direct_connections=True)
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    variables = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), shapes)
    contexts = np.array([[0, 1, 2], [5, 5, 5], [2, 1, 0]])
    direct = np.asarray(variables["params"]["direct"]["kernel"], np.float64)
    assert direct.shape == (3 * 2, 6)
    embedding = np.asarray(variables["params"]["embedding"]["embedding"], np.float64)
    products = np.array([np.concatenate(embedding[context]) @ direct for context in contexts])
    logits = model.apply(variables, contexts)
    np.testing.assert_allclose(logits, logits_in_numpy(variables, contexts) + products, rtol=1e-5, atol=1e-5)


def test_fresh_model_with_direct_connections_is_uniform():
    model = MLPLanguageModel(1000, 3, 2, 4, direct_connections=True)
    ids = np.random.default_rng(0).integers(0, 1000, 3000)
    assert perplexity(model, init(model, jax.random.key(1)), ids) == pytest.approx(1000, rel=0.02)


def test_dropout_leaves_out_its_share_of_hidden_units_and_scales_the_others_up():
    """The kernel of the projection is the identity here, so that the logits are the hidden units themselves."""
    rate, hidden_dim, num_windows = 0.3, 50, 2000
    model = MLPLanguageModel(hidden_dim, 1, 2, hidden_dim, dropout=rate)
    variables = init(model, jax.random.key(0))
    variables["params"]["projection"]["kernel"] = jnp.eye(hidden_dim)
    contexts = jnp.ones((num_windows, 1), jnp.int32)
    whole = model.apply(variables, contexts)
    ratios = np.asarray(model.apply_in_training(variables, contexts, jax.random.key(1)) / whole)
    assert np.isclose(ratios, 0).mean() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / ratios.size) ** 0.5)
    np.testing.assert_allclose(ratios[~np.isclose(ratios, 0)], 1 / (1 - rate), rtol=1e-5)
    # By chance in each window, and other units with another key.
    assert len(np.unique(ratios > 0, axis=0)) == num_windows
    others = model.apply_in_training(variables, contexts, jax.random.key(2)) / whole
    assert (np.isclose(others, 0) != np.isclose(ratios, 0)).any()


def test_predictions_are_made_without_dropout(model, variables):
    contexts = np.array([[0, 1, 2]])
    thinned = MLPLanguageModel(6, 3, 2, 4, dropout=0.9)
    np.testing.assert_array_equal(thinned.apply(variables, contexts), model.apply(variables, contexts))
    assert thinned != model
    assert perplexity(thinned, variables, np.arange(6)) == perplexity(model, variables, np.arange(6))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_out_of_its_range_is_refused(dropout):
    with pytest.raises(ValueError, match=rf"dropout must lie in \[0, 1\), got {dropout}"):
        MLPLanguageModel(6, 3, 2, 4, dropout=dropout)


class Renamed(MLPLanguageModel):
    """The network under another name."""


class Halved(MLPLanguageModel):
    """Another network, which says nothing of dropout."""

    def __call__(self, contexts):
        return super().__call__(contexts) / 2


def test_a_subclass_is_trained_with_dropout_unless_its_logits_are_others(variables):
    contexts = np.array([[0, 1, 2], [5, 5, 5], [2, 1, 0]])
    sizes = (6, 3, 2, 4, 0.5)

    def noisy_logits(model):
        return compute_training_logits(model, variables, contexts, jax.random.key(3))

    thinned = noisy_logits(MLPLanguageModel(*sizes))
    assert (thinned != MLPLanguageModel(*sizes).apply(variables, contexts)).any()
    np.testing.assert_array_equal(noisy_logits(Renamed(*sizes)), thinned)
    np.testing.assert_array_equal(noisy_logits(Halved(*sizes)), Halved(*sizes).apply(variables, contexts))
