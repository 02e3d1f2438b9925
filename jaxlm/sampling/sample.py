"""Sample text from a language model: check the arguments, and call `generate` in blocks of one length."""

import collections
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from jaxlm._types import Device, IntBN, IntBT, IntT, Variables
from jaxlm.devices.selection import resolve_device
from jaxlm.models.interface import LanguageModel, num_params
from jaxlm.sampling.distributions import Options
from jaxlm.sampling.generate import TableLM, compute_table, generate_block, is_table_worthwhile, resolve_options
from jaxlm.text.batching import as_integers, check_ids
from jaxlm.utils.checks import check_at_least, check_not_traced
from jaxlm.utils.keys import check_key

# Tokens per stream and compiled call. With blocks of 64, 128, 256 and 512, a token of the MLP takes 43, 40, 35 and
# 36 us in a sample of 1,000, and one of the counts bigram 28, 34, 34 and 54 us in a sample of 200 (V = 4096).
BLOCK_LENGTH = 256
# A block can take as little as waking up the host: with only one or two blocks in flight, the device idles.
_BLOCKS_AHEAD = 4
_MAX_IDS_PER_BLOCK = 2**18  # of all streams


def sample(
    model: LanguageModel,
    variables: Variables,
    prompt_ids: ArrayLike,
    num_tokens: int,
    *,
    key: Array,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    device: Device = "auto",
) -> IntT | IntBT:
    """Continue a prompt by `num_tokens` tokens, each sampled given the tokens before it.

    Host function; not for use inside `jit`: use `generate` there.

    Token t of stream b is the first whose cumulative probability exceeds u[b], where
    `u = jax.random.uniform(jax.random.fold_in(key, t), (B,))`. With `top_k` or `top_p`, tokens are sorted by
    probability first. So the same key gives the same ids, and a longer sample starts with the shorter one.
    (Exception: long samples of a small model use a table of all contexts, whose probabilities can differ in the
    last bit.)

    Args:
        prompt_ids: integers [P] or [B, P], P >= N.
        temperature: divides the logits; 0 takes the most likely token, the first of equals.
        top_k: keep only the k most likely tokens; None, or at least V, keeps all.
        top_p: in (0, 1]; keep the smallest set of most likely tokens whose probabilities sum to at least `top_p`
            (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration"); None, or 1, keeps all.

    Returns:
        int32 [P + num_tokens] or [B, P + num_tokens], starting with the prompt.

    Raises:
        ValueError: an argument is out of range, the prompt is shorter than N, or no token has any probability
            (counts without smoothing after an unseen token, or NaN logits).

    >>> from jaxlm import CountsBigramLM, init
    >>> model = CountsBigramLM(3, smoothing=0)
    >>> variables = model.fit(init(model, jax.random.key(0)), [0, 1, 2, 0])
    >>> sample(model, variables, [0], 4, key=jax.random.key(1)).tolist()
    [0, 1, 2, 0, 1]
    """
    options: Any = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "device": device}
    blocks = sample_stream(model, variables, prompt_ids, num_tokens, key=key, **options)  # checks the arguments
    ids = np.concatenate([np.asarray(as_integers(prompt_ids), np.int32), *blocks], axis=-1)
    return jax.device_put(ids, resolve_device(device, num_weights=num_params(variables)))


def sample_stream(
    model: LanguageModel,
    variables: Variables,
    prompt_ids: ArrayLike,
    num_tokens: int,
    *,
    key: Array,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    device: Device = "auto",
) -> Iterator[NDArray[np.int32]]:
    """Yield the tokens of `sample` after the prompt in blocks, as they are generated.

    Host function; not for use inside `jit`: use `generate` there. Arguments and errors are those of `sample`. The
    call checks the arguments; an error about probabilities is raised by the block in which it occurs.

    Yields:
        int32 [n] for a prompt [P], [B, n] for [B, P]; n is 256, or less at the end and for more than 1024 streams.

    >>> from jaxlm import UniformLM
    >>> [len(block) for block in sample_stream(UniformLM(5), {}, [0], 300, key=jax.random.key(0))]
    [256, 44]
    """
    check_not_traced("sample", "generate", variables, prompt_ids, key, temperature, top_k, top_p)
    check_at_least("num_tokens", num_tokens, 0)
    key, options = check_key(key), resolve_options(model, temperature, top_k, top_p)
    prompt = np.array(check_ids(prompt_ids, model.vocab_size, name="prompt"))
    if prompt.ndim not in (1, 2) or prompt.shape[-1] < model.context_length:
        wanted = f"[P] or [B, P] with P >= context_length={model.context_length}"
        raise ValueError(f"prompt must have shape {wanted}, got {list(prompt.shape)}")
    context = np.atleast_2d(prompt)[:, prompt.shape[-1] - model.context_length :]
    device = resolve_device(device, num_weights=num_params(variables))
    variables, context, key = jax.device_put((variables, context, key), device)
    blocks = _generate_blocks(model, variables, context, int(num_tokens), key, options)
    return blocks if prompt.ndim == 2 else (block[0] for block in blocks)


def _generate_blocks(
    model: LanguageModel, variables: Any, context: IntBN, num_tokens: int, key: Array, options: Options | None
) -> Iterator[NDArray[np.int32]]:
    """Yield the tokens after each context in blocks. Raise a ValueError at the first token -1."""
    length = min(BLOCK_LENGTH, max(_MAX_IDS_PER_BLOCK // max(len(context), 1), 1))
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        length = max(num_tokens, 1)  # nothing is compiled, so the exact length is best
    num_ids = max(num_tokens, length) * len(context)
    if options is not None and is_table_worthwhile(model, options, num_ids):
        variables, options = compute_table(model, variables, options), None
        model = TableLM(model.vocab_size, model.context_length)

    def start_blocks(context: IntBN) -> Iterator[tuple[int, IntBN, IntBT]]:
        for start in range(0, num_tokens, length):
            after, tokens = generate_block(model, variables, context, key, start, options, length)
            yield start, context, tokens
            context = after

    blocks = start_blocks(context)
    in_flight = collections.deque(itertools.islice(blocks, _BLOCKS_AHEAD))
    while in_flight:
        start, context, tokens = in_flight.popleft()
        in_flight.extend(itertools.islice(blocks, 1))
        block = np.array(tokens)[:, : num_tokens - start]
        if (block < 0).any():
            column, row = np.argwhere(block.T < 0)[0]
            before = [*context[row].tolist(), *block[row].tolist()][column:][: context.shape[1]]
            raise ValueError(
                f"no token has any probability after {before} (drawing token {start + column}, stream {row}): the "
                "logits are -inf or NaN; counts need smoothing > 0, a network needs finite variables"
            )
        yield block
