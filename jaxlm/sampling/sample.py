"""Generation: the same prediction, called again on its own output."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike

from jaxlm.batching import check_at_least, check_ids
from jaxlm.devices import resolve_device
from jaxlm.distributions import BLOCK, Distributions, distributions, draw
from jaxlm.keys import map_steps
from jaxlm.models.interface import LanguageModel, count_weights, num_contexts, predict

# Tokens drawn by one call of the compiled loop, fewer where there are many streams. The number of steps is an
# argument of it, so that no num_tokens compiles anew; a `lax.scan`, whose length is part of the program, would.
_TOKENS_PER_CALL = 1024
_IDS_PER_CALL = 2**18

# Tokens whose random numbers are drawn at once.
_TOKENS_PER_DRAW = 64

_TINY = float(np.finfo(np.float32).tiny)  # what is smaller, float32 flushes to zero

# Numbers in a table of distributions: at most 160 MiB, as a bigram's at V = 4096 with its ranks is.
_MAX_TABLE = 40 * 2**20
_CONTEXTS_PER_PIECE = 64


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
    target_device = resolve_device(device, num_weights=count_weights(variables))
    pieces = sample_pieces(
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


def sample_pieces(
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
        resolve_device(device, num_weights=count_weights(variables)),
        greedy=temperature < _TINY,
        temperature=float(temperature),
        top_p=1.0 if top_p is None else max(float(top_p), _TINY),
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
    if not greedy and _table_pays(model, num_tokens * len(prompts), is_ranked=is_ranked):
        table = _tabulate(model, variables, **options)
    tokens_per_call = min(_TOKENS_PER_CALL, max(_IDS_PER_CALL // max(len(prompts), 1), 1))
    stride = tokens_per_call if tokens_per_piece is None else min(tokens_per_piece, tokens_per_call)
    before = prompts[:, -1:]
    for start in range(0, num_tokens, stride):
        num_steps = min(num_tokens - start, stride)
        numbers = jax.device_put((start, num_steps), device)
        window, tokens = _draw_tokens(
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


@functools.partial(jax.jit, static_argnames=("model", "tokens_per_call", "greedy", "top_k", "nucleus"))
def _draw_tokens(
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
        shares = None if greedy else map_steps(draw_shares, key, start + first + jnp.arange(_TOKENS_PER_DRAW))

        def draw_one(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            window, tokens = carry
            if shares is None:
                token = _likeliest(predict(model, variables, window))
            elif table is None:
                token = draw(distributions(predict(model, variables, window), **options), shares[step - first])
            else:
                context = jnp.zeros(num_streams, jnp.int32)  # its number, in base V
                for position in range(model.context_length):
                    context = context * model.vocab_size + window[:, position]
                token = draw(jax.tree.map(lambda each: each[context], table), shares[step - first])
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


def _table_pays(model: LanguageModel, num_draws: int, *, is_ranked: bool) -> bool:
    """Whether the model has so few contexts that all their distributions are sooner made once than one a draw."""
    size_of_one = int(model.vocab_size) * (2 if is_ranked else 1) + 2 * BLOCK  # with what pads and sums its blocks
    return num_contexts(model) <= num_draws and num_contexts(model) * size_of_one <= _MAX_TABLE


@functools.partial(jax.jit, static_argnames=("model", "top_k", "nucleus"))
def _tabulate(model: LanguageModel, variables: Any, **options: Any) -> Distributions:
    """The distributions after all V^N contexts, in the order of their numbers in base V."""
    places = [int(model.vocab_size) ** power for power in reversed(range(model.context_length))]

    def tabulate_some(first: Array) -> Distributions:
        numbers = (first + jnp.arange(_CONTEXTS_PER_PIECE, dtype=jnp.int32))[:, None]
        contexts = numbers // jnp.array(places, jnp.int32)[None, :] % model.vocab_size
        return distributions(predict(model, variables, contexts), **options)

    pieces = lax.map(tabulate_some, jnp.arange(0, num_contexts(model), _CONTEXTS_PER_PIECE, dtype=jnp.int32))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), pieces)
