"""generate."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlm.models.interface import LanguageModel, compute_logits, num_contexts
from jaxlm.sampling.distributions import BLOCK, Distributions, distributions, sample_tokens
from jaxlm.utils.keys import vmap_over_steps

# Tokens whose random numbers are drawn at once.
_TOKENS_PER_DRAW = 64

TINY = float(np.finfo(np.float32).tiny)  # what is smaller, float32 flushes to zero

# Numbers in a table of distributions: at most 160 MiB, as a bigram's at V = 4096 with its ranks is.
_MAX_TABLE = 40 * 2**20
_CONTEXTS_PER_PIECE = 64


@functools.partial(jax.jit, static_argnames=("model", "tokens_per_call", "greedy", "top_k", "nucleus"))
def draw_tokens(
    model: LanguageModel,
    variables: Any,
    table: Distributions | None,
    window: Array,
    key: Array,
    start: Array,
    num_steps: Array,
    tokens_per_call: int,
    *,
    greedy: bool,
    **options: Any,
) -> tuple[Array, Array]:
    """The window [B, N] after `num_steps` tokens, and the tokens in the first rows of [tokens_per_call, B]."""
    num_streams = len(window)

    def draw_shares(step_key: Array) -> Array:
        return jax.random.uniform(step_key, (num_streams,))

    def draw_some(piece: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        first = piece * _TOKENS_PER_DRAW
        shares = (
            None if greedy else vmap_over_steps(draw_shares, key, start + first + jnp.arange(_TOKENS_PER_DRAW))
        )

        def draw_one(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            window, tokens = carry
            if shares is None:
                token = _likeliest(compute_logits(model, variables, window))
            elif table is None:
                token = sample_tokens(
                    distributions(compute_logits(model, variables, window), **options), shares[step - first]
                )
            else:
                context = jnp.zeros(num_streams, jnp.int32)  # its number, in base V
                for position in range(model.context_length):
                    context = context * model.vocab_size + window[:, position]
                token = sample_tokens(jax.tree.map(lambda each: each[context], table), shares[step - first])
            window = jnp.concatenate([window, token[:, None]], axis=1)[:, 1:]
            return window, tokens.at[step].set(token)

        return lax.fori_loop(first, jnp.minimum(first + _TOKENS_PER_DRAW, num_steps), draw_one, carry)

    tokens = jnp.zeros((tokens_per_call, num_streams), jnp.int32)
    return lax.fori_loop(0, -(-num_steps // _TOKENS_PER_DRAW), draw_some, (window, tokens))


def _likeliest(logits: Array) -> Array:
    """The first of the largest logits in each row of [B, V]; -1 where all are -inf, or one is NaN."""
    # The CPU's argmax takes twice as long.
    largest = logits.max(axis=1, keepdims=True)
    first = jnp.where(logits == largest, jnp.arange(logits.shape[1])[None, :], logits.shape[1]).min(axis=1)
    return jnp.where(largest[:, 0] > -jnp.inf, first, -1).astype(jnp.int32)


def is_table_worthwhile(model: LanguageModel, num_draws: int, *, is_ranked: bool) -> bool:
    """Whether the model has so few contexts that all their distributions are sooner made once than one a draw."""
    size_of_one = int(model.vocab_size) * (2 if is_ranked else 1) + 2 * BLOCK  # with what pads and sums its blocks
    return num_contexts(model) <= num_draws and num_contexts(model) * size_of_one <= _MAX_TABLE


@functools.partial(jax.jit, static_argnames=("model", "top_k", "nucleus"))
def tabulate(model: LanguageModel, variables: Any, **options: Any) -> Distributions:
    """The distributions after all V^N contexts, in the order of their numbers in base V."""
    places = [int(model.vocab_size) ** power for power in reversed(range(model.context_length))]

    def tabulate_some(first: Array) -> Distributions:
        numbers = (first + jnp.arange(_CONTEXTS_PER_PIECE, dtype=jnp.int32))[:, None]
        contexts = numbers // jnp.array(places, jnp.int32)[None, :] % model.vocab_size
        return distributions(compute_logits(model, variables, contexts), **options)

    pieces = lax.map(tabulate_some, jnp.arange(0, num_contexts(model), _CONTEXTS_PER_PIECE, dtype=jnp.int32))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), pieces)
