"""Load a text, encode it, and split the ids for training and validation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxlm.text.batching import split_ids
from jaxlm.text.corpora import Corpus, load_corpus, read_text
from jaxlm.text.tokenizers import Tokenizer, train_tokenizer


@dataclass(frozen=True)
class Dataset:
    """A corpus, its tokenizer, and its ids for training and validation, int32 [T] each."""

    corpus: Corpus
    tokenizer: Tokenizer
    train_ids: np.ndarray[Any, Any]
    val_ids: np.ndarray[Any, Any]

    @property
    def val_bytes_per_token(self) -> float:
        """Mean number of UTF-8 bytes per validation token, for `bits_per_byte`."""
        return len(self.tokenizer.decode_bytes(self.val_ids)) / len(self.val_ids)


def load_dataset(
    corpus: str,
    text: Path | None,
    tokenizer: Literal["char", "byte", "bpe"] | Tokenizer,
    *,
    vocab_size: int | None = None,
    val_fraction: float = 0.1,
    min_tokens: int = 2,
) -> Dataset:
    """Load a text, encode it, and split the ids by position with `split_ids`.

    Args:
        corpus: name of a corpus, used if `text` is None.
        text: path of a UTF-8 file.
        tokenizer: a trained tokenizer, or the kind of tokenizer to train on the whole text.
        vocab_size: size of a BPE tokenizer to train.
        val_fraction: in (0, 1).
        min_tokens: minimum length of each part, for example one window of the largest model.
    """
    source = load_corpus(corpus) if text is None else read_text(text)
    trained = train_tokenizer(tokenizer, source.text, vocab_size) if isinstance(tokenizer, str) else tokenizer
    ids = trained.encode(source.text)
    train_ids, val_ids = split_ids(ids, val_fraction)
    if (shorter := min(len(train_ids), len(val_ids))) < min_tokens:
        raise ValueError(
            f"{source.source} has {len(ids)} tokens; the shorter of its training and validation parts has "
            f"{shorter} and needs {min_tokens}: use a longer text"
        )
    return Dataset(source, trained, train_ids, val_ids)


def line_start_prompt(data: Dataset, num_tokens: int) -> np.ndarray[Any, Any]:
    """Return the start of the first complete line of the validation text; of the text if no line starts nearby."""
    starts = data.val_ids[: len(data.val_ids) - num_tokens][:1000]
    for position, token in enumerate(starts, 1):
        if data.tokenizer.decode([token]).endswith("\n"):
            return data.val_ids[position : position + num_tokens]
    return data.val_ids[:num_tokens]
