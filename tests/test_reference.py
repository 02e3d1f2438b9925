"""Every function of `jaxlm.reference` equals the fast code, to the bit where the arithmetic is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlm
from jaxlm import reference

VOCAB = 9
IDS = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, 200), jnp.int32)
KEY = jax.random.key(3)
MLP = jaxlm.MLPLanguageModel(VOCAB, context_length=3, embedding_dim=4, hidden_dim=6)
BIGRAM = jaxlm.NeuralBigramLM(VOCAB, embedding_dim=4)
COUNTS = jaxlm.CountsBigramLM(VOCAB, smoothing=0.5)
MLP_PARAMS = reference.init_mlp(VOCAB, 3, 4, 6, key=KEY)
BIGRAM_PARAMS = reference.init_bigram(VOCAB, 4, key=KEY)


def to_variables(params):
    """Return parameters of the reference as Flax variables."""
    layers = {
        name: {"kernel": params[name], "bias": params[f"{name}_bias"]}
        for name in ("hidden", "output")
        if name in params
    }
    layers["projection"] = layers.pop("output")
    return {"params": {"embedding": {"embedding": params["embedding"]}, **layers}}


def fit_counts():
    return COUNTS.fit(jaxlm.init(COUNTS, KEY), IDS)


def test_count_pairs_equals_fit():
    np.testing.assert_array_equal(reference.count_pairs(IDS, VOCAB), fit_counts()["counts"]["table"])


@pytest.mark.parametrize(("k", "vocab_size"), [(0.5, VOCAB + 1), (0.0, VOCAB)])
def test_smooth_equals_the_counts_bigram(k, vocab_size):
    """The row of token 9 has no counts, so it needs k > 0."""
    table = reference.count_pairs(IDS, vocab_size)
    model = jaxlm.CountsBigramLM(vocab_size, smoothing=k)
    expected = model.apply({"counts": {"table": table}}, jnp.arange(vocab_size))
    np.testing.assert_allclose(reference.smooth(table, k), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "params", "logits"),
    [(BIGRAM, BIGRAM_PARAMS, reference.bigram_logits), (MLP, MLP_PARAMS, reference.mlp_logits)],
    ids=["bigram", "mlp"],
)
def test_logits_equal_the_flax_module(model, params, logits):
    contexts = IDS[: 4 * model.context_length].reshape(4, -1)
    np.testing.assert_array_equal(logits(params, contexts), model.apply(to_variables(params), contexts))


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (jaxlm.NeuralBigramLM(500, 100), reference.init_bigram(500, 100, key=KEY)),
        (jaxlm.MLPLanguageModel(500, 2, 100, 100), reference.init_mlp(500, 2, 100, 100, key=KEY)),
    ],
    ids=["bigram", "mlp"],
)
def test_initial_parameters_have_the_scales_of_the_flax_module(model, params):
    """The numbers differ, because Flax derives a key from each layer's name."""
    own, expected = to_variables(params), jaxlm.init(model, KEY)
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a.std(), b.std(), rtol=0.05), own, expected)


def test_token_nats_equal_the_fast_code():
    logits = 5 * jax.random.normal(KEY, (200, VOCAB))
    np.testing.assert_array_equal(reference.token_nats(logits, IDS), jaxlm.token_nats(logits, IDS))


def test_perplexity_equals_the_fast_code():
    own = reference.perplexity(lambda contexts: reference.mlp_logits(MLP_PARAMS, contexts), IDS, 3)
    assert float(own) == pytest.approx(jaxlm.perplexity(MLP, to_variables(MLP_PARAMS), IDS), rel=1e-6)


def test_draw_batches_equals_get_batch():
    key = jax.random.key(4)
    batches = reference.draw_batches(IDS, 3, 8, jnp.arange(5, 7), key=key)
    for step in (5, 6):
        expected = jaxlm.get_batch(IDS, 3, 8, key=jax.random.fold_in(key, step))
        for own, fast in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(own[step - 5], fast)


def test_train_equals_train_lm():
    batches = reference.draw_batches(IDS, 3, 8, jnp.arange(30), key=KEY)
    own, losses = reference.train(reference.mlp_logits, MLP_PARAMS, batches, lr=0.5)
    options = {"key": KEY, "batch_size": 8, "num_steps": 30, "optimizer": optax.sgd(0.5), "log_every": 1}
    variables, history = jaxlm.train_lm(MLP, IDS, variables=to_variables(MLP_PARAMS), **options)
    np.testing.assert_allclose(losses, history["train_losses"], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), to_variables(own), dict(variables)
    )


def test_sample_equals_the_fast_code():
    params = jax.tree.map(lambda leaf: 5 * leaf, MLP_PARAMS)
    contexts = IDS[:12].reshape(4, 3)
    own = reference.sample(
        lambda contexts: reference.mlp_logits(params, contexts), contexts, 50, key=KEY, temperature=0.7
    )
    fast = jaxlm.sample(MLP, to_variables(params), contexts, 50, key=KEY, temperature=0.7)
    np.testing.assert_array_equal(own, fast[:, 3:])


def test_sample_never_leaves_the_vocabulary(monkeypatch):
    """57 equal probabilities add up to 1 - 1.8e-7 in float32, and the largest uniform number is 1 - 1.2e-7."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, *_: jnp.full(shape, 1 - 2**-23, jnp.float32))
    assert reference.sample(lambda _: jnp.zeros((1, 57)), jnp.array([[0]]), 1, key=KEY).tolist() == [[56]]
