"""What a language model is: the three rungs keep to it, and a reader's own model needs nothing more."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlm
from jaxlm import CountsBigramLM, MLPLanguageModel, NeuralBigramLM, evaluate, init, perplexity
from jaxlm.models.interface import check_contexts, num_init_params, num_params

RUNGS = [
    CountsBigramLM(vocab_size=7),
    NeuralBigramLM(vocab_size=7, embedding_dim=3),
    MLPLanguageModel(vocab_size=7, context_length=2, embedding_dim=3, hidden_dim=4),
]
each_rung = pytest.mark.parametrize("model", RUNGS, ids=lambda model: type(model).__name__)


@dataclasses.dataclass(frozen=True)
class Copycat:
    """Not Flax: the next token is the last one again with probability e^s / (e^s + V - 1)."""

    vocab_size: int
    context_length: int

    def apply(self, variables, contexts):
        return variables["strength"] * jax.nn.one_hot(contexts[:, -1], self.vocab_size)


class OneLayer(nn.Module):
    """A reader's Flax module, written in the compact style and with a default, unlike the package's own."""

    vocab_size: int
    context_length: int = 2

    @nn.compact
    def __call__(self, contexts):
        tokens = jax.nn.one_hot(contexts, self.vocab_size)
        return nn.Dense(self.vocab_size, name="out")(tokens.reshape(len(contexts), -1))


@each_rung
def test_init_makes_the_same_variables_from_the_same_key(model):
    jax.tree.map(np.testing.assert_array_equal, init(model, jax.random.key(0)), init(model, jax.random.key(0)))


def test_init_makes_other_variables_from_another_key():
    model = RUNGS[2]
    kernels = [init(model, jax.random.key(seed))["params"]["hidden"]["kernel"] for seed in (0, 1)]
    assert not np.array_equal(*kernels)


def test_init_gives_the_model_one_context_of_its_length():
    class Recorder:
        vocab_size, context_length = 5, 3

        def init(self, key, contexts):
            return key, contexts

    key = jax.random.key(0)
    got_key, contexts = init(Recorder(), key)
    assert got_key is key
    assert (contexts.shape, contexts.dtype) == ((1, 3), jnp.int32)


def test_init_of_a_model_that_has_none_is_a_type_error():
    with pytest.raises(TypeError, match=r"Copycat has no init.*yourself"):
        init(Copycat(5, 1), jax.random.key(0))


@each_rung
def test_model_works_as_a_static_argument(model):
    traces = []

    def apply(model, variables, contexts):
        traces.append(model)
        return model.apply(variables, contexts)

    jitted = jax.jit(apply, static_argnames="model")
    variables, contexts = init(model, jax.random.key(0)), jnp.zeros((2, model.context_length), jnp.int32)
    np.testing.assert_allclose(
        jitted(model, variables, contexts), model.apply(variables, contexts), rtol=1e-6, atol=1e-7
    )
    jitted(dataclasses.replace(model), variables, contexts)  # equal, not identical
    assert len(traces) == 1


@each_rung
def test_model_works_under_vmap(model):
    variables = init(model, jax.random.key(0))
    contexts = jnp.arange(3 * 4 * model.context_length).reshape(3, 4, model.context_length) % 7
    together = jax.vmap(model.apply, in_axes=(None, 0))(variables, contexts)
    flat = model.apply(variables, contexts.reshape(12, model.context_length))
    np.testing.assert_allclose(together.reshape(12, 7), flat, rtol=1e-5, atol=1e-7)


@each_rung
@pytest.mark.parametrize(
    ("size", "error"),
    [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError), ("3", TypeError), (None, TypeError)],
)
def test_sizes_must_be_positive_integers(model, size, error):
    fields = {field.name for field in dataclasses.fields(model)}
    for name in fields & {"vocab_size", "context_length", "embedding_dim", "hidden_dim"}:
        with pytest.raises(error, match=rf"{type(model).__name__}: {name} .*got {size!r}"):
            dataclasses.replace(model, **{name: size})


def test_sizes_may_be_numpy_integers():
    assert CountsBigramLM(vocab_size=np.int64(7)) == RUNGS[0]


def test_check_contexts_takes_a_batch_of_tokens_where_one_is_enough():
    np.testing.assert_array_equal(check_contexts(jnp.array([3, 1]), 1), [[3], [1]])


@pytest.mark.parametrize("context_length", [0, 1, 2])
def test_check_contexts_keeps_a_batch_of_contexts(context_length):
    contexts = np.ones((4, context_length), np.int64)
    assert check_contexts(contexts, context_length).shape == (4, context_length)


@pytest.mark.parametrize(
    ("shape", "context_length", "wanted"),
    [
        ((), 1, r"\[B, 1\] or \[B\]"),
        ((4, 2), 1, r"\[B, 1\] or \[B\]"),
        ((2,), 2, r"\[B, 2\]"),
        ((4, 1), 2, r"\[B, 2\]"),
        ((4, 2, 1), 2, r"\[B, 2\]"),
    ],
)
def test_check_contexts_names_the_shape_wanted_and_got(shape, context_length, wanted):
    with pytest.raises(ValueError, match=rf"shape {wanted}, got") as raised:
        check_contexts(jnp.zeros(shape, jnp.int32), context_length)
    assert str(list(shape)) in str(raised.value)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bool_])
def test_check_contexts_refuses_what_is_no_integer(dtype):
    with pytest.raises(TypeError, match=f"integers, got {jnp.dtype(dtype).name}"):
        check_contexts(jnp.zeros((2, 1), dtype), 1)


def test_plain_dataclass_is_a_language_model():
    """Two of the five targets repeat the token before: the mean nats by hand."""
    ids, vocab_size, strength = [0, 0, 3, 1, 1, 2], 4, 1.5
    log_total = math.log(math.exp(strength) + vocab_size - 1)
    nats = (2 * (log_total - strength) + 3 * log_total) / 5
    model, variables = Copycat(vocab_size, 1), {"strength": jnp.float32(strength)}
    assert evaluate(model, variables, np.array(ids)).nats_per_token == pytest.approx(nats, rel=1e-6)
    assert perplexity(model, variables, np.array(ids)) == pytest.approx(math.exp(nats), rel=1e-6)


def test_plain_dataclass_sees_contexts_of_its_length():
    """With N = 3 the first three ids are contexts only: here they hold both repeats."""
    model, variables = Copycat(4, 3), {"strength": jnp.float32(1.5)}
    nats = math.log(math.exp(1.5) + 3)
    evaluation = evaluate(model, variables, np.array([0, 0, 0, 1, 2]))
    assert evaluation.num_tokens == 2
    assert evaluation.nats_per_token == pytest.approx(nats, rel=1e-6)


def test_a_flax_module_of_the_readers_is_a_language_model():
    model = OneLayer(vocab_size=5)
    variables = init(model, jax.random.key(0))
    kernel = np.asarray(variables["params"]["out"]["kernel"], np.float64)  # [2 * 5, 5], bias still zero
    ids = np.array([4, 0, 2, 2, 1, 3])
    nats = []
    for first, second, target in zip(ids, ids[1:], ids[2:], strict=False):
        logits = kernel[first] + kernel[5 + second]
        nats.append(math.log(sum(math.exp(logit) for logit in logits)) - logits[target])
    evaluation = evaluate(model, variables, ids)
    assert evaluation.num_tokens == 4
    assert evaluation.nats_per_token == pytest.approx(sum(nats) / 4, rel=1e-5)
    assert perplexity(model, variables, ids) == pytest.approx(math.exp(sum(nats) / 4), rel=1e-5)


NETWORK = jaxlm.MLPLanguageModel(7, 2, 3, 4)
IDS = np.arange(60) % 7
SIZE = 7 * 3 + (2 * 3 + 1) * 4 + (4 + 1) * 7


def test_the_size_of_a_model_is_that_of_its_variables():
    assert num_init_params(NETWORK) == num_params(jaxlm.init(NETWORK, jax.random.key(0))) == SIZE


@pytest.mark.parametrize(
    ("module", "call", "size"),
    [
        ("training", lambda _: jaxlm.train_lm(NETWORK, IDS, key=jax.random.key(1), num_steps=1), SIZE),
        ("evaluation", lambda variables: jaxlm.evaluate(NETWORK, variables, IDS), SIZE),
        ("sampling", lambda variables: jaxlm.sample(NETWORK, variables, IDS[:2], 1, key=jax.random.key(2)), SIZE),
        (
            "sweeps",
            lambda _: jaxlm.train_many(
                NETWORK, IDS, keys=jax.random.split(jax.random.key(3)), hyperparams={"lr": [1, 2]}, num_steps=1
            ),
            2 * SIZE,
        ),
    ],
    ids=["train_lm", "evaluate", "sample", "train_many"],
)
def test_auto_knows_how_large_the_work_is(monkeypatch, module, call, size):
    asked = []

    def resolve_device(device, *, num_weights=None):
        asked.append((device, num_weights))
        return jax.devices("cpu")[0]

    monkeypatch.setattr(f"jaxlm.{module}.resolve_device", resolve_device)
    call(jaxlm.init(NETWORK, jax.random.key(0)))
    assert ("auto", size) in asked
