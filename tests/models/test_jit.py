"""`jit_model`: other hyperparameters of a model do not recompile, and results are those of the plain formulas."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import (
    CountsBigramLM,
    CountsNgramLM,
    KneserNey,
    MixtureLM,
    MLPLanguageModel,
    UniformLM,
    WittenBell,
    init,
)
from jaxlm.models.interface import compute_logits
from jaxlm.models.jit import jit_model

TABLE = np.array([[0, 3, 1], [2, 0, 0], [0, 0, 0]])
VARIABLES = {"counts": {"table": TABLE.astype(np.int32)}}
CONTEXTS = np.array([[0], [1], [2]])


def smoothed(k):
    return (TABLE + k) / (TABLE.sum(axis=1, keepdims=True) + 3 * k)


def mixture(k, weight):
    return MixtureLM((CountsBigramLM(3, k), UniformLM(3, 1)), (weight, 1 - weight))


@pytest.mark.parametrize(
    ("make_model", "expected", "variables"),
    [
        (lambda x: CountsBigramLM(3, x), smoothed, VARIABLES),
        (lambda x: mixture(2.0, x), lambda x: x * smoothed(2.0) + (1 - x) / 3, (VARIABLES, {})),
        (lambda x: mixture(x, 0.5), lambda x: smoothed(x) / 2 + 1 / 6, (VARIABLES, {})),
    ],
    ids=["smoothing", "weights", "smoothing_in_a_mixture"],
)
def test_other_numbers_do_not_recompile(make_model, expected, variables):
    apply = jit_model(lambda model, variables, contexts: compute_logits(model, variables, contexts))
    for number in (0.25, 0.75, np.float64(0.5), 0.125):
        log_probs = apply(make_model(number), variables, CONTEXTS)
        np.testing.assert_allclose(np.exp(log_probs), expected(number), rtol=1e-5)
        assert apply._cache_size() == 1


def test_other_smoothing_methods_do_not_recompile():
    apply = jit_model(lambda model, variables, contexts: compute_logits(model, variables, contexts))
    for smoothing in (WittenBell(), KneserNey(0.1), KneserNey(0.5)):  # add-k has other levels
        model = CountsNgramLM(3, 1, smoothing)
        apply(model, init(model, jax.random.key(0)), CONTEXTS)
    assert apply._cache_size() == 1


def test_other_dropout_rates_do_not_recompile():
    """The same draws decide at every rate, so a higher rate drops more units."""
    variables = jax.tree.map(jnp.ones_like, init(MLPLanguageModel(3, 1, 2, 50), jax.random.key(0)))
    apply = jit_model(compute_logits)
    kept = []
    for rate in (0.3, 0.6, 0.9):
        logits = apply(MLPLanguageModel(3, 1, 2, 50, dropout=rate), variables, CONTEXTS, key=jax.random.key(1))
        kept.append((np.asarray(logits) - 1) * (1 - rate) / np.tanh(3))  # the number of units that are kept
    np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
    assert (kept[0] > kept[1]).all()
    assert (kept[1] > kept[2]).all()
    assert apply._cache_size() == 1


def test_traced_numbers_stay_traced():
    inner = jit_model(lambda model, *arguments: compute_logits(model, *arguments))
    outer = jax.jit(lambda k: inner(CountsBigramLM(3, k), VARIABLES, CONTEXTS))
    np.testing.assert_allclose(np.exp(outer(0.5)), smoothed(0.5), rtol=1e-5)


def test_zero_is_static():
    seen = []
    apply = jit_model(lambda model, x: seen.append(model) or x)
    apply(MLPLanguageModel(3, 1, 2, 4, dropout=0.0), 1)
    apply(mixture(0.0, 0.0), 1)
    assert seen[0] == MLPLanguageModel(3, 1, 2, 4)
    assert seen[1].weights[0] == 0
    assert seen[1].models[0].smoothing == 0


class Constant(NamedTuple):
    logit: float
    vocab_size: int = 3

    def apply(self, variables, contexts):
        return self.logit if self.logit > 1 else -1.0


class Negated(Constant):
    """Equal to a `Constant`, because both are tuples."""

    def apply(self, variables, contexts):
        return -self.logit


def test_models_of_others_are_static():
    apply = jit_model(lambda model, *arguments: model.apply(*arguments))
    assert [float(apply(model, {}, 0)) for model in (Constant(2.0), Negated(2.0), Constant(3.0))] == [2, -2, 3]


def test_equal_models_of_two_types_differ_in_a_mixture():
    first_logit = jit_model(lambda model: model.models[0].apply({}, 0))
    mixtures = [MixtureLM((part(2.0),), (1.0,)) for part in (Constant, Negated)]
    assert [float(first_logit(mixture)) for mixture in mixtures] == [2, -2]


def test_static_and_donated_names_are_those_of_the_function():
    @lambda fun: jit_model(fun, static_argnames="power", donate_argnames=["x"])
    def scale(model, x, power):
        return x * model.smoothing if power == 1 else x

    x = jnp.ones(3)
    np.testing.assert_array_equal(scale(CountsBigramLM(3, 4.0), x, 1), [4, 4, 4])
    assert x.is_deleted()
    assert scale.lower(CountsBigramLM(3, 4.0), jnp.ones(3), power=2).out_info.shape == (3,)
