"""A user's own model needs nothing but the interface, and a mistake in it is an error that names it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlm
from jaxlm import MixtureLM, UniformLM, evaluate, init
from jaxlm.models.interface import check_collections, compute_logits
from jaxlm.models.jit import check_model


@dataclasses.dataclass(frozen=True)
class RepeatLM:
    """Not a Flax module: the next token repeats the last one with the probability e^s / (e^s + V - 1)."""

    vocab_size: int
    context_length: int

    def apply(self, variables, contexts):
        return variables["strength"] * jax.nn.one_hot(contexts[:, -1], self.vocab_size)


class OneLayer(nn.Module):
    """A user's Flax module in the compact style, unlike the package's own."""

    vocab_size: int
    context_length: int = 2

    @nn.compact
    def __call__(self, contexts):
        tokens = jax.nn.one_hot(contexts, self.vocab_size)
        return nn.Dense(self.vocab_size, name="out")(tokens.reshape(len(contexts), -1))


@dataclasses.dataclass
class NotFrozen:
    vocab_size: int = 4
    context_length: int = 1

    def init(self, key, contexts):
        return {}

    def apply(self, variables, contexts):
        return jnp.zeros((len(contexts), self.vocab_size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeywordOnly:
    sizes: object


class WithField(nn.Module):
    sizes: object


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NotFrozen(), r"NotFrozen is not hashable; declare it with @dataclass\(frozen=True\)"),
        (KeywordOnly(sizes=[1]), "KeywordOnly is not hashable: its field sizes is a list; use a tuple"),
        (WithField([1, 2]), r"WithField is not hashable: its field sizes is a list; use a tuple"),
        (WithField(np.ones(2)), "its field sizes is a ndarray; .* arrays into the variables"),
        (MixtureLM([UniformLM(4)], (1.0,)), "MixtureLM .* its field models is a list"),
    ],
    ids=["not_frozen", "keyword_only", "list", "array", "list_in_a_dataclass"],
)
def test_check_model_names_the_field_that_is_not_hashable(model, message):
    with pytest.raises(TypeError, match=message):
        check_model(model)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: init(model, jax.random.key(0)),
        lambda model: jaxlm.init_state(model, jaxlm.sgd(1.0, 1), key=jax.random.key(0)),
        lambda model: jaxlm.compute_logits(model, {}, np.zeros((1, 1), int)),
        lambda model: jaxlm.generate(model, {}, np.zeros((1, 1), int), key=jax.random.key(0), num_tokens=1),
        lambda model: jaxlm.sample(model, {}, [0], 1, key=jax.random.key(0)),
        lambda model: jaxlm.tabulate(model, {}),
        lambda model: evaluate(model, {}, [0, 1]),
        lambda model: MixtureLM((model,), (1.0,)),
    ],
    ids=["init", "init_state", "compute_logits", "generate", "sample", "tabulate", "evaluate", "mixture"],
)
def test_a_model_that_is_not_hashable_is_an_error(call):
    """A compiled program would not see a later change of its fields."""
    with pytest.raises(TypeError, match="NotFrozen is not hashable; declare it with"):
        call(NotFrozen())


class Normalized(nn.Module):
    use_running_average: bool
    vocab_size: int = 4
    context_length: int = 1

    @nn.compact
    def __call__(self, contexts):
        return nn.BatchNorm(self.use_running_average)(jax.nn.one_hot(contexts[:, 0], 4))


class Counting(nn.Module):
    is_counting: bool
    vocab_size: int = 4
    context_length: int = 1

    @nn.compact
    def __call__(self, contexts):
        calls = self.variable("calls", "number", jnp.zeros, ())
        if self.is_counting:
            calls.value += 1
        return jax.nn.one_hot(contexts[:, 0], 4)


@pytest.mark.parametrize(
    ("model", "name"),
    [(Normalized(False), "batch_stats"), (Normalized(True), "batch_stats"), (Counting(True), "calls")],
    ids=["batch_stats", "running_average", "calls"],
)
def test_check_collections_rejects_what_training_ought_to_update(model, name):
    variables = jax.eval_shape(lambda: init(model, jax.random.key(0)))
    with pytest.raises(TypeError, match=f"has {name}, which training would leave unchanged; use layers"):
        check_collections(model, variables)


def test_check_collections_accepts_constant_variables():
    check_collections(Counting(False), {"calls": {"number": 0}})
    check_collections(OneLayer(5), {"params": {}})


@pytest.mark.parametrize(("context_length", "num_repeats", "num_others"), [(1, 2, 3), (3, 1, 2)])
def test_a_dataclass_is_a_language_model(context_length, num_repeats, num_others):
    """The first N tokens are contexts only. The nats of the others, by hand."""
    ids, strength = np.array([0, 0, 3, 1, 1, 2]), 1.5
    log_total = math.log(math.exp(strength) + 3)
    expected = (num_repeats * (log_total - strength) + num_others * log_total) / (num_repeats + num_others)
    evaluation = evaluate(RepeatLM(4, context_length), {"strength": jnp.float32(strength)}, ids)
    assert evaluation.num_tokens == num_repeats + num_others
    assert evaluation.nats_per_token == pytest.approx(expected, rel=1e-6)


def test_a_flax_module_of_the_user_is_a_language_model():
    model = OneLayer(vocab_size=5)
    kernel = np.random.default_rng(0).normal(size=(2 * 5, 5))
    variables = {"params": {"out": {"kernel": kernel.astype(np.float32), "bias": np.zeros(5, np.float32)}}}
    ids = np.array([4, 0, 2, 2, 1, 3])
    nats = []
    for first, second, target in zip(ids, ids[1:], ids[2:], strict=False):
        logits = kernel[first] + kernel[5 + second]
        nats.append(math.log(np.exp(logits).sum()) - logits[target])
    assert evaluate(model, variables, ids).nats_per_token == pytest.approx(sum(nats) / 4, rel=1e-5)


def test_init_of_a_model_without_init_is_a_type_error():
    with pytest.raises(TypeError, match=r"RepeatLM has no init.*yourself"):
        init(RepeatLM(5, 1), jax.random.key(0))


class HalfPrecisionLM(RepeatLM):
    """The logits of 4 tokens in bfloat16."""

    def apply(self, variables, contexts):
        return jnp.zeros((len(contexts), 4), jnp.bfloat16)

    def apply_in_training(self, variables, contexts, key):
        return self.apply(variables, contexts)


@pytest.mark.parametrize("options", [{}, {"key": jax.random.key(0)}], ids=["prediction", "training"])
def test_compute_logits_returns_float32_of_the_right_shape(options):
    contexts = np.array([[1], [2]])
    assert compute_logits(HalfPrecisionLM(4, 1), {}, contexts, **options).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"shape \[2, 4\], expected \[B, V\] = \[2, 5\]"):
        compute_logits(HalfPrecisionLM(5, 1), {}, contexts, **options)
