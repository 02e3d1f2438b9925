"""Generate tokens in a compiled loop: compute the distribution, sample a token, append it to the context."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlm.models.interface import LanguageModel, compute_logits, contexts_to_numbers, num_contexts
from jaxlm.sampling.distributions import BLOCK_SIZE, Distributions, compute_distributions, sample_tokens
from jaxlm.utils.keys import vmap_over_steps

_TOKENS_PER_DRAW = 64  # whose uniform numbers are drawn at once
_CONTEXTS_PER_CHUNK = 64  # whose distributions in a table are computed at once
_MAX_TABLE_SIZE = 40 * 2**20  # numbers, 160 MiB: enough for a bigram at V = 4096 with ranked tokens


@functools.partial(jax.jit, static_argnames=("model", "max_tokens", "greedy", "top_k"))
def generate_tokens(
    model: LanguageModel,
    variables: Any,
    table: Distributions | None,
    contexts: Array,
    key: Array,
    start: Array,
    num_tokens: Array,
    max_tokens: int,
    *,
    greedy: bool,
    **options: Any,
) -> tuple[Array, Array]:
    """Generate the tokens `start` to `start + num_tokens - 1` of a sample, after contexts [B, N].

    Return the next contexts, and an array [max_tokens, B] whose first rows are the tokens. `num_tokens` is traced,
    so that all lengths share one program; `lax.scan` would compile one per length. The distributions come from
    `table` (`tabulate_distributions`) if there is one. `options` are those of `compute_distributions`.
    """
    num_streams = len(contexts)

    def sample_next(contexts: Array, uniforms: Array) -> Array:
        if table is not None:
            numbers = contexts_to_numbers(contexts, model.vocab_size)
            return sample_tokens(jax.tree.map(lambda leaf: leaf[numbers], table), uniforms)
        logits = compute_logits(model, variables, contexts)
        if greedy:
            return _find_likeliest(logits)
        return sample_tokens(compute_distributions(logits, **options), uniforms)

    def generate_drawn(draw: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        first = draw * _TOKENS_PER_DRAW
        steps = start + first + jnp.arange(_TOKENS_PER_DRAW)
        uniforms = vmap_over_steps(lambda step_key: jax.random.uniform(step_key, (num_streams,)), key, steps)

        def generate_one(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            contexts, tokens = carry
            token = sample_next(contexts, uniforms[step - first])
            contexts = jnp.concatenate([contexts, token[:, None]], axis=1)[:, 1:]
            return contexts, tokens.at[step].set(token)

        return lax.fori_loop(first, jnp.minimum(first + _TOKENS_PER_DRAW, num_tokens), generate_one, carry)

    tokens = jnp.zeros((max_tokens, num_streams), jnp.int32)
    return lax.fori_loop(0, -(-num_tokens // _TOKENS_PER_DRAW), generate_drawn, (contexts, tokens))


def _find_likeliest(logits: Array) -> Array:
    """Return the index of the first largest logit in each row of [B, V]; -1 if all are -inf, or one is NaN."""
    # Twice as fast as `argmax` on the CPU.
    largest = logits.max(axis=1, keepdims=True)
    first = jnp.where(logits == largest, jnp.arange(logits.shape[1])[None, :], logits.shape[1]).min(axis=1)
    return jnp.where(largest[:, 0] > -jnp.inf, first, -1).astype(jnp.int32)


def is_table_worthwhile(model: LanguageModel, num_tokens: int, *, is_ranked: bool) -> bool:
    """Return whether a table of all contexts takes at most `num_tokens` predictions, and fits in memory."""
    row_size = int(model.vocab_size) * (2 if is_ranked else 1) + 2 * BLOCK_SIZE  # with padding and block sums
    return num_contexts(model) <= num_tokens and num_contexts(model) * row_size <= _MAX_TABLE_SIZE


@functools.partial(jax.jit, static_argnames=("model", "top_k"))
def tabulate_distributions(model: LanguageModel, variables: Any, **options: Any) -> Distributions:
    """Return the distributions after all V^N contexts, in the order of the contexts as numbers in base V."""
    powers = [int(model.vocab_size) ** power for power in reversed(range(model.context_length))]

    def tabulate_chunk(first: Array) -> Distributions:
        indices = (first + jnp.arange(_CONTEXTS_PER_CHUNK, dtype=jnp.int32))[:, None]
        contexts = indices // jnp.array(powers, jnp.int32)[None, :] % model.vocab_size
        return compute_distributions(compute_logits(model, variables, contexts), **options)

    chunks = lax.map(tabulate_chunk, jnp.arange(0, num_contexts(model), _CONTEXTS_PER_CHUNK, dtype=jnp.int32))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), chunks)
