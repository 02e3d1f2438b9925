"""A mixture against its formula."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm import MixtureLM

VOCAB = 6


@dataclasses.dataclass(frozen=True)
class FirstTokenLM:
    """Logits looked up by the first of N tokens. Variables: [V, V]."""

    vocab_size: int
    context_length: int

    def init(self, key, contexts):
        return jax.random.key_data(key)

    def apply(self, variables, contexts):
        return jnp.asarray(variables)[contexts[:, 0]]


COUNTS = jaxlm.CountsBigramLM(VOCAB, smoothing=0.5)
MODELS = (FirstTokenLM(VOCAB, 2), COUNTS, FirstTokenLM(VOCAB, 4))
WEIGHTS = (0.5, 0.2, 0.3)
CONTEXTS = np.random.default_rng(2).integers(0, VOCAB, (20, 4))
RANDOM = np.random.default_rng(0)
TABLE = RANDOM.integers(0, 9, (VOCAB, VOCAB)).astype(np.int32)
FIRST, THIRD = RANDOM.normal(size=(2, VOCAB, VOCAB)).astype(np.float32)
VARIABLES = FIRST, {"counts": {"table": TABLE}}, THIRD


def counted():
    smoothed = TABLE[CONTEXTS[:, -1]] + 0.5
    return smoothed / smoothed.sum(axis=1, keepdims=True)


def softmax(logits):
    exps = np.exp(np.asarray(logits, np.float64))
    return exps / exps.sum(axis=1, keepdims=True)


def test_mixture_is_the_weighted_sum_of_probabilities():
    mixture = MixtureLM(MODELS, WEIGHTS)
    assert (mixture.vocab_size, mixture.context_length) == (VOCAB, 4)
    expected = 0.5 * softmax(FIRST[CONTEXTS[:, 2]]) + 0.3 * softmax(THIRD[CONTEXTS[:, 0]]) + 0.2 * counted()
    rows, targets = np.arange(20)[::-1], np.arange(20) % VOCAB

    @jax.jit
    def score(variables, rows, targets):
        log_probs = mixture.target_log_probs(variables, CONTEXTS)
        return mixture.apply(variables, CONTEXTS), log_probs(rows, targets)

    whole, of_targets = score(VARIABLES, rows, targets)
    np.testing.assert_allclose(np.exp(whole), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(of_targets), expected[rows, targets], rtol=1e-5)


def test_mixture_of_impossible_tokens():
    """A token impossible for one model has the probability of the others; a token impossible for all has -inf."""
    with np.errstate(divide="ignore"):
        table = np.log(np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.25, 0.5, 0.25]], np.float32))
    mixture = MixtureLM((FirstTokenLM(3, 1), FirstTokenLM(3, 1)), (0.5, 0.5))
    apply = jax.jit(mixture.apply)
    contexts = np.array([[0], [1], [2]])
    np.testing.assert_allclose(
        np.exp(apply((table, np.zeros((3, 3), np.float32)), contexts)),
        [[5 / 12, 5 / 12, 1 / 6], [1 / 6] * 3, [7 / 24, 5 / 12, 7 / 24]],
        rtol=1e-5,
    )
    np.testing.assert_allclose(np.exp(apply((table, table), contexts)), np.exp(table), rtol=1e-5)


def test_mixture_does_not_underflow():
    """Both probabilities are too small for float32."""
    mixture = MixtureLM((FirstTokenLM(2, 1), FirstTokenLM(2, 1)), (0.5, 0.5))
    variables = np.array([[[0.0, -500.0]] * 2, [[0.0, -600.0]] * 2], np.float32)
    log_probs = jax.jit(mixture.apply)(tuple(variables), np.zeros((1, 1), np.int32))
    assert float(log_probs[0, 1]) == pytest.approx(-500 + math.log(0.5), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 1e-40])
def test_mixture_ignores_a_model_without_weight(weight):
    """A weight below the normal numbers of float32 counts as 0."""
    mixture = MixtureLM((FirstTokenLM(2, 1), FirstTokenLM(2, 1)), (1.0, weight))
    variables = np.array([[[0.0, -120.0]] * 2, [[-300.0, 0.0]] * 2], np.float32)
    log_probs = jax.jit(mixture.apply)(tuple(variables), np.zeros((1, 1), np.int32))
    np.testing.assert_allclose(log_probs, [[0, -120]])


def test_init_gives_each_model_its_own_key():
    variables = jaxlm.init(MixtureLM((MODELS[0],) * 3, WEIGHTS), jax.random.key(0))
    assert len(np.unique(np.stack(variables), axis=0)) == 3


@pytest.mark.parametrize(
    ("models", "weights", "message"),
    [
        ((), (), "models must not be empty"),
        (MODELS, (0.5, 0.5), r"weights must have one entry per model \(3\), got 2"),
        (MODELS, (0.5, 0.5, 0.5), r"sum to 1, got \[0.5, 0.5, 0.5\] with the sum 1.5"),
        (MODELS, (1.0, 0.5, -0.5), r"must be in \[0, 1\]"),
        ((COUNTS, FirstTokenLM(7, 2)), (0.5, 0.5), "FirstTokenLM has vocab_size=7, CountsBigramLM 6"),
    ],
)
def test_mixture_rejects(models, weights, message):
    with pytest.raises(ValueError, match=message):
        MixtureLM(models, weights)


@pytest.mark.parametrize(
    ("variables", "got"), [(VARIABLES[:2], "2 entries"), ({"0": FIRST, "1": FIRST}, "a dict")]
)
def test_mixture_rejects_variables_of_another_mixture(variables, got):
    with pytest.raises(ValueError, match=rf"a tuple with one entry per model \(3\), got {got}"):
        MixtureLM(MODELS, WEIGHTS).apply(variables, CONTEXTS)
