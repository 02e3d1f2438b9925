"""Samples against a plain loop, frequencies in a large vocabulary, blocks, tables and limits."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxlm
from jaxlm.sampling.generate import compute_table
from jaxlm.sampling.sample import BLOCK_LENGTH, generate_block, is_table_worthwhile

VOCAB = 8
P_VALUE = 1e-4  # the keys are fixed, so a test either always passes or always fails
LOGITS = np.array([0.3, 2.0, -1.0, 1.5, -np.inf, 0.9, -2.5, 1.9])  # no ties; token 4 is impossible
COUNTS = np.random.default_rng(0).integers(0, 9, (VOCAB, VOCAB)) + np.eye(VOCAB, k=1, dtype=int)
CHAIN = np.eye(VOCAB, k=1)  # counts of 0 -> 1 -> ... -> 7, with nothing after 7


@dataclass(frozen=True)
class LogitsModel:
    """A user's own model without Flax: the variables are the logits [V] of every context."""

    vocab_size: int
    context_length: int = 1

    def apply(self, logits, contexts):
        assert contexts.dtype == jnp.int32
        return jnp.broadcast_to(logits[None, :], (len(contexts), self.vocab_size))


def with_normal_variables(model):
    """Return the model with variables that make each context prefer other tokens; fresh ones are near uniform."""
    rng = np.random.default_rng(2)
    fresh = jaxlm.init(model, jax.random.key(0))
    return model, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), fresh)


def with_counts(table, smoothing):
    return jaxlm.CountsBigramLM(len(table), smoothing), {"counts": {"table": jnp.asarray(table, jnp.int32)}}


COUNTS_BIGRAM = with_counts(COUNTS, 1.0)
BIGRAM = with_normal_variables(jaxlm.NeuralBigramLM(VOCAB, embedding_dim=3))
MLP = with_normal_variables(jaxlm.MLPLanguageModel(VOCAB, context_length=3, embedding_dim=2, hidden_dim=5))
LOGITS_MODEL = LogitsModel(VOCAB), jnp.asarray(LOGITS, jnp.float32)
LARGE_COUNTS = with_counts(np.random.default_rng(3).integers(0, 5, (2000, 2000)), 0.1)
UNIGRAM = jaxlm.UnigramLM(VOCAB), jnp.arange(VOCAB) * 7 % 5

each_model = pytest.mark.parametrize("model", [COUNTS_BIGRAM, BIGRAM, MLP], ids=["counts", "neural_bigram", "mlp"])
PROMPT = np.array([7, 0, 5, 2, 3])  # longer than any context here
PROMPTS = np.array([[7, 0, 5, 2, 3], [1, 1, 6, 0, 4]])


def draw(model, prompt=PROMPT, num_tokens=12, key=0, **options):
    return np.asarray(jaxlm.sample(*model, prompt, num_tokens, key=jax.random.key(key), **options))


def stream(model, prompt=PROMPT, num_tokens=12, key=0, **options):
    return jaxlm.sample_stream(*model, prompt, num_tokens, key=jax.random.key(key), **options)


def apply_options(logits, temperature=1.0, top_k=None, top_p=None):
    """Return probabilities [V] after temperature, then top-k, then top-p, and the tokens by rank."""
    weights = np.exp((logits - logits.max()) / temperature)
    ranked = np.argsort(-weights, kind="stable")
    weights[ranked[top_k:] if top_k else []] = 0
    if top_p is not None:
        shares = np.cumsum(weights[ranked]) / weights.sum()
        weights[ranked[np.searchsorted(shares, top_p) + 1 :]] = 0  # keeps the first share that reaches top_p
    return weights / weights.sum(), ranked


@pytest.mark.course
@each_model
@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[None, :]], ids=["P", "BP"])
def test_sample_appends_int32(model, prompt):
    ids = jaxlm.sample(*model, prompt, 12, key=jax.random.key(0))
    assert isinstance(ids, jax.Array)
    assert ids.shape == (*prompt.shape[:-1], 5 + 12)
    assert ids.dtype == jnp.int32


