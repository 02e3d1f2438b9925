"""Text to token ids and back: characters, bytes, and byte-level BPE behind one protocol."""

import functools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.checksums import add_checksum, verify_checksum
from jaxlm.utils.json_files import check_version, read_json

if TYPE_CHECKING:
    import tokenizers
    from numpy.typing import ArrayLike

Ids = np.ndarray[Any, np.dtype[np.int32]]

_SCHEMA_VERSION = 2


class Tokenizer(Protocol):
    """Text to ids in `[0, vocab_size)` and back."""

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""

    def encode(self, text: str) -> Ids:
        """The ids of `text`, int32 [T]."""

    def decode(self, ids: "ArrayLike") -> str:
        """The text of `ids`; bytes that are no UTF-8, which a sample may hold, become U+FFFD."""

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        """The UTF-8 bytes of `ids`, exactly, wherever the ids were cut."""

    def save(self, path: str | Path) -> None:
        """Writes the JSON file that `load_tokenizer` reads."""


@dataclass(frozen=True)
class CharTokenizer:
    """One token a character of the training text, in the order of their code points.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.encode("hole"), tokenizer.decode([1, 0])
    (array([1, 3, 2, 0], dtype=int32), 'he')
    """

    characters: str

    def __post_init__(self) -> None:
        if not self.characters or self.characters != "".join(sorted(set(self.characters))):
            raise ValueError("characters must be distinct, in the order of their code points, and at least one")
        _utf8(self.characters)

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """Takes the distinct characters of `text`. Raises ValueError where it is empty, or not fit for UTF-8."""
        _check_text(text)
        return cls("".join(sorted(set(text))))

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Ids:
        """int32 [T]. Raises ValueError for a character that is not in the vocabulary, and says where it is."""
        points, known = _code_points(text), _code_points(self.characters)
        ids = np.searchsorted(known, points).clip(max=len(known) - 1)
        if (unknown := known[ids] != points).any():
            position = int(unknown.argmax())
            raise ValueError(
                f"character {text[position]!r} at position {position} is not among the "
                f"{self.vocab_size} that this tokenizer was trained on; train it on text that has it, or use bytes"
            )
        return ids.astype(np.int32)

    def decode(self, ids: "ArrayLike") -> str:
        return "".join(self.characters[token] for token in _checked(ids, self.vocab_size))

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        return self.decode(ids).encode()

    def save(self, path: str | Path) -> None:
        _save(path, "char", {"characters": self.characters})


@dataclass(frozen=True)
class ByteTokenizer:
    """One token a byte of the text's UTF-8: 256 tokens, and no text that cannot be encoded.

    >>> ByteTokenizer().encode("é")
    array([195, 169], dtype=int32)
    """

    @property
    def vocab_size(self) -> int:
        return 256

    def encode(self, text: str) -> Ids:
        return np.frombuffer(_utf8(text), np.uint8).astype(np.int32)

    def decode(self, ids: "ArrayLike") -> str:
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        return _checked(ids, self.vocab_size).astype(np.uint8).tobytes()

    def save(self, path: str | Path) -> None:
        _save(path, "byte", {})


@dataclass(frozen=True)
class BPETokenizer:
    """Byte-level byte-pair encoding: the 256 bytes, and then one token for each pair that was merged.

    Nothing is lost and nothing unknown: `decode(encode(text)) == text` for every text. Words are cut as GPT-2 cuts
    them (Radford et al. 2019); the merges are learnt and applied by the `tokenizers` library, in the printable
    alphabet that GPT-2 gives to the bytes. Sennrich et al. (2016), "Neural Machine Translation of Rare Words with
    Subword Units".
    """

    merges: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        known = set(_BYTE_OF_CHARACTER)
        for first, second in self.merges:
            if first not in known or second not in known:
                raise ValueError(f"merge {first!r} + {second!r} joins tokens that no merge before it has made")
            known.add(first + second)

    @classmethod
    def train(cls, text: str, vocab_size: int) -> "BPETokenizer":
        """Learns merges until there are `vocab_size` tokens, or fewer where the text has no pair left to merge.

        Raises:
            ValueError: `vocab_size` is below the 256 bytes, or the text is empty.
        """
        if vocab_size < 256:
            raise ValueError(
                f"vocab_size={vocab_size} is below the 256 bytes that byte-level BPE starts from; use 256 or more"
            )
        _check_text(text)
        from tokenizers import trainers

        library = _library_tokenizer(())
        # No text has more merges than bytes, and the library sets aside memory for all that it is asked for.
        most = min(vocab_size, 256 + len(text.encode()))
        trainer = trainers.BpeTrainer(
            vocab_size=most, initial_alphabet=list(_BYTE_OF_CHARACTER), show_progress=False
        )
        library.train_from_iterator([text], trainer)
        return cls(tuple(tuple(pair) for pair in json.loads(library.to_str())["model"]["merges"]))

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary)

    def encode(self, text: str) -> Ids:
        _utf8(text)
        return np.array(self._library.encode(text).ids, np.int32)

    def decode(self, ids: "ArrayLike") -> str:
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: "ArrayLike") -> bytes:
        return b"".join([self._token_bytes[token] for token in _checked(ids, self.vocab_size)])

    def save(self, path: str | Path) -> None:
        _save(path, "bpe", {"merges": [list(pair) for pair in self.merges]})

    @functools.cached_property
    def _vocabulary(self) -> dict[str, int]:
        return _vocabulary(self.merges)

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        return [bytes(_BYTE_OF_CHARACTER[character] for character in token) for token in self._vocabulary]

    @functools.cached_property
    def _library(self) -> "tokenizers.Tokenizer":
        return _library_tokenizer(self.merges)


