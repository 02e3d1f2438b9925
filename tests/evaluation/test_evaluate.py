"""Nats, perplexity and bits per byte against plain NumPy, for every batch size and length of text."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxlm import (
    CountsBigramLM,
    Evaluation,
    MLPLanguageModel,
    bits_per_byte,
    evaluate,
    evaluation,
    init,
    perplexity,
    token_nats,
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Logits looked up by the last N tokens: variables [V, ..., V], N + 1 times. N = 0 is a unigram."""

    vocab_size: int
    context_length: int

    def apply(self, variables, contexts):
        if self.context_length == 0:
            return jnp.broadcast_to(variables, (len(contexts), self.vocab_size))
        return jnp.asarray(variables)[tuple(contexts.T)]


def random_table(vocab_size, context_length, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(vocab_size,) * (context_length + 1)).astype(np.float32)
    return Table(vocab_size, context_length), jnp.asarray(logits)


def random_ids(vocab_size, length, seed=1):
    return np.random.default_rng(seed).integers(0, vocab_size, length)


def nats_in_numpy(logits, ids, context_length):
    """The nats of every window, in float64."""
    logits = np.asarray(logits, np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    num_windows = len(ids) - context_length
    return -log_probabilities[tuple(ids[shift : shift + num_windows] for shift in range(context_length + 1))]


def test_token_nats_are_minus_log_softmax():
    logits = jnp.array([[0.0, math.log(3)], [50.0, -50.0], [-2.0, -2.0]])
    np.testing.assert_allclose(
        token_nats(logits, jnp.array([0, 1, 0])), [math.log(4), 100, math.log(2)], rtol=1e-6
    )


@pytest.mark.parametrize("offset", [1000.0, -1000.0])
def test_token_nats_of_large_logits_neither_overflow_nor_vanish(offset):
    """Numbers of float32 near 1000 lie 6e-5 apart."""
    logits = jnp.array([[offset, offset]])
    np.testing.assert_allclose(token_nats(logits, jnp.array([0])), [math.log(2)], atol=6.2e-5)


@pytest.mark.parametrize(
    ("row", "target", "nats"),
    [
        ([0.0, -np.inf, 0.0], 1, math.inf),
        ([0.0, -np.inf, 0.0], 2, math.log(2)),
        ([-np.inf, 0.0, -np.inf], 1, 0.0),
        ([-np.inf, -np.inf, -np.inf], 0, math.inf),
    ],
)
def test_token_nats_of_minus_inf_are_never_nan(row, target, nats):
    assert float(token_nats(jnp.array([row]), jnp.array([target]))[0]) == pytest.approx(nats)


def test_token_nats_do_not_hide_a_nan():
    assert math.isnan(token_nats(jnp.array([[0.0, jnp.nan]]), jnp.array([0]))[0])


@pytest.mark.course
@pytest.mark.parametrize("vocab_size", [1, 2, 27, 4096])
def test_perplexity_of_a_uniform_model_is_the_vocabulary(vocab_size):
    ids = random_ids(vocab_size, 300)
    assert perplexity(Table(vocab_size, 0), jnp.zeros(vocab_size), ids) == pytest.approx(vocab_size, rel=1e-5)


@pytest.mark.course
def test_perplexity_is_exp_of_the_sum_over_the_number():
    """Two windows that cost log 2 and log 8: exp of their mean is 4, the mean of their perplexities 5."""
    variables = jnp.log(jnp.array([[0.5, 0.125, 0.375], [0.125, 0.5, 0.375], [0.25, 0.25, 0.5]]))
    result = evaluate(Table(3, 1), variables, np.array([0, 0, 1]))
    assert isinstance(result, Evaluation)
    assert result.num_tokens == 2
    assert result.nats_per_token == pytest.approx(math.log(4), rel=1e-6)
    assert result.perplexity == pytest.approx(4, rel=1e-6)
    for batch_size in (1, 2):
        assert perplexity(Table(3, 1), variables, [0, 0, 1], batch_size=batch_size) == pytest.approx(4, rel=1e-6)


@pytest.mark.course
def test_perplexity_is_a_python_float():
    model, variables = random_table(3, 1)
    assert [type(field) for field in evaluate(model, variables, [0, 1, 2])] == [float, float, int]
    assert type(perplexity(model, variables, [0, 1, 2])) is float


def test_perplexity_is_not_clipped():
    """A certain model that is wrong once in two windows: exp(500), and past the largest float inf."""
    variables = jnp.array([0.0, -1000.0])
    assert perplexity(Table(2, 0), variables, [0, 1]) == pytest.approx(math.exp(500), rel=1e-3)
    assert perplexity(Table(2, 0), variables, [1, 1]) == math.inf
    assert perplexity(Table(2, 0), jnp.array([0.0, -jnp.inf]), [0, 0, 1]) == math.inf


@pytest.mark.parametrize("context_length", [0, 1, 2, 3])
def test_evaluate_scores_every_window(context_length):
    model, variables = random_table(4, context_length)
    ids = random_ids(4, 50)
    expected = nats_in_numpy(variables, ids, context_length)
    result = evaluate(model, variables, ids, batch_size=8)
    assert result.num_tokens == len(expected) == 50 - context_length
    assert result.nats_per_token == pytest.approx(expected.mean(), rel=1e-6)
    assert result.perplexity == pytest.approx(math.exp(expected.mean()), rel=1e-6)


@pytest.mark.course
@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(batch_size=st.sampled_from([1, 2, 3, 7, 16, 33, 70]), length=st.integers(3, 200))
def test_any_batch_size_gives_the_same_perplexity(batch_size, length):
    model, variables = random_table(4, 2)
    ids = random_ids(4, length)
    expected = math.exp(nats_in_numpy(variables, ids, 2).mean())
    assert perplexity(model, variables, ids, batch_size=batch_size) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("num_windows", "batch_size"),
    [(65_535, 256), (65_536, 256), (65_537, 256), (150_000, 256), (65_001, 1000), (150_000, 100_000)],
)
def test_evaluate_of_a_text_longer_than_one_compiled_call(num_windows, batch_size):
    model, variables = random_table(7, 2)
    ids = random_ids(7, num_windows + 2)
    expected = nats_in_numpy(variables, ids, 2)
    result = evaluate(model, variables, ids, batch_size=batch_size)
    assert result.num_tokens == num_windows
    assert result.nats_per_token == pytest.approx(expected.mean(), rel=1e-6)