@pytest.mark.course
@each_model
@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[None, :]], ids=["P", "BP"])
def test_sample_starts_with_the_prompt(model, prompt):
    np.testing.assert_array_equal(draw(model, prompt)[..., :5], prompt)


@pytest.mark.course
@each_model
def test_same_key_gives_same_ids(model):
    first, again, other = draw(model, key=1), draw(model, key=1), draw(model, key=2)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.course
@each_model
def test_temperature_zero_is_greedy(model):
    chain = PROMPT.tolist()
    for _ in range(12):
        logits = model[0].apply(model[1], np.array([chain[-model[0].context_length :]]))
        chain.append(int(np.argmax(np.asarray(logits)[0])))
    assert len(set(chain[5:])) > 1
    for key in (0, 1):
        assert draw(model, temperature=0, key=key).tolist() == chain


@pytest.mark.course
@each_model
def test_sampled_ids_are_in_the_vocabulary(model):
    drawn = draw(model, num_tokens=300)[5:]
    assert (np.unique(drawn) == np.arange(VOCAB)).all()


@pytest.mark.course
@each_model
def test_sample_uses_the_last_context_only(model):
    context_length = model[0].context_length
    short = draw(model, PROMPT[-context_length:])
    np.testing.assert_array_equal(draw(model)[5:], short[context_length:])


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (COUNTS_BIGRAM, {}),
        pytest.param(UNIGRAM, {}, marks=pytest.mark.slow),  # the empty context
        pytest.param(BIGRAM, {"temperature": 0.6, "top_k": 5, "top_p": 0.7}, marks=pytest.mark.slow),
        (MLP, {}),
        pytest.param(MLP, {"temperature": 2.0, "top_p": 0.8}, marks=pytest.mark.slow),
        pytest.param(MLP, {"top_k": 3}, marks=pytest.mark.slow),
        pytest.param(LOGITS_MODEL, {"temperature": 0.5}, marks=pytest.mark.slow),
        pytest.param(LOGITS_MODEL, {"top_p": 0.99}, marks=pytest.mark.slow),  # ranks an impossible token
    ],
    ids=["counts", "unigram", "bigram_all_options", "mlp", "mlp_top_p", "mlp_top_k", "temperature", "impossible"],
)
def test_sample_equals_plain_loop(model, options):
    """Token t inverts the cumulative probabilities at `uniform(fold_in(key, t))`."""
    key, context_length, ids = jax.random.key(0), model[0].context_length, PROMPTS.tolist()
    for step in range(70):
        contexts = np.array([row[len(row) - context_length :] for row in ids], np.int32).reshape(2, -1)
        logits = np.asarray(model[0].apply(model[1], contexts), np.float64)
        uniforms = jax.random.uniform(jax.random.fold_in(key, step), (2,))
        for row, row_logits, uniform in zip(ids, logits, np.asarray(uniforms), strict=True):
            probabilities, ranked = apply_options(row_logits, **options)
            order = ranked if {"top_k", "top_p"} & options.keys() else np.arange(VOCAB)
            row.append(int(order[np.searchsorted(np.cumsum(probabilities[order]), uniform, side="right")]))
    assert draw(model, PROMPTS, 70, **options).tolist() == ids


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options"),
    [(BIGRAM, {}), (MLP, {"temperature": 0.6, "top_k": 5, "top_p": 0.7}), (LARGE_COUNTS, {})],
    ids=["bigram", "mlp_ranked", "blocks"],
)
def test_table_gives_the_same_ids(model, options):
    """`sample` uses a table of all V^N contexts here, `generate` does not."""
    assert is_table_worthwhile(model[0], 20_000, is_ranked=bool(options))
    context, key = jnp.asarray(PROMPTS[:, 5 - model[0].context_length :]), jax.random.key(0)
    expected = jaxlm.generate(*model, context, key=key, num_tokens=10_000, **options)
    np.testing.assert_array_equal(draw(model, PROMPTS, 10_000, **options)[:, 5:], expected)


