"""Sample text from a language model."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxlm.devices.selection import resolve_device
from jaxlm.models.interface import LanguageModel, num_params
from jaxlm.sampling.generate import generate_tokens, is_table_worthwhile, tabulate_distributions
from jaxlm.text.batching import check_ids
from jaxlm.utils.checks import check_at_least

# In one call of the compiled loop.
_MAX_TOKENS_PER_CALL = 1024  # per stream
_MAX_IDS_PER_CALL = 2**18  # of all streams

_TINY = float(np.finfo(np.float32).tiny)  # float32 flushes smaller numbers to zero


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
    """Continue a prompt by `num_tokens` tokens, each sampled given the tokens before it.

    Host function; not for use inside `jit`.

    Token t of the B streams inverts their cumulative distributions at the numbers
    `jax.random.uniform(jax.random.fold_in(key, t), (B,))`. So the same key gives the same ids, and a longer sample
    starts with the shorter one. (V^N tokens or more come from a table of all contexts, computed once, whose logits
    may differ in the last bit.)

    Args:
        prompt_ids: integers [P] or [B, P], P >= N.
        temperature: divides the logits; 0 takes the most likely token, the first of equals.
        top_k: keep only the k most likely tokens; None, or at least V, keeps all.
        top_p: in (0, 1]; then keep the fewest most likely tokens that hold this share of the probability (Holtzman
            et al. 2020, "The Curious Case of Neural Text Degeneration"); None, or 1, keeps all.

    Returns:
        int32 [P + num_tokens] or [B, P + num_tokens], starting with the prompt.

    Raises:
        ValueError: no token has any probability (counts without smoothing after an unseen token, or NaN logits).

    >>> from jaxlm import CountsBigramLM, init
    >>> model = CountsBigramLM(3, smoothing=0)
    >>> variables = model.fit(init(model, jax.random.key(0)), [0, 1, 2, 0])
    >>> sample(model, variables, [0], 4, key=jax.random.key(1)).tolist()
    [0, 1, 2, 0, 1]
    """
    target_device = resolve_device(device, num_weights=num_params(variables))
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "device": target_device}
    pieces = sample_stream(model, variables, prompt_ids, num_tokens, key=key, **options)
    prompt = np.asarray(prompt_ids, np.int32)  # checked by `sample_stream`
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
    """Yield the tokens of `sample` after the prompt in pieces, as they are generated.

    Host function; not for use inside `jit`. Arguments and errors are those of `sample`. The call checks the
    arguments; an error about probabilities is raised by the piece in which it occurs.

    Args:
        tokens_per_piece: at least 1; None means the maximum, 1024, or fewer for more than 256 streams. The tokens
            do not depend on it.

    Yields:
        int32 [n] for a prompt [P], [B, n] for [B, P].

    >>> from jaxlm import UniformLM
    >>> pieces = sample_stream(UniformLM(5), {}, [0], 7, key=jax.random.key(0), tokens_per_piece=4)
    >>> [len(piece) for piece in pieces]
    [4, 3]
    """
    check_at_least("num_tokens", num_tokens, 0)
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be finite and at least 0 (0 is greedy), got {temperature}")
    if top_k is not None:
        check_at_least("top_k", top_k, 1)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1] (None keeps all tokens), got {top_p}")
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
    contexts = prompts[:, prompt_length - model.context_length :].copy()  # the caller may change the prompt
    target_device = resolve_device(device, num_weights=num_params(variables))
    options = {
        "temperature": float(temperature),
        "top_k": None if top_k is None or top_k >= model.vocab_size else top_k,
        "top_p": None if top_p is None or top_p == 1 else max(float(top_p), _TINY),
    }
    pieces = _generate_pieces(
        model, variables, contexts, num_tokens, key, tokens_per_piece, target_device, options
    )
    return pieces if prompt.ndim == 2 else (piece[0] for piece in pieces)


def _generate_pieces(
    model: LanguageModel,
    variables: Any,
    contexts: np.ndarray[Any, Any],
    num_tokens: int,
    key: Array,
    tokens_per_piece: int | None,
    device: jax.Device,
    options: dict[str, Any],
) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the tokens after contexts [B, N] in pieces [B, n]."""
    greedy = options["temperature"] < _TINY
    is_ranked = options["top_k"] is not None or options["top_p"] is not None
    previous = contexts[:, -1:]
    variables, key, window = jax.device_put((variables, key, contexts), device)
    options |= jax.device_put({name: options[name] for name in ("temperature", "top_p")}, device)
    table = None
    if not greedy and is_table_worthwhile(model, num_tokens * len(contexts), is_ranked=is_ranked):
        table = tabulate_distributions(model, variables, **options)
    max_tokens = min(_MAX_TOKENS_PER_CALL, max(_MAX_IDS_PER_CALL // max(len(contexts), 1), 1))
    piece_size = min(tokens_per_piece or max_tokens, max_tokens)
    for start in range(0, num_tokens, piece_size):
        size = min(num_tokens - start, piece_size)
        numbers = jax.device_put((start, size), device)
        window, tokens = generate_tokens(
            model, variables, table, window, key, *numbers, max_tokens, greedy=greedy, **options
        )
        piece = jax.device_get(tokens)[:size].T.copy()
        if (piece < 0).any():
            row, column = np.argwhere(piece < 0)[0]
            before = np.concatenate([previous[row], piece[row, :column]])  # empty if the context is
            after = f" after token {before[-1]}" if before.size else ""
            raise ValueError(
                f"no token has any probability{after} (drawing token {start + column}, stream {row}): the logits "
                "are -inf or NaN; counts need smoothing > 0, a network needs finite variables"
            )
        previous = piece[:, -1:]
        yield piece
