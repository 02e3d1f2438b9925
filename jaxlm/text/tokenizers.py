"""Encode text as token ids and decode it: characters, bytes, or byte-level BPE."""

import dataclasses
import functools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from jaxlm.utils.atomic_files import expand, write_atomically
from jaxlm.utils.json_files import add_checksum, check_version, read_json, verify_checksum

if TYPE_CHECKING:
    import tokenizers
    from numpy.typing import ArrayLike

    from jaxlm._types import NpIntT

_SCHEMA_VERSION = 2

# GPT-2's alphabet: a printable byte is its own character, the others are the characters from U+0100.
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = sorted({*range(256)} - {*_PRINTABLE})
_BYTE_OF_CHARACTER = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + n): b for n, b in enumerate(_OTHERS)}


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

        Invalid UTF-8, which sampling can produce, becomes U+FFFD.
        """
        if np.ndim(ids) == 2:
            return [self.decode(row) for row in np.asarray(ids)]
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file that `load_tokenizer` reads."""
        write_atomically(expand(path), tokenizer_to_json(self))


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
        ids = {character: token for token, character in enumerate(self.characters)}
        try:
            return np.fromiter(map(ids.__getitem__, text), np.int32, len(text))
        except KeyError as error:
            problem = f"character {error.args[0]!r} at position {text.index(error.args[0])} is not among the"
            remedy = "train it on text that has it, or use a byte tokenizer"
            raise ValueError(f"{problem} {self.vocab_size} of this tokenizer; {remedy}") from None

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        return "".join(self.characters[token] for token in _check_decodable(ids, self.vocab_size)).encode()


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

    The `tokenizers` library learns and applies the merges, with GPT-2's pattern of words and its alphabet of bytes
    (Radford et al. 2019). Sennrich et al. (2016), "Neural Machine Translation of Rare Words with Subword Units".

    >>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=258)
    >>> tokenizer.merges, tokenizer.vocab_size
    ((('l', 'o'), ('lo', 'w')), 258)
    """

    merges: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        known = set(_BYTE_OF_CHARACTER)
        for first, second in self.merges:
            if first not in known or second not in known:
                raise ValueError(f"merge {first!r} + {second!r} uses a token that no earlier merge makes")
            known.add(first + second)

    @classmethod
    def train(cls, text: str, vocab_size: int) -> "BPETokenizer":
        """Learn merges until there are `vocab_size` tokens, at least 256, or no pair is left to merge."""
        if vocab_size < 256:
            raise ValueError(f"vocab_size must be at least 256, the number of bytes, got {vocab_size}")
        _check_text(text)
        from tokenizers import trainers

        # A text has fewer merges than bytes, and the library allocates memory for all that are requested.
        limit, alphabet = min(vocab_size, 256 + len(text.encode())), list(_BYTE_OF_CHARACTER)
        trainer = trainers.BpeTrainer(vocab_size=limit, initial_alphabet=alphabet, show_progress=False)
        library = cls(())._library
        # The library takes quadratic time in the length of a word: cut the few that are long, such as DNA.
        library.train_from_iterator(re.split(r"(\S{1000}|\s{1000})", text), trainer)
        return cls(tuple(tuple(pair) for pair in json.loads(library.to_str())["model"]["merges"]))

    @property
    def vocab_size(self) -> int:
        return len(self._id_of_token)

    def encode(self, text: str) -> "NpIntT":
        _to_utf8(text)
        return np.array(self._library.encode(text).ids, np.int32)

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        return b"".join([self._token_bytes[token] for token in _check_decodable(ids, self.vocab_size)])

    @functools.cached_property
    def _id_of_token(self) -> dict[str, int]:
        ids = {character: token for token, character in enumerate(_BYTE_OF_CHARACTER)}
        for first, second in self.merges:
            ids.setdefault(first + second, len(ids))
        return ids

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        return [bytes(_BYTE_OF_CHARACTER[character] for character in token) for token in self._id_of_token]

    @functools.cached_property
    def _library(self) -> "tokenizers.Tokenizer":
        from tokenizers import Tokenizer, models, pre_tokenizers

        library = Tokenizer(models.BPE(vocab=self._id_of_token, merges=list(self.merges)))
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return library


def make_tokenizer(
    source: Literal["char", "byte", "bpe"] | os.PathLike[str] | Tokenizer, text: str, vocab_size: int | None
) -> Tokenizer:
    """Return `source`, load it from a file, or train a tokenizer of this kind. BPE needs a `vocab_size`."""
    match source:
        case "char":
            return CharTokenizer.train(text)
        case "byte":
            return ByteTokenizer()
        case "bpe" if vocab_size is not None:
            return BPETokenizer.train(text, vocab_size)
        case "bpe":
            raise ValueError("a BPE tokenizer needs a vocab_size, such as 4096")
        case os.PathLike():
            return load_tokenizer(source)
    return source


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Load the tokenizer that `save` wrote. Host function; not for use inside `jit`.

    Args:
        path: the file, or a directory with a `tokenizer.json`, such as a run.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is damaged, or of another version or program.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ByteTokenizer().save(f"{folder}/tokenizer.json")
    ...     load_tokenizer(folder)
    ByteTokenizer()
    """
    path = expand(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    match document := read_json(file):
        case dict() if document and all(isinstance(token, int) for token in document.values()):
            kind = "a vocabulary like GPT-2's vocab.json"
        case {"model": _} | {"added_tokens": _} | {"tokenizer_class": _}:
            kind = "a tokenizer of Hugging Face"
        case _:
            return tokenizer_from_json(document, origin=file)
    remedy = "train a tokenizer with `jaxlm tokenize --out FILE`"
    raise ValueError(f"{file} is {kind}, which jaxlm cannot read yet; {remedy}")


def tokenizer_to_json(tokenizer: Tokenizer) -> str:
    """Return the text that `save` writes. Raises a TypeError for a tokenizer of your own class."""
    kinds = {CharTokenizer: "char", ByteTokenizer: "byte", BPETokenizer: "bpe"}
    if not isinstance(tokenizer, CharTokenizer | ByteTokenizer | BPETokenizer):
        raise TypeError(f"only char, byte and bpe tokenizers can be saved, got {tokenizer!r}")
    fields = {field.name: getattr(tokenizer, field.name) for field in dataclasses.fields(tokenizer)}
    return add_checksum({"version": _SCHEMA_VERSION, "tokenizer": kinds[type(tokenizer)], **fields})


def tokenizer_from_json(document: Any, *, origin: str | Path) -> Tokenizer:
    """Return the tokenizer that `document` describes. If it is not valid, raise a ValueError with `origin`."""
    check_version(document, _SCHEMA_VERSION, origin=origin, what="tokenizer's file")
    document = verify_checksum(document, origin=origin)
    try:
        match document:
            case {"tokenizer": "char", "characters": str(characters)}:
                return CharTokenizer(characters)
            case {"tokenizer": "byte"}:
                return ByteTokenizer()
            case {"tokenizer": "bpe", "merges": list(merges)} if all(isinstance(merge, list) for merge in merges):
                return BPETokenizer(tuple(map(tuple, merges)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin} is damaged: {error}") from None
    raise ValueError(f"{origin} is damaged: its fields are not those of a char, byte or bpe tokenizer")


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
