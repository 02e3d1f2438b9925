"""One text as every model of a run sees it: corpus, tokenizer, the ids to train on, the ids to validate on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxlm.text.batching import split_ids
from jaxlm.text.corpora import Corpus, load_corpus, read_text
from jaxlm.text.tokenizers import Tokenizer, train_tokenizer


@dataclass(frozen=True)
class Dataset:
    """A text, its tokenizer, and its ids: int32 [T] to train on, int32 [T'] to validate on."""

    corpus: Corpus
    tokenizer: Tokenizer
    train_ids: np.ndarray[Any, Any]
    val_ids: np.ndarray[Any, Any]

    @property
    def val_bytes_per_token(self) -> float:
        """Bytes of the validation text for each of its tokens, as `bits_per_byte` wants them."""
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
    """Text -> tokenizer -> ids -> the part that trains and, by position the last, the part that validates.

    Args:
        corpus: a named corpus, for `text` None.
        tokenizer: one that is trained already, or the kind of one that is trained on the whole text.
        vocab_size: of a BPE tokenizer that is trained here.
        min_tokens: what each of the two parts must hold, a window of the largest model.

    Raises:
        OSError, ValueError: the text cannot be had, or is too short.
    """
    source = load_corpus(corpus) if text is None else read_text(text)
    trained = train_tokenizer(tokenizer, source.text, vocab_size) if isinstance(tokenizer, str) else tokenizer
    ids = trained.encode(source.text)
    if len(ids) < 2:
        raise ValueError(
            f"{source.source} makes {len(ids)} token; a model needs one to train on and one to validate"
        )
    train_ids, val_ids = split_ids(ids, val_fraction)
    shorter = min(len(train_ids), len(val_ids))
    if shorter < min_tokens:
        raise ValueError(
            f"{source.source} has {len(ids)} tokens; of its parts to train and to validate the shorter has "
            f"{shorter}, and needs {min_tokens}: use a longer text"
        )
    return Dataset(source, trained, train_ids, val_ids)


def line_start_prompt(data: Dataset, num_tokens: int) -> np.ndarray[Any, Any]:
    """The first tokens of a line of the validation text, where a sample reads well; else of the text."""
    starts = data.val_ids[: len(data.val_ids) - num_tokens][:1000]
    for position, token in enumerate(starts, 1):
        if data.tokenizer.decode([token]).endswith("\n"):
            return data.val_ids[position : position + num_tokens]
    return data.val_ids[:num_tokens]