@pytest.mark.parametrize(("vocab_size", "context_length"), [(16, 4), (17, 4), (70_000, 0)])
def test_contexts_that_come_often_and_contexts_that_do_not(vocab_size, context_length):
    """Up to 65,536 possible contexts the windows are grouped by theirs; above that they are not."""
    model, variables = random_table(vocab_size, context_length)
    ids = random_ids(vocab_size, 500)
    expected = nats_in_numpy(variables, ids, context_length)
    assert evaluate(model, variables, ids).nats_per_token == pytest.approx(expected.mean(), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    ids=st.lists(st.integers(0, 4), min_size=3, max_size=60),
    context_length=st.integers(0, 2),
    batch_size=st.sampled_from([1, 4]),
)
def test_grouped_windows_are_the_windows(ids, context_length, batch_size):
    """Each with its own context and target, once; each batch of contexts with the windows that have them."""
    windows = evaluation.group_windows(np.array(ids), Table(5, context_length), batch_size)
    num_windows = len(ids) - context_length
    contexts = [
        tuple(windows.ids[begin : begin + context_length])
        for begin in windows.contexts[windows.rows[:num_windows]]
    ]
    grouped = list(zip(contexts, windows.targets[:num_windows].tolist(), strict=True))
    cut = [(tuple(ids[i : i + context_length]), ids[i + context_length]) for i in range(num_windows)]
    assert sorted(grouped) == sorted(cut)
    assert windows.num_batches == -(-len(set(contexts)) // batch_size)
    for batch in range(windows.num_batches):
        rows = windows.rows[windows.bounds[batch] : windows.bounds[batch + 1]]
        assert set(rows // batch_size) == {batch}
    assert windows.bounds[windows.num_batches] == num_windows


@pytest.mark.parametrize(("vocab_size", "context_length"), [(65_536, 1), (256, 2), (2, 16)])
def test_the_largest_number_of_contexts_that_are_grouped(vocab_size, context_length):
    ids = np.array([vocab_size - 1] * (context_length + 1) + [0] * (context_length + 1), np.int32)
    windows = evaluation.group_windows(ids, Table(vocab_size, context_length), 4)
    cut = [tuple(ids[i : i + context_length]) for i in range(len(ids) - context_length)]
    begins = windows.contexts[windows.rows[: len(cut)]]
    assert sorted(tuple(ids[i : i + context_length]) for i in begins) == sorted(cut)


def test_a_context_is_scored_once():
    """A text of 5000 windows with three contexts, at a batch of four: one batch."""
    ids = random_ids(3, 5001)
    assert evaluation.group_windows(ids, Table(3, 1), 4).num_batches == 1


def test_memory_grows_with_the_batch_and_not_with_the_text():
    """All 65,536 windows of a call, at V = 1000, would need 262 MB of logits."""

    def temporary_bytes(length, batch_size):
        model, variables = random_table(1000, 1)
        windows = evaluation.group_windows(random_ids(1000, length), model, batch_size)
        lowered = evaluation._window_nats.lower(model, variables, windows, batch_size)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    logits = 256 * 1000 * 4
    assert logits <= temporary_bytes(100, 256) == temporary_bytes(60_000, 256) < 6 * logits
    assert temporary_bytes(100, 16) < temporary_bytes(100, 256) / 3


def test_evaluate_of_one_window():
    model, variables = random_table(5, 3)
    ids = np.array([4, 0, 2, 1])
    result = evaluate(model, variables, ids)
    assert result.num_tokens == 1
    assert result.nats_per_token == pytest.approx(nats_in_numpy(variables, ids, 3)[0], rel=1e-6)


@pytest.mark.parametrize("kind", [np.int64, np.uint16, jnp.asarray, list])
def test_evaluate_takes_every_kind_of_integers(kind):
    model, variables = random_table(4, 1)
    ids = random_ids(4, 30)
    expected = nats_in_numpy(variables, ids, 1).mean()
    assert evaluate(model, variables, kind(ids)).nats_per_token == pytest.approx(expected, rel=1e-6)


def test_evaluate_jitted_is_evaluate_unjitted():
    model, variables = random_table(4, 1)
    ids = random_ids(4, 17)
    with jax.disable_jit():
        unjitted = evaluate(model, variables, ids, batch_size=8)
    jitted = evaluate(model, variables, ids, batch_size=8)
    assert jitted.nats_per_token == pytest.approx(unjitted.nats_per_token, rel=1e-6)


def test_evaluate_leaves_variables_usable():
    model = CountsBigramLM(4)
    variables = init(model, jax.random.key(0))
    assert perplexity(model, variables, [0, 1, 2]) == perplexity(model, variables, [0, 1, 2])


def test_second_call_compiles_nothing(caplog):
    """Nor does a text of another length, or an equal model with other variables."""
    model, variables = random_table(5, 1)
    other_variables = variables + 1
    evaluate(model, variables, random_ids(5, 100))
    with jax.log_compiles():
        evaluate(model, variables, random_ids(5, 100))
        evaluate(Table(5, 1), other_variables, random_ids(5, 70_000))
        assert "Compiling" not in caplog.text
        evaluate(model, variables, random_ids(5, 100), batch_size=13)  # another batch size is another program
    assert "Compiling" in caplog.text


@pytest.mark.course
@pytest.mark.parametrize(("length", "context_length"), [(0, 0), (0, 1), (1, 1), (3, 3), (2, 3)])
def test_text_no_longer_than_the_context_is_an_error(length, context_length):
    model, variables = random_table(3, context_length)
    with pytest.raises(ValueError, match=rf"ids: {length} tokens.*need {context_length + 1}"):
        perplexity(model, variables, np.zeros(length, np.int32))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([0, 3, 1], ValueError, r"ids: 3 is outside 0\.\.2.*vocab_size=3"),
        ([0, -2, 1], ValueError, r"ids: -2 is outside 0\.\.2"),
        ([0.0, 1.0], TypeError, "integers, got float64"),
        ([[0, 1], [1, 0]], ValueError, r"shape \[T\], got shape \[2, 2\]"),
    ],
)
def test_wrong_ids_are_an_error(ids, error, message):
    model, variables = random_table(3, 1)
    with pytest.raises(error, match=message):
        perplexity(model, variables, np.array(ids))


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_below_1_is_an_error(batch_size):
    model, variables = random_table(3, 1)
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        evaluate(model, variables, [0, 1], batch_size=batch_size)


