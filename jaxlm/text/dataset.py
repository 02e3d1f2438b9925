"""Load a text, encode it, and split the ids for training and validation."""

import os
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from jaxlm.text.batching import split_ids
from jaxlm.text.corpora import Corpus, load_corpus, read_text
from jaxlm.text.tokenizer_files import make_tokenizer
from jaxlm.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Dataset:
    """A corpus, its tokenizer, and its ids for training and validation, int32 [T] each."""

    corpus: Corpus
    tokenizer: Tokenizer
    train_ids: NDArray[Any]
    val_ids: NDArray[Any]

    @property
    def val_bytes_per_token(self) -> float:
        """Mean number of UTF-8 bytes per validation token, for `bits_per_byte`."""
        return len(self.tokenizer.decode_bytes(self.val_ids)) / len(self.val_ids)


def load_dataset(
    corpus: str,
    text: str | os.PathLike[str] | None,
    tokenizer: Literal["char", "byte", "bpe"] | os.PathLike[str] | Tokenizer,
    *,
    vocab_size: int | None = None,
    val_fraction: float = 0.1,
    min_tokens: int = 2,
) -> Dataset:
    """Load a text, encode it, and split the ids by position with `split_ids`.

    Args:
        tokenizer: a tokenizer, the path of a saved one, or the kind to train on the whole text.
        vocab_size: size of the BPE tokenizer to train.
        min_tokens: least number of tokens in each part, for example one window of the largest model.
    """
    source = load_corpus(corpus) if text is None else read_text(text)
    tokenizer = make_tokenizer(tokenizer, [source.text], vocab_size)
    ids = tokenizer.encode(source.text)
    parts = split_ids(ids, val_fraction)
    if (shorter := min(map(len, parts))) < min_tokens:
        problem = f"the shorter of its training and validation parts has {shorter} and needs {min_tokens}"
        raise ValueError(f"{source.source} has {len(ids)} tokens; {problem}: use a longer text")
    return Dataset(source, tokenizer, *parts)


def line_start_prompt(data: Dataset, num_tokens: int) -> NDArray[Any]:
    """Return the first `num_tokens` ids of the first complete line of the validation text.

    If no line starts within 1,000 tokens, return the first ids of the text.
    """
    starts = data.val_ids[: len(data.val_ids) - num_tokens][:1000]
    for position, token in enumerate(starts, 1):
        if data.tokenizer.decode([token]).endswith("\n"):
            return data.val_ids[position : position + num_tokens]
    return data.val_ids[:num_tokens]
