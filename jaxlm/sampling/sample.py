"""Sample text from a language model: check the arguments, and call `generate` in blocks of one length."""

import collections
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from jaxlm._types import Device, IntBN, IntBT, IntT, Variables
from jaxlm.devices.selection import resolve_device
from jaxlm.models.interface import LanguageModel, num_contexts, num_params
from jaxlm.models.jit import jit_model
from jaxlm.sampling.distributions import BLOCK_SIZE, TINY
from jaxlm.sampling.generate import generate, tabulate
from jaxlm.text.batching import check_ids
from jaxlm.utils.checks import check_at_least, check_not_traced, check_number
from jaxlm.utils.keys import check_key

# Tokens per stream and compiled call. A token from a table at V = 4096 takes 5.1 us in blocks of 64, 3.5 us in
# blocks of 128, 2.4 us in blocks of 512 (2 CPU cores). But the shortest sample computes a whole block.
BLOCK_LENGTH = 256
# With one or two, the device waits for the host: a block takes 0.3 ms, the host's wake-up as long.
_BLOCKS_AHEAD = 4
_MAX_IDS_PER_BLOCK = 2**18  # of all streams
_MAX_TABLE_SIZE = 40 * 2**20  # numbers, 160 MiB: enough for a bigram at V = 4096 with ranked tokens


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

    Token t of the B streams inverts their cumulative distributions at the numbers
    `jax.random.uniform(jax.random.fold_in(key, t), (B,))`. So the same key gives the same ids, and a longer sample
    starts with the shorter one. (Long samples of a small model come from a table of all contexts, computed once,
    whose logits may differ in the last bit.)

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
    blocks = sample_stream(model, variables, prompt_ids, num_tokens, key=key, **options)
    prompt = np.asarray(prompt_ids, np.int32)  # checked by `sample_stream`
    return jax.device_put(np.concatenate([prompt, *blocks], axis=-1), target_device)


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
    check_not_traced("sample", "generate", variables, prompt_ids, key)
    key = check_key(key)
    check_at_least("num_tokens", num_tokens, 0)
    if not 0 <= (temperature := check_number("temperature", temperature)) < math.inf:
        raise ValueError(f"temperature must be finite and at least 0 (0 is greedy), got {temperature}")
    if top_k is not None:
        check_at_least("top_k", top_k, 1)
        top_k = int(top_k) if top_k < model.vocab_size else None
    if top_p is not None and not 0 < (top_p := check_number("top_p", top_p)) <= 1:
        raise ValueError(f"top_p must be in (0, 1] (None keeps all tokens), got {top_p}")
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
    options = {
        "temperature": min(temperature, 1 / TINY),
        "top_k": top_k,
        "top_p": None if top_p == 1 or top_p is None else max(top_p, TINY),
    }
    target_device = resolve_device(device, num_weights=num_params(variables))
    variables, context, key = jax.device_put((variables, contexts, key), target_device)
    blocks = _generate_blocks(model, variables, context, key, int(num_tokens), **options)
    return blocks if prompt.ndim == 2 else (block[0] for block in blocks)


@functools.partial(jit_model, static_argnames=("num_tokens", "top_k"))
def generate_block(
    model: LanguageModel, variables: Variables, context: IntBN, *, num_tokens: int, **options: Any
) -> tuple[IntBN, IntBT]:
    """Return the context after `generate`, and its tokens."""
    tokens = generate(model, variables, context, num_tokens=num_tokens, **options)
    return jnp.concatenate([context, tokens], axis=1)[:, num_tokens:], tokens


def is_table_worthwhile(model: LanguageModel, num_ids: int, *, is_ranked: bool) -> bool:
    """Return whether a table of all contexts takes at most half of `num_ids` predictions, and fits in memory."""
    row_size = int(model.vocab_size) * (2 if is_ranked else 1) + 2 * BLOCK_SIZE  # with padding and block sums
    return 2 * num_contexts(model) <= num_ids and num_contexts(model) * row_size <= _MAX_TABLE_SIZE


def _generate_blocks(
    model: LanguageModel, variables: Variables, context: IntBN, key: Array, num_tokens: int, **options: Any
) -> Iterator[NDArray[np.int32]]:
    """Yield the tokens after each context in blocks. Raise a ValueError in a block with a token -1."""
    is_ranked = options["top_k"] is not None or options["top_p"] is not None
    length = min(BLOCK_LENGTH, max(_MAX_IDS_PER_BLOCK // max(len(context), 1), 1))
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        length = max(num_tokens, 1)  # no length compiles a program, and a token takes milliseconds
    num_ids = max(num_tokens, length) * len(context)
    if options["temperature"] > 0 and is_table_worthwhile(model, num_ids, is_ranked=is_ranked):
        (model, variables), options = tabulate(model, variables, **options), {}
    options = {**options, "key": key, "num_tokens": length}

    def start_blocks(context: IntBN) -> Iterator[tuple[int, IntBT]]:
        for start in range(0, num_tokens, length):
            context, tokens = generate_block(model, variables, context, start=start, **options)
            yield start, tokens

    blocks, previous = start_blocks(context), np.asarray(context)[:, -1:]
    started = collections.deque(itertools.islice(blocks, _BLOCKS_AHEAD))
    while started:
        start, tokens = started.popleft()
        started.extend(itertools.islice(blocks, 1))
        block = np.asarray(tokens)[:, : num_tokens - start]
        if (block < 0).any():
            column, row = np.argwhere(block.T < 0)[0]
            before = np.concatenate([previous[row], block[row, :column]])  # empty if the context is
            after = f" after token {before[-1]}" if before.size else ""
            raise ValueError(
                f"no token has any probability{after} (drawing token {start + column}, stream {row}): the logits "
                "are -inf or NaN; counts need smoothing > 0, a network needs finite variables"
            )
        previous = block[:, -1:]
        yield block.copy()