@pytest.mark.parametrize(("num_ids", "pays"), [(2 * VOCAB**3 - 1, False), (2 * VOCAB**3, True)])
def test_table_takes_at_most_half_of_the_predictions(num_ids, pays):
    assert is_table_worthwhile(MLP[0], num_ids, is_ranked=False) == pays


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vocab_size", "context_length", "fits"),
    # In 64 bits, 256^8 contexts would be 0.
    [(2, 18, True), (4096, 1, True), (7000, 1, False), (27, 5, False), (2, 23, False), (np.int64(256), 8, False)],
)
def test_table_takes_at_most_160_mib(vocab_size, context_length, fits):
    """By the figures of the compiled program, with ranks, which take the most."""
    model = LogitsModel(vocab_size, context_length)
    assert is_table_worthwhile(model, 10**9, is_ranked=True) == fits
    if fits:
        logits = jnp.zeros(vocab_size)
        lowered = compute_table.lower(model, logits, temperature=1.0, top_p=0.5, top_k=None)
        memory = lowered.compile().memory_analysis()
        assert memory.output_size_in_bytes <= 160 * 2**20
        assert memory.temp_size_in_bytes <= 32 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(128, jnp.float32), (129, jnp.float32), (200, jnp.float32), (1000, jnp.bfloat16)],
)
def test_large_vocabulary_is_sampled_at_its_shares(vocab_size, dtype):
    """Above 128 tokens in blocks of 64, here with an empty and a short one. In bfloat16, sums end at 256."""
    probabilities = np.random.default_rng(vocab_size).gamma(0.5, size=vocab_size)
    probabilities[64:128] = 0
    probabilities[[3, vocab_size - 1]] = [0, probabilities.max()]
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.log(probabilities), dtype)
    probabilities = np.exp(np.asarray(logits, np.float64))
    probabilities /= probabilities.sum()
    ids = draw((LogitsModel(vocab_size), logits), np.zeros((2000, 1), np.int32), 50, key=1)
    counts = np.bincount(ids[:, 1:].ravel(), minlength=vocab_size)
    assert not counts[probabilities == 0].any()
    expected = probabilities * counts.sum()
    common = expected > 5
    observed = [*counts[common], counts[~common].sum()]
    assert stats.chisquare(observed, [*expected[common], expected[~common].sum()]).pvalue > P_VALUE


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-60}, {"temperature": 1e-6}], ids=str)
def test_narrowest_options_are_greedy(options):
    np.testing.assert_array_equal(draw(MLP, **options), draw(MLP, temperature=0))


@pytest.mark.parametrize("options", [{"top_k": VOCAB}, {"top_k": VOCAB + 1}, {"top_p": 1}], ids=str)
def test_widest_options_keep_every_token(options):
    np.testing.assert_array_equal(draw(MLP, **options), draw(MLP))


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0, 1e-30, 1e-38, 1e-45, 1e-300])
def test_temperature_near_zero_does_not_overflow(temperature):
    """Of equal logits, the first is taken."""
    model = LogitsModel(6), jnp.array([5.0, 6.0, 1.0, 2.0, 6.5, 6.5 if temperature == 0 else 0.0])
    assert draw(model, [0], 5, temperature=temperature).tolist() == [0, 4, 4, 4, 4, 4]


@each_model
def test_longer_sample_starts_with_the_shorter(model):
    np.testing.assert_array_equal(draw(model, num_tokens=12), draw(model, num_tokens=500)[: 5 + 12])


@each_model
def test_one_prompt_is_a_batch_of_one(model):
    np.testing.assert_array_equal(draw(model, PROMPT), draw(model, PROMPT[None, :])[0])


def test_prompt_may_be_any_integers():
    expected = draw(MLP)
    for prompt in (PROMPT.tolist(), PROMPT.astype(np.uint8), jnp.asarray(PROMPT)):
        np.testing.assert_array_equal(draw(MLP, prompt), expected)


def test_no_tokens_return_the_prompt():
    ids = draw(MLP, PROMPTS, num_tokens=0)
    np.testing.assert_array_equal(ids, PROMPTS)
    assert ids.dtype == np.int32
    assert list(stream(MLP, num_tokens=0)) == list(stream(MLP, PROMPTS, num_tokens=0)) == []


