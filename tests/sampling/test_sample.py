"""Samples against a plain loop, frequencies in a large vocabulary, and tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling_models import (
    BIGRAM,
    CHAIN,
    COUNTS_BIGRAM,
    LOGITS_MODEL,
    MLP,
    PROMPT,
    PROMPTS,
    VOCAB,
    LogitsModel,
    draw,
    each_model,
    with_counts,
    with_normal_variables,
)
from scipy import stats

import jaxlm
from jaxlm.sampling.distributions import Options
from jaxlm.sampling.generate import compute_table, generate_block, is_table_worthwhile

P_VALUE = 1e-4  # the keys are fixed, so a test either always passes or always fails
LARGE_COUNTS = with_counts(np.random.default_rng(3).integers(0, 5, (200, 200)), 0.1)
UNIGRAM = jaxlm.UnigramLM(VOCAB), jnp.arange(VOCAB) * 7 % 5


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
        pytest.param(MLP, {"top_k": 2}, marks=pytest.mark.slow),
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
    assert is_table_worthwhile(model[0], Options(**options), 2 * 700)
    context, key = jnp.asarray(PROMPTS[:, 5 - model[0].context_length :]), jax.random.key(0)
    expected = jaxlm.generate(*model, context, key=key, num_tokens=700, **options)
    np.testing.assert_array_equal(draw(model, PROMPTS, 700, **options)[:, 5:], expected)


@pytest.mark.parametrize(("num_ids", "pays"), [(2 * VOCAB**3 - 1, False), (2 * VOCAB**3, True)])
def test_table_takes_at_most_half_of_the_predictions(num_ids, pays):
    assert is_table_worthwhile(MLP[0], Options(), num_ids) == pays


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vocab_size", "context_length", "fits"),
    # In 64 bits, 256^8 contexts would be 0.
    [(2, 18, True), (4096, 1, True), (5000, 1, False), (27, 5, False), (2, 23, False), (np.int64(256), 8, False)],
)
def test_table_takes_at_most_160_mib(vocab_size, context_length, fits):
    """By the figures of the compiled program, with ranks, which take the most."""
    model = LogitsModel(vocab_size, context_length)
    assert is_table_worthwhile(model, Options(top_p=0.5), 10**9) == fits
    if fits:
        logits = jnp.zeros(vocab_size)
        lowered = compute_table.lower(model, logits, Options(top_p=0.5))
        memory = lowered.compile().memory_analysis()
        assert memory.output_size_in_bytes <= 160 * 2**20
        assert memory.temp_size_in_bytes <= 32 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(128, jnp.float32), (129, jnp.float32), (1000, jnp.bfloat16)],
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
    ids = draw((LogitsModel(vocab_size), logits), np.zeros((400, 1), np.int32), 256, key=1)
    counts = np.bincount(ids[:, 1:].ravel(), minlength=vocab_size)
    assert not counts[probabilities == 0].any()
    expected = probabilities * counts.sum()
    common = expected > 5
    observed = [*counts[common], counts[~common].sum()]
    assert stats.chisquare(observed, [*expected[common], expected[~common].sum()]).pvalue > P_VALUE


@each_model
def test_longer_sample_starts_with_the_shorter(model):
    np.testing.assert_array_equal(draw(model, num_tokens=12), draw(model, num_tokens=500)[: 5 + 12])


@each_model
def test_one_prompt_is_a_batch_of_one(model):
    np.testing.assert_array_equal(draw(model, PROMPT), draw(model, PROMPT[None, :])[0])


@pytest.mark.slow
@pytest.mark.parametrize("vocab_size", [5, 14])  # with a table, and without one, which would need 5,488 tokens
def test_other_numbers_and_lengths_do_not_recompile(vocab_size):
    model = with_normal_variables(jaxlm.MLPLanguageModel(vocab_size, 3, embedding_dim=2, hidden_dim=4))
    draw(model, [0, 1, 2], 1, temperature=0.7, top_p=0.5)
    before = generate_block._cache_size(), compute_table._cache_size()
    for length in (2, 9, 70, 100, 255, 256, 257, 700, 1000, 2500, 5000):
        draw(model, [0, 1, 2], length, key=length, temperature=length / 100, top_p=1 / length)
    assert (generate_block._cache_size(), compute_table._cache_size()) == before


@pytest.mark.slow
def test_sample_works_without_jit():
    expected = draw(MLP)
    with jax.disable_jit():
        np.testing.assert_array_equal(draw(MLP), expected)


def test_debug_nans_changes_nothing_for_counts_without_smoothing():
    model = with_counts(np.vstack([CHAIN[:7], CHAIN[6]]), 0.0)  # token 3 is followed by 4, ...
    with jax.debug_nans(True):
        assert draw(model, [0], 300)[:8].tolist() == list(range(8))
