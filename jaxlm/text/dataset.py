"""Load a text, encode it, and split the ids for training and validation."""

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from jaxlm.text.batching import split_ids
from jaxlm.text.corpora import Corpus, load_corpus, read_text
from jaxlm.text.open_tokens import open_tokens
from jaxlm.text.pieces import cut_text
from jaxlm.text.token_stream import TokenStream
from jaxlm.text.tokenizer_files import make_tokenizer
from jaxlm.text.tokenizers import BPETokenizer, Tokenizer
from jaxlm.utils.atomic_files import expand
from jaxlm.utils.json_files import file_sha256
from jaxlm.utils.terminal import track

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Dataset:
    """A corpus, its tokenizer, and its ids for training and validation, [T] each: int32 arrays or streams."""

    corpus: Corpus
    tokenizer: Tokenizer
    train_ids: Any
    val_ids: Any

    @functools.cached_property
    def val_bytes_per_token(self) -> float:
        """Mean number of UTF-8 bytes per validation token, for `bits_per_byte`."""
        return count_bytes(self.tokenizer, self.val_ids) / len(self.val_ids)


def load_dataset(
    corpus: str,
    text: str | os.PathLike[str] | None,
    tokenizer: Literal["char", "byte", "bpe"] | os.PathLike[str] | Tokenizer,
    *,
    tokens: str | os.PathLike[str] | None = None,
    vocab_size: int | None = None,
    val_fraction: float = 0.1,
    min_tokens: int = 2,
    console: "Console | None" = None,
) -> Dataset:
    """Load a text, encode it, and split the ids by position with `split_ids`.

    Args:
        tokenizer: a tokenizer, the path of a saved one, or the kind to train on the whole text.
        tokens: an encoded text to use instead; see `open_tokens`. Its tokenizer replaces a kind
            or a path, and a tokenizer object must equal it.
        vocab_size: size of the BPE tokenizer to train.
        min_tokens: least number of tokens in each part, for example one window of the largest model.
        console: where to show the progress.
    """
    ids: Any
    source, ids = open_source(corpus, text, tokens, console=console)
    if ids is None:
        size = 2**20
        parts = ((source.text[begin : begin + size], size) for begin in range(0, len(source.text), size))
        tokenizer = make_tokenizer(tokenizer, track(console, "training", parts, len(source.text)), vocab_size)
        ids = encode_text(tokenizer, source.text, console)
    else:
        tokenizer = ids.tokenizer if isinstance(tokenizer, str | os.PathLike) else tokenizer
        check_encoded_by(tokenizer, ids, source.source)
        if tokenizer is None:
            raise ValueError(f"{source.source} has no tokenizer; make it with jaxlm encode, or pass a tokenizer")
    split = split_ids(ids, val_fraction)
    if (shorter := min(map(len, split))) < min_tokens:
        problem = f"the shorter of its training and validation parts has {shorter} and needs {min_tokens}"
        raise ValueError(f"{source.source} has {len(ids)} tokens; {problem}: use a longer text")
    return Dataset(source, tokenizer, *split)


def open_source(
    corpus: str,
    text: str | os.PathLike[str] | None,
    tokens: str | os.PathLike[str] | None,
    *,
    verify: bool = True,
    console: "Console | None" = None,
) -> tuple[Corpus, TokenStream | None]:
    """Open the encoded text `tokens`, or else load `text`, or else the named corpus, without a stream.

    The corpus of an encoded text has its name, path and checksum, but no text. `verify` is that of `open_tokens`.
    """
    if tokens is None:
        return load_corpus(corpus) if text is None else read_text(text, console=console), None
    path = expand(tokens)
    stream = open_tokens(path, verify=verify)
    index = path / "index.json"  # which has the checksums of the ids
    return Corpus(path.name, "", str(path), "unknown", file_sha256(index if index.exists() else path)), stream


def check_encoded_by(tokenizer: Tokenizer | None, stream: TokenStream, origin: str) -> None:
    """Raise a ValueError that names `origin` if another tokenizer encoded the stream."""
    if stream.tokenizer not in (None, tokenizer):
        raise ValueError(f"{origin} was encoded by another tokenizer; encode its text with the one of the model")


def encode_text(tokenizer: Tokenizer, text: str, console: "Console | None") -> NDArray[Any]:
    """Return the ids of a text, and show the progress."""
    if not isinstance(tokenizer, BPETokenizer):
        return tokenizer.encode(text)
    pieces = ((piece, len(piece)) for piece in cut_text([text]))
    return tokenizer.encode_pieces(track(console, "encoding", pieces, len(text)))


def count_bytes(tokenizer: Tokenizer, ids: Any) -> int:
    """Return the number of UTF-8 bytes of ids [T], which may be a stream."""
    parts = (ids[begin : begin + 2**20] for begin in range(0, len(ids), 2**20))
    return sum(len(tokenizer.decode_bytes(np.asarray(part))) for part in parts)


def padding_id(tokenizer: Tokenizer) -> int:
    """Return the id that pads a short prompt: the last one of a line end, or 0 if that cannot be encoded."""
    try:
        return int(tokenizer.encode("\n")[-1])
    except ValueError:  # a character tokenizer of a text without line ends
        return 0


def line_start_prompt(data: Dataset, num_tokens: int) -> NDArray[Any]:
    """Return the first `num_tokens` ids of the first complete line of the validation text.

    If no line starts within 1,000 tokens, return the first ids of the text.
    """
    ids = np.asarray(data.val_ids[: 1000 + num_tokens])
    starts = ids[: len(ids) - num_tokens]
    for position, token in enumerate(starts, 1):
        if data.tokenizer.decode([token]).endswith("\n"):
            return ids[position : position + num_tokens]
    return ids[:num_tokens]
