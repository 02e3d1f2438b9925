"""Samples against a plain loop, frequencies in a large vocabulary, pieces, tables and limits."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxlm
from jaxlm.sampling.generate import generate_tokens, is_table_worthwhile, tabulate_distributions

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
    """Token t inverts the cumulative probabilities at `uniform(fold_in(key, t))`. 64 tokens are drawn at once."""
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


@pytest.mark.parametrize(
    ("model", "options", "num_tokens"),
    [
        (BIGRAM, {}, 7),
        pytest.param(MLP, {}, 511, marks=pytest.mark.slow),
        pytest.param(MLP, {"temperature": 0.6, "top_k": 5, "top_p": 0.7}, 511, marks=pytest.mark.slow),
        pytest.param(LARGE_COUNTS, {}, 1999, marks=pytest.mark.slow),
    ],
    ids=["bigram", "mlp", "mlp_ranked", "blocks"],
)
def test_table_gives_the_same_ids(model, options, num_tokens):
    """A sample of at least V^N tokens comes from a table of all V^N contexts."""
    assert not is_table_worthwhile(model[0], num_tokens, is_ranked=bool(options))
    assert is_table_worthwhile(model[0], num_tokens + 1, is_ranked=bool(options))
    from_table = draw(model, num_tokens=20_000, **options)  # enough to reveal sums that round differently
    np.testing.assert_array_equal(from_table[: 5 + num_tokens], draw(model, num_tokens=num_tokens, **options))


@pytest.mark.slow
def test_table_depends_on_the_tokens_of_all_streams_and_pieces():
    tabulate_distributions.clear_cache()
    list(stream(BIGRAM, PROMPTS, num_tokens=3, tokens_per_piece=1))  # 6 tokens
    assert tabulate_distributions._cache_size() == 0
    list(stream(BIGRAM, PROMPTS, num_tokens=4, tokens_per_piece=1))  # 8 tokens
    assert tabulate_distributions._cache_size() == 1


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
        lowered = tabulate_distributions.lower(model, logits, temperature=1.0, top_p=0.5, top_k=None)
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
    assert list(stream(MLP, num_tokens=0)) == list(stream(MLP, PROMPTS, num_tokens=0, tokens_per_piece=1)) == []


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
def test_sample_stream_pieces_are_the_sample(model, prompt, options):
    ids = draw(model, prompt, num_tokens=70, **options)
    for tokens_per_piece, lengths in ((1, [1] * 70), (7, [7] * 10), (64, [64, 6]), (71, [70]), (None, [70])):
        drawn = list(stream(model, prompt, num_tokens=70, tokens_per_piece=tokens_per_piece, **options))
        assert [piece.shape for piece in drawn] == [(*prompt.shape[:-1], length) for length in lengths]
        assert all(isinstance(piece, np.ndarray) and piece.dtype == np.int32 for piece in drawn)
        np.testing.assert_array_equal(np.concatenate(drawn, axis=-1), ids[..., 5:])


def test_sample_stream_pieces_hold_at_most_1024_tokens():
    large, small = (list(stream(BIGRAM, num_tokens=2500, tokens_per_piece=size)) for size in (2000, 700))
    assert [len(piece) for piece in large] == [1024, 1024, 452]
    assert [len(piece) for piece in small] == [700, 700, 700, 400]
    np.testing.assert_array_equal(np.concatenate(large), np.concatenate(small))


@pytest.mark.slow
def test_another_top_p_compiles_nothing():
    draw(MLP, top_p=0.5)
    compiled = generate_tokens._cache_size()
    draw(MLP, top_p=0.7)
    assert generate_tokens._cache_size() == compiled


def test_all_lengths_share_one_program():
    draw(BIGRAM, num_tokens=VOCAB - 1)
    draw(BIGRAM, num_tokens=VOCAB)  # with a table
    before = generate_tokens._cache_size(), tabulate_distributions._cache_size()
    for num_tokens in (0, 1, VOCAB, 70, 1100):
        draw(BIGRAM, PROMPT[1:], num_tokens, key=num_tokens, temperature=0.8)
        list(stream(BIGRAM, num_tokens=num_tokens, tokens_per_piece=300))
    assert (generate_tokens._cache_size(), tabulate_distributions._cache_size()) == before


def test_sample_stream_owns_the_prompt_and_the_caller_the_pieces():
    prompt, drawn = PROMPTS.astype(np.int32), []
    pieces = stream(MLP, prompt, tokens_per_piece=4)
    prompt[:] = 0
    for piece in pieces:
        drawn.append(piece.copy())
        piece[:] = 0
    np.testing.assert_array_equal(np.concatenate(drawn, axis=1), draw(MLP, PROMPTS)[:, 5:])


@pytest.mark.parametrize("tokens_per_piece", [1, 3, 4, None])
def test_sample_stream_raises_in_the_piece_without_a_token(tokens_per_piece):
    pieces = stream(with_counts(CHAIN, 0.0), [[0], [3]], 7, tokens_per_piece=tokens_per_piece)
    for _ in range(4 // (tokens_per_piece or 7)):
        next(pieces)
    with pytest.raises(ValueError, match=r"after token 7 \(drawing token 4, stream 1\)"):
        next(pieces)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_sample_without_a_possible_token_is_a_value_error(temperature):
    with pytest.raises(ValueError, match=r"after token 7 \(drawing token 4, stream 1\).*smoothing > 0"):
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
        ({"tokens_per_piece": 0}, ValueError, "tokens_per_piece must be at least 1, got 0"),
        ({"prompt": [1]}, ValueError, "prompt has 1 token; MLPLanguageModel needs at least context_length=3"),
        ({"prompt": np.zeros((4, 2), int)}, ValueError, "prompt has 2 tokens; .* context_length=3"),
        ({"prompt": np.zeros(0, int)}, ValueError, "prompt has 0 tokens; .* context_length=3"),
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
    if "tokens_per_piece" not in options:
        with pytest.raises(error, match=message):
            draw(MLP, **options)
