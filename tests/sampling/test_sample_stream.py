"""Blocks of `sample_stream`: their lengths, their ids and what they own."""

import jax.numpy as jnp
import numpy as np
import pytest
from sampling_models import BIGRAM, MLP, PROMPT, PROMPTS, LogitsModel, draw, stream, with_counts

from jaxlm.sampling.sample import BLOCK_LENGTH


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