@pytest.mark.parametrize(
    ("model", "prompt", "options"),
    [
        (BIGRAM, PROMPT, {}),
        (MLP, PROMPT[None, :], {}),
        (MLP, PROMPT, {"temperature": 0}),
        pytest.param(MLP, PROMPTS, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}, marks=pytest.mark.slow),
    ],
    ids=["table", "mlp", "greedy", "ranked"],
)
def test_sample_stream_blocks_are_the_sample(model, prompt, options):
    num_tokens = 2 * BLOCK_LENGTH + 3
    blocks = list(stream(model, prompt, num_tokens, **options))
    shapes = [(*prompt.shape[:-1], length) for length in (BLOCK_LENGTH, BLOCK_LENGTH, 3)]
    assert [block.shape for block in blocks] == shapes
    assert all(isinstance(block, np.ndarray) and block.dtype == np.int32 for block in blocks)
    np.testing.assert_array_equal(
        np.concatenate(blocks, axis=-1), draw(model, prompt, num_tokens, **options)[..., 5:]
    )


@pytest.mark.slow
def test_blocks_of_many_streams_hold_at_most_a_quarter_million_ids():
    model = LogitsModel(2), jnp.zeros(2)
    assert [block.shape for block in stream(model, np.zeros((2**17, 1), int), 5)] == [
        (2**17, n) for n in (2, 2, 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("vocab_size", [5, 14])  # with a table, and without one, which would need 5,488 tokens
def test_other_numbers_and_lengths_compile_nothing(vocab_size):
    model = with_normal_variables(jaxlm.MLPLanguageModel(vocab_size, 3, embedding_dim=2, hidden_dim=4))
    draw(model, [0, 1, 2], 1, temperature=0.7, top_p=0.5)
    before = generate_block._cache_size(), compute_table._cache_size()
    for length in (2, 9, 70, 100, 255, 256, 257, 700, 1000, 2500, 5000):
        draw(model, [0, 1, 2], length, key=length, temperature=length / 100, top_p=1 / length)
    assert (generate_block._cache_size(), compute_table._cache_size()) == before


def test_sample_stream_owns_the_prompt_and_the_caller_the_pieces():
    prompt, drawn = PROMPTS.astype(np.int32), []
    blocks = stream(MLP, prompt, 300)
    prompt[:] = 0
    for block in blocks:
        drawn.append(block.copy())
        block[:] = 0
    np.testing.assert_array_equal(np.concatenate(drawn, axis=1), draw(MLP, PROMPTS, 300)[:, 5:])


def test_sample_stream_raises_in_the_block_without_a_token():
    chain = np.eye(300, k=1)
    blocks = stream(with_counts(chain, 0.0), [[0], [20]], 290)
    np.testing.assert_array_equal(next(blocks)[0], np.arange(1, BLOCK_LENGTH + 1))
    with pytest.raises(ValueError, match=r"after \[299\] \(drawing token 279, stream 1\)"):
        next(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_sample_without_a_possible_token_is_a_value_error(temperature):
    with pytest.raises(ValueError, match=r"after \[7\] \(drawing token 4, stream 1\).*smoothing > 0"):
        draw(with_counts(CHAIN, 0.0), [[0, 0], [0, 3]], num_tokens=5, temperature=temperature)
    logits = jnp.asarray(LOGITS, jnp.float32).at[2].set(jnp.nan)
    with pytest.raises(ValueError, match=r"NaN.*finite variables"):
        draw((LogitsModel(VOCAB), logits), [0], 3, temperature=temperature)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_tokens": -1}, ValueError, "num_tokens must be at least 0, got -1"),
        ({"temperature": -0.5}, ValueError, "temperature must be finite and at least 0.*got -0.5"),
        ({"temperature": float("nan")}, ValueError, "temperature must be finite and at least 0.*got nan"),
        ({"temperature": float("inf")}, ValueError, "temperature must be finite and at least 0.*got inf"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1.*got 0"),
        ({"top_p": 0.0}, ValueError, r"top_p must be in \(0, 1\].*got 0.0"),
        ({"top_p": 1.01}, ValueError, r"top_p must be in \(0, 1\].*got 1.01"),
        ({"top_p": float("nan")}, ValueError, r"top_p must be in \(0, 1\].*got nan"),
        ({"temperature": None}, TypeError, "temperature must be a number, got None"),
        ({"temperature": "0.7"}, TypeError, "temperature must be a number, got '0.7'"),
        ({"top_k": 1.5}, TypeError, "top_k must be an integer, got 1.5"),
        ({"prompt": [1]}, ValueError, "prompt must have at least context_length=3 tokens, got 1"),
        ({"prompt": np.zeros((4, 2), int)}, ValueError, "context_length=3 tokens, got 2"),
        ({"prompt": np.zeros(0, int)}, ValueError, "context_length=3 tokens, got 0"),
        ({"prompt": [0, 1, 8]}, ValueError, r"prompt: 8 is outside 0\.\.7"),
        ({"prompt": [0, -1, 7]}, ValueError, r"prompt: -1 is outside 0\.\.7"),
        ({"prompt": np.zeros((1, 1, 3), int)}, ValueError, r"shape \[P\] or \[B, P\], got \[1, 1, 3\]"),
        ({"prompt": 3}, ValueError, r"shape \[P\] or \[B, P\], got \[\]"),
        ({"prompt": [0.0, 1.0, 2.0]}, TypeError, "prompt must be integers, got float"),
        ({"device": "abacus"}, ValueError, "abacus"),
    ],
)
def test_sample_stream_checks_arguments_when_called(options, error, message):
    with pytest.raises(error, match=message):
        stream(MLP, **options)
    with pytest.raises(error, match=message):
        draw(MLP, **options)


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"temperature": jnp.float32(0.5)}, {"temperature": 0.5}),
        ({"temperature": np.float64(0.5)}, {"temperature": 0.5}),
        ({"top_k": np.int64(3)}, {"top_k": 3}),
        ({"top_k": jnp.int32(3)}, {"top_k": 3}),
        ({"top_p": jnp.float32(0.5)}, {"top_p": 0.5}),
    ],
    ids=str,
)
def test_options_may_be_scalars_of_numpy_and_jax(options, same):
    np.testing.assert_array_equal(draw(MLP, **options), draw(MLP, **same))


