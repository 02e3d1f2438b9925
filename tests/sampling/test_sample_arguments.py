"""Limits and types of the arguments of `sample`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling_models import (
    CHAIN,
    LOGITS,
    LOGITS_MODEL,
    MLP,
    PROMPT,
    PROMPTS,
    VOCAB,
    LogitsModel,
    draw,
    stream,
    with_counts,
)

import jaxlm


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


def test_prompt_may_be_any_integers():
    expected = draw(MLP)
    for prompt in (PROMPT.tolist(), PROMPT.astype(np.uint8), jnp.asarray(PROMPT), PROMPT.astype(object)):
        np.testing.assert_array_equal(draw(MLP, prompt), expected)
    column = np.empty(len(PROMPTS), object)  # as of lists in pandas
    column[:] = PROMPTS.tolist()
    np.testing.assert_array_equal(draw(MLP, column), draw(MLP, PROMPTS))


def test_no_tokens_return_the_prompt():
    ids = draw(MLP, PROMPTS, num_tokens=0)
    np.testing.assert_array_equal(ids, PROMPTS)
    assert ids.dtype == np.int32
    assert list(stream(MLP, num_tokens=0)) == list(stream(MLP, PROMPTS, num_tokens=0)) == []


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
        ({"prompt": [1]}, ValueError, r"\[P\] or \[B, P\] with P >= context_length=3, got \[1\]"),
        ({"prompt": np.zeros((4, 2), int)}, ValueError, r"context_length=3, got \[4, 2\]"),
        ({"prompt": np.zeros(0, int)}, ValueError, r"context_length=3, got \[0\]"),
        ({"prompt": [0, 1, 8]}, ValueError, r"prompt: 8 is outside 0\.\.7"),
        ({"prompt": [0, -1, 7]}, ValueError, r"prompt: -1 is outside 0\.\.7"),
        ({"prompt": np.zeros((1, 1, 3), int)}, ValueError, r"shape \[P\] or \[B, P\].*, got \[1, 1, 3\]"),
        ({"prompt": [[1, 2, 3, 4], (1, 2, 3)]}, ValueError, "different lengths.*, or call once for each"),
        ({"prompt": 3}, ValueError, r"shape \[P\] or \[B, P\].*, got \[\]"),
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


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_sample_stream_refuses_traced_options(name):
    with pytest.raises(TypeError, match="sample does not work inside jit, vmap or grad; use generate"):
        jax.vmap(lambda value: stream(MLP, **{name: value}))(np.ones(2))
