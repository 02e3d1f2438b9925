"""Encode text as token ids and decode it: characters, bytes, or byte-level BPE."""

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jaxlm.text.bpe import BYTE_OF_CHARACTER, Merges, learn_merges, make_encoding
from jaxlm.text.pieces import PIECE_LENGTH, cut_text
from jaxlm.utils.atomic_files import expand, write_atomically
from jaxlm.utils.workers import DaemonExecutor, map_ahead

if TYPE_CHECKING:
    import tiktoken
    from numpy.typing import ArrayLike

    from jaxlm._types import NpIntT


class Tokenizer(Protocol):
    """Encode text as ids in [0, vocab_size), and decode them.

    >>> tokenizer: Tokenizer = ByteTokenizer()
    >>> tokenizer.decode(tokenizer.encode("hello"))
    'hello'
    """

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""

    def encode(self, text: str) -> "NpIntT":
        """Return the ids of `text`, int32 [T]."""

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        """Return the bytes of `ids` [T], which may start or end within a character."""

    def decode(self, ids: "ArrayLike") -> Any:
        """Return the text of `ids` [T], a string, or a list of the B texts of `ids` [B, T].

        Lists of different lengths are allowed. Invalid UTF-8, which sampling can produce, becomes U+FFFD.
        """
        rows: Any = ids if isinstance(ids, list | tuple) else np.atleast_1d(ids)
        if isinstance(rows, np.ndarray) and rows.dtype == object:  # such as a column of lists in pandas
            rows = rows.tolist()
        if np.ndim(rows[:1]) == 2:
            return [self.decode(row) for row in rows]
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file that `load_tokenizer` reads."""
        from jaxlm.text.tokenizer_files import tokenizer_to_json  # which imports this module

        write_atomically(expand(path), tokenizer_to_json(self), parents=True)


@dataclass(frozen=True)
class CharTokenizer(Tokenizer):
    """One token per character of the training text, ordered by code point.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.encode("hole"), tokenizer.decode([1, 0])
    (array([1, 3, 2, 0], dtype=int32), 'he')
    """

    characters: str

    def __post_init__(self) -> None:
        if not self.characters or self.characters != "".join(sorted(set(self.characters))):
            raise ValueError("characters must be at least one, distinct, and ordered by code point")
        _to_utf8(self.characters)

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """Use the distinct characters of `text`. Raises a ValueError if it is empty or not encodable as UTF-8."""
        _check_text(text)
        return cls("".join(sorted(set(text))))

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> "NpIntT":
        """Return ids, int32 [T]. Raises a ValueError that names a character outside of the vocabulary."""
        ids = np.empty(len(text), np.int32)
        for begin in range(0, len(text), PIECE_LENGTH):
            piece = text[begin : begin + PIECE_LENGTH]
            codes = np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)
            ids[begin : begin + PIECE_LENGTH] = self._id_of_code.take(codes, mode="clip")
        if (unknown := ids < 0).any():
            position = int(unknown.argmax())
            problem = f"character {text[position]!r} at position {position} is not among the"
            remedy = "train it on text that has it, or use a byte tokenizer"
            raise ValueError(f"{problem} {self.vocab_size} of this tokenizer; {remedy}")
        return ids

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        return "".join(self.characters[token] for token in _check_decodable(ids, self.vocab_size)).encode()

    @functools.cached_property
    def _id_of_code(self) -> "NpIntT":
        """The id of each code point up to one above the largest in the vocabulary; -1 if it is not there."""
        codes = np.frombuffer(self.characters.encode("utf-32-le"), np.uint32)
        ids = np.full(int(codes[-1]) + 2, -1, np.int32)
        ids[codes] = np.arange(len(codes))
        return ids


@dataclass(frozen=True)
class ByteTokenizer(Tokenizer):
    """One token per byte of the text as UTF-8: a vocabulary of 256 for any text.

    >>> ByteTokenizer().encode("é")
    array([195, 169], dtype=int32)
    """

    vocab_size = 256

    def encode(self, text: str) -> "NpIntT":
        return np.frombuffer(_to_utf8(text), np.uint8).astype(np.int32)

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        return _check_decodable(ids, self.vocab_size).astype(np.uint8).tobytes()


@dataclass(frozen=True)
class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding: one token for each of the 256 bytes, and one for each merged pair.

    The merges are learned by the `tokenizers` library and applied by `tiktoken`, with GPT-2's pattern of words and
    its alphabet of bytes (Radford et al. 2019). Sennrich et al. (2016), "Neural Machine Translation of Rare Words
    with Subword Units".

    Args:
        merges: pairs of tokens in the order in which they were learned.
        training: how `train` learned the merges; see `learn_merges`.

    >>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=258)
    >>> tokenizer.merges, tokenizer.vocab_size
    ((('l', 'o'), ('lo', 'w')), 258)
    """

    merges: Merges
    training: dict[str, int] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        known = set(BYTE_OF_CHARACTER)
        for first, second in self.merges:
            if first not in known or second not in known:
                raise ValueError(f"merge {first!r} + {second!r} uses a token that no earlier merge makes")
            known.add(first + second)

    @classmethod
    def train(cls, text: str, vocab_size: int) -> "BPETokenizer":
        """Learn merges until there are `vocab_size` tokens, at least 256, or no pair is left to merge.

        Words of more than 1,000 characters are cut. If the text has more than 2**26 characters, the merges are
        learned on a random sample of that size, the same each time.
        """
        _check_text(text)
        return cls.train_from_blocks([text], vocab_size)

    @classmethod
    def train_from_blocks(cls, blocks: Iterable[str], vocab_size: int) -> "BPETokenizer":
        """Learn merges as `train` does, from a text in consecutive parts of any size."""
        if vocab_size < 256:
            raise ValueError(f"vocab_size must be at least 256, the number of bytes, got {vocab_size}")
        return cls(*learn_merges(blocks, vocab_size))

    @functools.cached_property
    def vocab_size(self) -> int:
        return len(self._token_bytes)

    def encode(self, text: str) -> "NpIntT":
        """Return the ids of `text`, int32 [T]. A long text is encoded in pieces, on all cores."""
        _to_utf8(text)
        # Pieces of `cut_text`, which other threads may encode, are a little longer than `PIECE_LENGTH`.
        is_short = len(text) <= 2 * PIECE_LENGTH
        return self._encode_piece(text) if is_short else self.encode_pieces(cut_text([text]))

    def encode_pieces(self, pieces: Iterable[str]) -> "NpIntT":
        """Return the ids of the pieces of a text, which end where `cut_text` ends them, int32 [T]."""
        with DaemonExecutor(os.cpu_count() or 1) as executor:
            return np.concatenate(list(map_ahead(executor, self._encode_piece, pieces)))

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        return b"".join([self._token_bytes[token] for token in _check_decodable(ids, self.vocab_size)])

    def _encode_piece(self, piece: str) -> "NpIntT":
        return np.array(self._encoding.encode_ordinary(piece), np.int32)  # 1.3 times faster than encode_to_numpy

    @functools.cached_property
    def _encoding(self) -> "tiktoken.Encoding":
        return make_encoding(self._token_bytes)

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        tokens = dict.fromkeys([*BYTE_OF_CHARACTER, *(first + second for first, second in self.merges)])
        return [bytes(BYTE_OF_CHARACTER[character] for character in token) for token in tokens]


def _check_text(text: str) -> None:
    if not text:
        raise ValueError("the text is empty; training a tokenizer needs at least one character")
    _to_utf8(text)


def _to_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        character = f"character {text[error.start]!r} at position {error.start}"
        raise ValueError(f"{character} is half of a surrogate pair; decode the text correctly") from None


def _check_decodable(ids: "ArrayLike", vocab_size: int) -> "NpIntT":
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids to decode must be one stream of shape [T], got shape {list(array.shape)}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"ids to decode must be integers, got {array.dtype}")
    unknown = array[(array < 0) | (array >= vocab_size)]
    if unknown.size:
        remedy = "if the model has more ids, set their logits to -inf, as `jaxlm sample` does"
        raise ValueError(f"cannot decode id {unknown[0]}: this tokenizer's ids are 0..{vocab_size - 1}; {remedy}")
    return array.astype(np.int32)