def test_largest_temperature_samples_what_is_possible():
    drawn = draw(LOGITS_MODEL, num_tokens=300, temperature=1e300)[5:]
    assert set(drawn.tolist()) == set(range(VOCAB)) - {4}


def test_legacy_key_gives_the_ids_of_the_typed_key():
    ids = jaxlm.sample(*MLP, PROMPT, 12, key=jax.random.PRNGKey(3))
    np.testing.assert_array_equal(ids, draw(MLP, key=3))
    with pytest.raises(TypeError, match=r"such as jax.random.key\(0\), got 0"):
        jaxlm.sample(*MLP, PROMPT, 12, key=0)


def test_sample_under_a_trace_names_generate():
    message = "sample does not work inside jit, vmap or grad; use generate"
    with pytest.raises(TypeError, match=message):
        jax.vmap(lambda key: jaxlm.sample(*MLP, PROMPT, 12, key=key))(jax.random.split(jax.random.key(0), 2))
    for call in (lambda x: stream(MLP, temperature=x), lambda x: stream(MLP, top_p=x)):
        with pytest.raises(TypeError, match=message):
            jax.vmap(call)(np.ones(2))
    with pytest.raises(TypeError, match=message):
        jax.jit(lambda _: draw(MLP))(1)


@pytest.mark.slow
def test_sample_works_without_jit():
    expected = draw(MLP)
    with jax.disable_jit():
        np.testing.assert_array_equal(draw(MLP), expected)


def test_debug_nans_changes_nothing_for_counts_without_smoothing():
    model = with_counts(np.vstack([CHAIN[:7], CHAIN[6]]), 0.0)  # token 3 is followed by 4, ...
    with jax.debug_nans(True):
        assert draw(model, [0], 300)[:8].tolist() == list(range(8))
