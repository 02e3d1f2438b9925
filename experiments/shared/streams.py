"""Streams of tokens that are made up, for experiments that time rather than learn."""

from typing import Any

import numpy as np


def zipf_ids(vocab_size: int, num_tokens: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """`num_tokens` independent tokens, int32: token r with a probability that goes by 1 / (r + 1)."""
    shares = 1 / np.arange(1, vocab_size + 1)
    uniform = np.random.default_rng(seed).random(num_tokens)
    ids = np.searchsorted(np.cumsum(shares) / shares.sum(), uniform)
    return ids.clip(max=vocab_size - 1).astype(np.int32)