def test_unknown_device_is_an_error():
    model, variables = random_table(3, 1)
    with pytest.raises(ValueError, match="unknown device 'abacus'"):
        evaluate(model, variables, [0, 1], device="abacus")


def test_device_may_be_named():
    model, variables = random_table(3, 1)
    on_cpu = evaluate(model, variables, [0, 1, 2], device="cpu")
    assert evaluate(model, variables, [0, 1, 2], device=jax.devices("cpu")[0]) == on_cpu


@pytest.mark.parametrize(
    ("nats", "bytes_per_token", "bits"), [(math.log(2), 1, 1), (math.log(2), 4, 0.25), (math.log(256), 2, 4)]
)
def test_bits_per_byte(nats, bytes_per_token, bits):
    assert bits_per_byte(nats, bytes_per_token) == pytest.approx(bits, rel=1e-12)


@pytest.mark.parametrize(("num_init_params", "table_size"), [(9, 4), (4, 9)])
def test_variables_of_another_vocabulary_are_an_error(num_init_params, table_size):
    table = jnp.ones((table_size, table_size), jnp.int32)
    with pytest.raises(ValueError, match=rf"logits of shape \[\d+, {table_size}\].*{num_init_params}"):
        perplexity(Table(num_init_params, 1), table, [0, 1, 2])
    with pytest.raises(
        ValueError, match=rf"int32\[{num_init_params}, {num_init_params}\], got int32\[{table_size}, "
    ):
        perplexity(CountsBigramLM(num_init_params), {"counts": {"table": table}}, [0, 1, 2])


