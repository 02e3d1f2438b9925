"""Drawing a token from the distribution that its logits are."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

BLOCK = 64  # tokens; of a larger vocabulary a block is drawn first


class Distributions(NamedTuple):
    """What is drawn from after each of R contexts: weights that need not sum to one, cut into blocks."""

    weights: Array  # [R, blocks, tokens a block], zero past the last token
    block_weights: Array  # [R, blocks]
    cumulative: Array  # [R, blocks], their running sums
    token_of_rank: Array | None  # [R, K], where the weights stand in another order than the tokens


def distributions(
    logits: Array,
    *,
    temperature: Array | float = 1.0,
    top_p: Array | float = 1.0,
    top_k: int | None = None,
    nucleus: bool = False,
) -> Distributions:
    """What `sample` draws from after contexts whose logits are [R, V]; `nucleus` says that `top_p` matters."""
    largest = logits.max(axis=1, keepdims=True)
    # The largest logit is taken off first, so that no temperature makes an inf of it.
    scaled = (logits - largest) / temperature
    token_of_rank = None
    if top_k is not None or nucleus:
        scaled, token_of_rank = lax.top_k(scaled, top_k or logits.shape[1])
    weights = jnp.exp(scaled)
    if nucleus:
        mass_before = jnp.cumsum(weights, axis=1) - weights
        weights = jnp.where(mass_before < top_p * weights.sum(axis=1, keepdims=True), weights, 0)
    num_rows, num_weights = weights.shape
    # In one level up to 128 tokens, where it is the faster; above that a block is drawn, and then a token of it.
    block = num_weights if num_weights <= 2 * BLOCK else BLOCK
    num_blocks = -(-num_weights // block)
    padded = jnp.pad(weights, ((0, 0), (0, num_blocks * block - num_weights)))
    blocks = padded.reshape(num_rows, num_blocks, block)
    block_weights = blocks.sum(axis=2)
    return Distributions(blocks, block_weights, jnp.cumsum(block_weights, axis=1), token_of_rank)


def sample_tokens(rows: Distributions, shares: Array) -> Array:
    """The tokens [R] at which the running sums of the rows pass `shares` [R] of their totals; -1 for no token.

    The inverse of the distribution function, with one uniform number a token: at V = 4096 on 2 CPU cores a token
    of the MLP takes 16 us, in one level 56, and with `jax.random.categorical`, which draws V numbers, 115.
    """
    weights, block_weights, cumulative, token_of_rank = rows
    total = cumulative[:, -1:]  # NaN where every logit is -inf, or one of them is NaN
    threshold = shares[:, None] * total
    block, sum_before = _first_past(block_weights, cumulative, threshold)
    chosen = jnp.take_along_axis(weights, block[:, :, None], axis=1)[:, 0]
    place, _ = _first_past(chosen, jnp.cumsum(chosen, axis=1), threshold - sum_before)
    token = block * weights.shape[2] + place
    if token_of_rank is not None:
        token = jnp.take_along_axis(token_of_rank, token, axis=1)
    return jnp.where(total > 0, token, -1)[:, 0].astype(jnp.int32)


def _first_past(weights: Array, cumulative: Array, threshold: Array) -> tuple[Array, Array]:
    """Where the running sums of `weights` [B, K] first pass `threshold`, and the sum before it, all [B, 1]."""
    places = jnp.arange(weights.shape[1])[None, :]
    # Rounding may lift the sum where the weight is zero, or leave it short: what has no weight is never taken.
    is_past = (cumulative > threshold) & (weights > 0)
    first = jnp.where(is_past, places, weights.shape[1]).min(axis=1, keepdims=True)
    last = jnp.where(weights > 0, places, 0).max(axis=1, keepdims=True)
    index = jnp.minimum(first, last)
    return index, jnp.take_along_axis(cumulative - weights, index, axis=1)