def train_tokenizer(kind: Literal["char", "byte", "bpe"], text: str, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of that kind, trained on `text`; `vocab_size` is for BPE.

    Raises:
        ValueError: as the tokenizers' own `train`; or BPE was given no size.
    """
    if kind == "char":
        return CharTokenizer.train(text)
    if kind == "byte":
        return ByteTokenizer()
    if vocab_size is None:
        raise ValueError("a BPE tokenizer needs a vocab_size, as 4096")
    return BPETokenizer.train(text, vocab_size)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote to `path`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a tokenizer's file, damaged, or one of another version; the message names it.
    """
    return tokenizer_from_json(read_json(path), origin=path)


def tokenizer_to_json(tokenizer: Tokenizer) -> str:
    """What `save` writes, as text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        tokenizer.save(path)
        return path.read_text("utf-8")


def tokenizer_from_json(document: Any, *, origin: str | Path) -> Tokenizer:
    """The tokenizer that a document describes, as `save` writes it. Raises ValueError, which names `origin`."""
    check_version(document, _SCHEMA_VERSION, origin=origin, what="tokenizer's file")
    document = verify_checksum(document, origin=origin)
    try:
        match document:
            case {"tokenizer": "char", "characters": str(characters)}:
                return CharTokenizer(characters)
            case {"tokenizer": "byte"}:
                return ByteTokenizer()
            case {"tokenizer": "bpe", "merges": list(merges)} if all(map(_is_pair, merges)):
                return BPETokenizer(tuple((first, second) for first, second in merges))
    except ValueError as error:
        raise ValueError(f"{origin} is damaged: {error}") from None
    raise ValueError(f"{origin} is damaged, or no tokenizer's file: its fields are not those of char, byte or bpe")


def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable alphabet: a byte that prints is its own character, the others follow from U+0100 on."""
    prints = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in prints]
    pairs = [(chr(byte), byte) for byte in prints] + [(chr(256 + n), byte) for n, byte in enumerate(others)]
    return dict(pairs)


_BYTE_OF_CHARACTER = _byte_of_character()


def _vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    vocabulary = {character: token for token, character in enumerate(_BYTE_OF_CHARACTER)}
    for first, second in merges:
        vocabulary.setdefault(first + second, len(vocabulary))
    return vocabulary


def _library_tokenizer(merges: Sequence[tuple[str, str]]) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer, models, pre_tokenizers

    library = Tokenizer(models.BPE(vocab=_vocabulary(merges), merges=list(merges)))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library


def _is_pair(merge: Any) -> bool:
    return isinstance(merge, list) and len(merge) == 2 and all(isinstance(token, str) for token in merge)


def _check_text(text: str) -> None:
    if not text:
        raise ValueError("the text is empty: a tokenizer needs at least one character to train on")
    _utf8(text)


def _code_points(text: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {text[error.start]!r} at position {error.start} is half of a surrogate pair, which UTF-8 "
            "cannot hold; decode the text properly"
        ) from None


def _checked(ids: "ArrayLike", vocab_size: int) -> Ids:
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids to decode must be one stream of shape [T], got shape {list(array.shape)}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"ids to decode must be integers, got {array.dtype}")
    unknown = array[(array < 0) | (array >= vocab_size)]
    if unknown.size:
        raise ValueError(f"cannot decode id {unknown[0]}: this tokenizer has the ids 0..{vocab_size - 1}")
    return array.astype(np.int32)


def _save(path: str | Path, kind: str, fields: dict[str, Any]) -> None:
    document = {"version": _SCHEMA_VERSION, "tokenizer": kind, **fields}
    write_atomically(path, add_checksum(document))