@dataclasses.dataclass(frozen=True)
class ByLogits:
    """Another model's logits, and nothing else of it."""

    model: CountsBigramLM
    context_length: int = 1

    @property
    def vocab_size(self):
        return self.model.vocab_size

    def apply(self, variables, contexts):
        return self.model.apply(variables, contexts)


class DelegatingLM:
    """A wrapper that sharpens another model, and passes all other names on to it."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def apply(self, variables, contexts):
        return self.model.apply(variables, contexts) * 2


class SharpCounts(CountsBigramLM):
    """A subclass with logits of its own."""

    def __call__(self, contexts):
        return super().__call__(contexts) * 2


def test_what_has_logits_of_its_own_is_scored_by_them():
    counts = CountsBigramLM(4)
    variables = counts.fit(init(counts, jax.random.key(0)), random_ids(4, 100))
    ids = random_ids(4, 50, seed=2)
    table = np.asarray(counts.apply(variables, jnp.arange(4)), np.float64) * 2
    expected = nats_in_numpy(table, ids, 1).mean()
    for model in (DelegatingLM(counts), SharpCounts(4)):
        assert evaluate(model, variables, ids).nats_per_token == pytest.approx(expected, rel=1e-6)


def test_sizes_may_be_numpy_integers():
    """4096 ** 8 wraps to zero in 64 bits: no context must be taken for another."""
    ids = random_ids(4096, 300)
    nats = []
    for vocab_size in (4096, np.int64(4096)):
        model = MLPLanguageModel(vocab_size, 8, 2, 3)
        variables = jax.tree.map(lambda leaf: leaf * 9 + 1, init(model, jax.random.key(0)))
        nats.append(evaluate(model, variables, ids).nats_per_token)
    assert nats[0] == nats[1]


def test_a_table_of_floats_is_scored_too():
    table = np.array([[1.5, 2.5], [0.25, 0.75]], np.float32)
    nats = evaluate(CountsBigramLM(2, smoothing=0), {"counts": {"table": table}}, [0, 1, 1]).nats_per_token
    assert nats == pytest.approx(-np.log([2.5 / 4, 0.75]).mean(), rel=1e-6)


@settings(max_examples=12, deadline=None)
@given(
    vocab_size=st.sampled_from([1, 3]),
    context_length=st.integers(0, 3),
    batch_size=st.sampled_from([1, 5, 10**6]),
    length=st.integers(4, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_evaluate_is_a_sum_over_windows(vocab_size, context_length, batch_size, length, seed):
    model, variables = random_table(vocab_size, context_length, seed)
    ids = random_ids(vocab_size, length, seed)
    expected = nats_in_numpy(variables, ids, context_length).mean()
    assert evaluate(model, variables, ids, batch_size=batch_size).nats_per_token == pytest.approx(
        expected, rel=1e-5, abs=1e-6
    )


@settings(max_examples=15, deadline=None)
@given(
    smoothing=st.sampled_from([0, 1e-3, 1.0]),
    fitted=st.lists(st.integers(0, 5), max_size=30),
    scored=st.lists(st.integers(0, 5), min_size=2, max_size=20),
)
def test_counts_are_scored_as_their_logits_are(smoothing, fitted, scored):
    """An unseen successor and a row never seen included: without smoothing both cost inf, never NaN."""
    model = CountsBigramLM(6, smoothing)
    variables = model.fit(init(model, jax.random.key(0)), np.array(fitted, np.int32))
    expected = evaluate(ByLogits(model), variables, scored)
    assert evaluate(model, variables, scored).nats_per_token == pytest.approx(
        expected.nats_per_token, rel=1e-6, abs=1e-6
    )
    if smoothing == 0 and not set(itertools.pairwise(scored)) <= set(itertools.pairwise(fitted)):
        assert expected.perplexity == math.inf


def test_large_logits_cost_no_digits():
    nats = token_nats(jnp.array([[-1000.0, -1000.0], [3e38, 3e38]]), jnp.array([0, 1]))
    np.testing.assert_allclose(nats, math.log(2), rtol=1e-6)


def test_a_model_in_bfloat16_is_scored_in_float32():
    """The logits are rounded as the model rounds them; the sum of 1000 exponentials is not."""

    class Half(Table):
        def apply(self, variables, contexts):
            return super().apply(variables, contexts).astype(jnp.bfloat16)

    table = np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32)
    rounded = np.asarray(jnp.asarray(table).astype(jnp.bfloat16), np.float64)
    ids = np.random.default_rng(1).integers(0, 1000, 200)
    nats = np.log(np.exp(rounded[ids[:-1]]).sum(axis=1)) - rounded[ids[:-1], ids[1:]]
    assert evaluate(Half(1000, 1), table, ids).nats_per_token == pytest.approx(nats.mean(), rel=1e-6)


def test_a_batch_far_larger_than_the_text_costs_no_memory():
    """A batch of 2^30 windows at V = 1000 would need 4 TB."""
    ids = np.arange(500) % 1000
    assert perplexity(Table(1000, 1), np.zeros((1000, 1000), np.float32), ids, batch_size=2**30) == pytest.approx(
        1000
    )
