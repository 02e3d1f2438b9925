"""`jaxlm sample`."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jaxlm
from jaxlm.cli.shared import Console, DeviceOptions, open_model
from jaxlm.utils.terminal import make_console, write


@dataclass(frozen=True)
class SampleOptions(DeviceOptions):
    """Sample text from a trained model."""

    # Text to continue. Padded on the left with line ends if it is shorter than the model's context.
    # Use --prompt=TEXT if it starts with a dash.
    prompt: str = ""
    num_tokens: int = 200  # Number of tokens to sample after the prompt.
    # Divisor of the logits: below 1 sharpens the distribution, 0 selects the likeliest token.
    temperature: float = 1.0
    top_k: int | None = None  # Sample only from the k most likely tokens.
    # Sample only from the smallest set of most likely tokens with at least this total probability, in (0, 1].
    top_p: float | None = None
    streams: int = 1  # Number of texts to sample.
    seed: int = 0  # Seed of all random numbers, in [0, 2**32 - 1].


def sample_text(options: SampleOptions, console: Console) -> dict[str, Any]:
    """Sample texts from a model and print them. The device is printed to standard error."""
    import jax
    import numpy as np

    from jaxlm.runs.own import limit_tokens
    from jaxlm.runs.setup import SAMPLE_FOLD
    from jaxlm.text.dataset import padding_id

    streams = options.streams
    if streams < 1 or not 0 <= options.seed < 2**32:
        ranges = f"streams must be at least 1 and seed in [0, {2**32 - 1}]"
        raise ValueError(f"{ranges}, got {streams} and {options.seed}")
    model, variables, tokenizer, device = open_model(options, make_console(stderr=True))
    model = limit_tokens(model, tokenizer.vocab_size)  # a padded vocabulary has ids without a token
    prompt_ids = tokenizer.encode(options.prompt)
    num_missing = max(model.context_length - len(prompt_ids), 0)
    padding = np.full(num_missing, padding_id(tokenizer), np.int32)
    prompts = np.tile(np.concatenate([padding, prompt_ids]), (streams, 1))
    key = jax.random.fold_in(jax.random.key(options.seed), SAMPLE_FOLD)
    limits: dict[str, Any] = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    blocks = jaxlm.sample_stream(model, variables, prompts, options.num_tokens, key=key, device=device, **limits)
    if streams == 1:
        blocks = _write_blocks(blocks, options.prompt, tokenizer, console)
    ids = np.concatenate([np.tile(prompt_ids, (streams, 1)), *blocks], axis=1)
    texts = tokenizer.decode(ids)
    if streams > 1:
        for number, text in enumerate(texts, 1):
            write(console, f"--- {number} ---\n{text}\n")
    return {"model": str(options.model), "prompt": options.prompt, "samples": texts, "ids": ids.tolist()}


def _write_blocks(blocks: Iterator[Any], prompt: str, tokenizer: Any, console: Console) -> Iterator[Any]:
    """Write the text of each block [1, n], then yield the block. Never write part of a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    write(console, prompt)
    try:
        for block in blocks:
            write(console, decoder.decode(tokenizer.decode_bytes(block[0])))
            yield block
    finally:  # an error message must start on a new line
        write(console, decoder.decode(b"", final=True) + "\n")
