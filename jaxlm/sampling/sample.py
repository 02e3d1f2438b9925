"""Generation: the same prediction, called again on its own output."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlm.devices.selection import resolve_device
from jaxlm.models.interface import LanguageModel, num_params
from jaxlm.sampling.generate import TINY, draw_tokens, is_table_worthwhile, tabulate
from jaxlm.text.batching import check_ids
from jaxlm.utils.checks import check_at_least

# Tokens drawn by one call of the compiled loop, fewer where there are many streams. The number of steps is an
# argument of it, so that no num_tokens compiles anew; a `lax.scan`, whose length is part of the program, would.
_TOKENS_PER_CALL = 1024
_IDS_PER_CALL = 2**18


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
    begins with the shorter one, but for rounding: V^N tokens and more are drawn from a table of the model's
    distributions, whose logits may differ in their last bit.

    `temperature` divides the logits; then `top_k` keeps the k likeliest tokens; then `top_p` keeps the fewest of
    those, likeliest first, that hold at least that share of their probability (Holtzman et al. 2020, "The Curious
    Case of Neural Text Degeneration").

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
    target_device = resolve_device(device, num_weights=num_params(variables))
    pieces = sample_stream(
        model,
        variables,
        prompt_ids,
        num_tokens,
        key=key,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        device=target_device,
    )
    prompt = np.asarray(prompt_ids, np.int32)  # checked by the call above
    return jax.device_put(np.concatenate([prompt, *pieces], axis=-1), target_device)


def sample_stream(
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
    tokens_per_piece: int | None = None,
) -> Iterator[np.ndarray[Any, Any]]:
    """Draws as `sample` does, and yields the tokens after the prompt while they are drawn.

    Joined, the pieces are what `sample` returns after the prompt, bit for bit, whatever their size: what is drawn
    depends on `num_tokens` and the other arguments alone. No size compiles anew.

    Args:
        tokens_per_piece: at least 1; None, or more, is as many as one compiled call draws (1024, fewer for more
            than 256 streams). The last piece may be shorter.

    Yields:
        int32 [n] for a prompt [P], [B, n] for [B, P]; nothing where `num_tokens` is 0.

    Raises:
        TypeError, ValueError: as `sample`: at the call, but for a model that gives no token any probability, which
            only the piece that meets it can tell.
    """
    _check_options(num_tokens, temperature, top_k, top_p)
    if tokens_per_piece is not None:
        check_at_least("tokens_per_piece", tokens_per_piece, 1)
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
    # A copy, for the caller may write to the prompt before the first piece is drawn.
    window = prompts[:, prompt_length - model.context_length :].copy()
    pieces = _draw_pieces(
        model,
        variables,
        window,
        num_tokens,
        key,
        tokens_per_piece,
        resolve_device(device, num_weights=num_params(variables)),
        greedy=temperature < TINY,
        temperature=float(temperature),
        top_p=1.0 if top_p is None else max(float(top_p), TINY),
        top_k=None if top_k is None or top_k >= model.vocab_size else top_k,
        nucleus=top_p is not None and top_p < 1,
    )
    return pieces if prompt.ndim == 2 else (piece[0] for piece in pieces)


def _check_options(num_tokens: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    check_at_least("num_tokens", num_tokens, 0)
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be finite and at least 0 (0 is greedy), got {temperature}")
    if top_k is not None:
        check_at_least("top_k", top_k, 1)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1] (None keeps all tokens), got {top_p}")


def _draw_pieces(
    model: LanguageModel,
    variables: Any,
    prompts: np.ndarray[Any, Any],
    num_tokens: int,
    key: Array,
    tokens_per_piece: int | None,
    device: jax.Device,
    *,
    greedy: bool,
    temperature: float,
    top_p: float,
    **static_options: Any,
) -> Iterator[np.ndarray[Any, Any]]:
    """The tokens after the prompts [B, N], in pieces [B, n]."""
    variables, key, window = jax.device_put((variables, key, prompts), device)
    thresholds = jax.device_put({"temperature": temperature, "top_p": top_p}, device)
    options: dict[str, Any] = {**thresholds, **static_options}
    table = None
    is_ranked = options["top_k"] is not None or options["nucleus"]
    if not greedy and is_table_worthwhile(model, num_tokens * len(prompts), is_ranked=is_ranked):
        table = tabulate(model, variables, **options)
    tokens_per_call = min(_TOKENS_PER_CALL, max(_IDS_PER_CALL // max(len(prompts), 1), 1))
    stride = tokens_per_call if tokens_per_piece is None else min(tokens_per_piece, tokens_per_call)
    before = prompts[:, -1:]
    for start in range(0, num_tokens, stride):
        num_steps = min(num_tokens - start, stride)
        numbers = jax.device_put((start, num_steps), device)
        window, tokens = draw_tokens(
            model, variables, table, window, key, *numbers, tokens_per_call, greedy=greedy, **options
        )
        piece = jax.device_get(tokens)[:num_steps].T.copy()
        if (piece < 0).any():
            raise ValueError(_no_token_message(before, piece, start))
        before = piece[:, -1:]
        yield piece


def _no_token_message(before: np.ndarray[Any, Any], piece: np.ndarray[Any, Any], start: int) -> str:
    row, column = np.argwhere(piece < 0)[0]
    last = piece[row, column - 1 : column] if column else before[row]  # [1], or [0] where the context is empty
    after = f" after token {last[0]}" if last.size else ""
    return (
        f"no token has any probability{after} (drawing token {start + column}, stream {row}): "
        "the logits are -inf or NaN; counts need smoothing > 0, a network needs finite variables"
    )
