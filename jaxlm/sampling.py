"""Generation: the same prediction, called again on its own output."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike

from jaxlm.batching import check_at_least, check_ids
from jaxlm.devices import resolve_device
from jaxlm.models.interface import LanguageModel, predict

# Tokens drawn by one call of the compiled loop. The number of steps is an argument of it, so that every
# num_tokens shares one compilation; a `lax.scan`, whose length is part of the program, would compile anew.
_TOKENS_PER_CALL = 256

_BLOCK = 64


def sample(
    model: LanguageModel,
    variables: Any,
    prompt_ids: ArrayLike,
    num_tokens: int,
    *,
    key: Array,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    device: str | jax.Device = "auto",
) -> Array:
    """Draws `num_tokens` tokens after the prompt, each from the model's distribution given those before it.

    Token t is drawn with `jax.random.fold_in(key, t)`: the same key gives the same ids, and a longer sample
    begins with the shorter one. `temperature` divides the logits; then `top_k` keeps the k likeliest tokens;
    then `top_p` keeps the fewest of those, likeliest first, that hold at least that share of their probability
    (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration").

    Args:
        prompt_ids: integers [P] or [B, P], P >= context_length.
        temperature: 0 takes the likeliest token each time (the first of equals).
        top_k: at least 1; None, or V and more, keeps all.
        top_p: in (0, 1]; None, or 1, keeps all.

    Returns:
        int32 [P + num_tokens] or [B, P + num_tokens], the prompt unchanged in front.

    Raises:
        TypeError: the prompt's ids are not integers.
        ValueError: an argument is out of its range, the prompt is shorter than the context or holds an unknown
            id, or the model gives no token any probability (counts without smoothing, after a token they
            never saw; or logits that are NaN).
    """
    _check_options(num_tokens, temperature, top_k, top_p)
    prompt = np.asarray(check_ids(prompt_ids, model.vocab_size, name="prompt"))
    if prompt.ndim not in (1, 2):
        raise ValueError(f"prompt must have shape [P] or [B, P], got {list(prompt.shape)}")
    prompts = np.atleast_2d(prompt)
    prompt_length = prompts.shape[1]
    if prompt_length < model.context_length:
        raise ValueError(
            f"prompt has {prompt_length} token{'s' * (prompt_length != 1)}; {type(model).__name__} needs at "
            f"least context_length={model.context_length}: use a longer prompt"
        )
    target_device = resolve_device(device)
    variables = jax.device_put(variables, target_device)
    window = jax.device_put(prompts[:, prompt_length - model.context_length :], target_device)
    drawn = [prompts]
    for start in range(0, num_tokens, _TOKENS_PER_CALL):
        num_steps = min(num_tokens - start, _TOKENS_PER_CALL)
        window, tokens = _draw_tokens(
            model,
            variables,
            window,
            key,
            start,
            num_steps,
            float(temperature),
            1.0 if top_p is None else float(top_p),
            greedy=temperature < np.finfo(np.float32).tiny,  # float32 would flush it to zero
            top_k=None if top_k is None or top_k >= model.vocab_size else top_k,
            nucleus=top_p is not None and top_p < 1,
        )
        drawn.append(np.asarray(tokens)[:num_steps].T)
        if (drawn[-1] < 0).any():
            raise ValueError(_no_token_message(np.concatenate(drawn, axis=1), prompt_length))
    ids = np.concatenate(drawn, axis=1)
    return jax.device_put(ids if prompt.ndim == 2 else ids[0], target_device)


def _check_options(num_tokens: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    check_at_least("num_tokens", num_tokens, 0)
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be finite and at least 0 (0 is greedy), got {temperature}")
    if top_k is not None:
        check_at_least("top_k", top_k, 1)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1] (None keeps all tokens), got {top_p}")


def _no_token_message(ids: np.ndarray[Any, Any], prompt_length: int) -> str:
    row, column = np.argwhere(ids < 0)[0]
    after = f" after token {ids[row, column - 1]}" if column else ""
    return (
        f"no token has any probability{after} (drawing token {column - prompt_length}, stream {row}): "
        "the logits are -inf or NaN; counts need smoothing > 0, a network needs finite variables"
    )


@functools.partial(jax.jit, static_argnames=("model", "greedy", "top_k", "nucleus"))
def _draw_tokens(
    model: LanguageModel,
    variables: Any,
    window: Array,
    key: Array,
    start: Array,
    num_steps: Array,
    temperature: Array,
    top_p: Array,
    *,
    greedy: bool,
    top_k: int | None,
    nucleus: bool,
) -> tuple[Array, Array]:
    """The window [B, N] after `num_steps` tokens, and the tokens in the first rows of [_TOKENS_PER_CALL, B]."""

    def draw_one(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        window, tokens = carry
        logits = predict(model, variables, window)
        if greedy:
            token = jnp.argmax(logits, axis=1)
        else:
            step_key = jax.random.fold_in(key, start + step)
            # The largest logit is taken off first, so that no temperature makes an inf of it.
            scaled = (logits - logits.max(axis=1, keepdims=True)) / temperature
            token = draw(scaled, step_key, top_p, top_k=top_k, nucleus=nucleus)
        token = jnp.where(jnp.max(logits, axis=1) > -jnp.inf, token, -1).astype(jnp.int32)
        window = jnp.concatenate([window, token[:, None]], axis=1)[:, 1:]
        return window, tokens.at[step].set(token)

    tokens = jnp.zeros((_TOKENS_PER_CALL, len(window)), jnp.int32)
    return lax.fori_loop(0, num_steps, draw_one, (window, tokens))


def draw(logits: Array, key: Array, top_p: Array, *, top_k: int | None, nucleus: bool) -> Array:
    """One token [B] a row of `logits` [B, V], whose maximum is 0, with one uniform number each.

    `nucleus` says that `top_p` matters; `top_k` is at most V, or None.
    """
    ranked = top_k is not None or nucleus
    if ranked:
        logits, token_of_rank = lax.top_k(logits, top_k or logits.shape[1])
    weights = jnp.exp(logits)
    if nucleus:
        mass_before = jnp.cumsum(weights, axis=1) - weights
        weights = jnp.where(mass_before < top_p * weights.sum(axis=1, keepdims=True), weights, 0)
    index = _invert(weights, jax.random.uniform(key, (len(weights), 1)))
    return jnp.take_along_axis(token_of_rank, index, axis=1)[:, 0] if ranked else index[:, 0]


def _invert(weights: Array, share: Array) -> Array:
    """The index [B, 1] at which the running sum of `weights` [B, K] passes `share` [B, 1] of their sum.

    In two levels, a block and then a place in it: at V = 4096 on 2 CPU cores a token of the MLP takes 20 us,
    where one level takes 56, and `jax.random.categorical`, which draws V numbers, 115.
    """
    num_rows, num_weights = weights.shape
    if num_weights <= 2 * _BLOCK:  # one level is the faster, at V = 27 by 40 %
        return _first_past(weights, share * weights.sum(axis=1, keepdims=True))[0]
    num_blocks = -(-num_weights // _BLOCK)
    padded = jnp.pad(weights, ((0, 0), (0, num_blocks * _BLOCK - num_weights)))
    blocks = padded.reshape(num_rows, num_blocks, _BLOCK)
    block_weights = blocks.sum(axis=2)
    threshold = share * block_weights.sum(axis=1, keepdims=True)
    block, sum_before = _first_past(block_weights, threshold)
    chosen = jnp.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0]
    return block * _BLOCK + _first_past(chosen, threshold - sum_before)[0]


def _first_past(weights: Array, threshold: Array) -> tuple[Array, Array]:
    """Where the running sum of `weights` [B, K] first passes `threshold`, and the sum before it, all [B, 1]."""
    cumulative = jnp.cumsum(weights, axis=1)
    # Rounding may lift the sum where the weight is zero, or leave it short: what has no weight is never taken.
    candidates = (cumulative > threshold) & (weights > 0)
    index = jnp.where(candidates.any(axis=1), candidates.argmax(axis=1), weights.argmax(axis=1))[:, None]
    return index, jnp.take_along_axis(cumulative - weights, index, axis=1)
