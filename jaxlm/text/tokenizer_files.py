"""Save, load and choose tokenizers."""

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from jaxlm.text.hugging_face import tokenizer_from_hugging_face
from jaxlm.text.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer
from jaxlm.utils.atomic_files import expand, open_regular
from jaxlm.utils.json_files import add_checksum, check_document, read_json

TOKENIZER_FILE = "jaxlm_tokenizer.json"  # was tokenizer.json, which is the name of Hugging Face's file
_SCHEMA_VERSION = 2

# The first lines of files of other programs that are not JSON.
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* [0-9]+\r?\n")
_MERGES = re.compile(rb"[^\s{]\S* \S+\r?\n\S+ \S+\r?\n")
_REMEDY = (
    "pass the tokenizer.json of the same model; to make it from vocab.json and merges.txt, run "
    "tokenizers.ByteLevelBPETokenizer('vocab.json', 'merges.txt').save('tokenizer.json')"
)


def make_tokenizer(
    source: Literal["char", "byte", "bpe"] | os.PathLike[str] | Tokenizer,
    blocks: Iterable[str],
    vocab_size: int | None,
) -> Tokenizer:
    """Return `source`, load it from a file, or train a tokenizer of this kind on the text in `blocks`.

    BPE needs a `vocab_size`.
    """
    match source:
        case "char":
            characters: set[str] = set()
            for block in blocks:
                characters.update(block)
            return CharTokenizer.train("".join(characters))
        case "byte":
            return ByteTokenizer()
        case "bpe" if vocab_size is not None:
            return BPETokenizer.train_from_blocks(blocks, vocab_size)
        case "bpe":
            raise ValueError("a BPE tokenizer needs a vocab_size, such as 4096")
        case os.PathLike():
            return load_tokenizer(source)
        case str():
            raise ValueError(f"tokenizer must be 'char', 'byte', 'bpe' or a Path to a saved one, got {source!r}")
    return source


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Load the tokenizer that `save` wrote, or one of Hugging Face. Host function; not for use inside `jit`.

    Args:
        path: the file, or a directory that has it, such as a run. It can also be a `tokenizer.json` of Hugging
            Face: byte-level BPE with GPT-2's pattern of words.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is damaged, or of another version or program.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ByteTokenizer().save(f"{folder}/{TOKENIZER_FILE}")
    ...     load_tokenizer(folder)
    ByteTokenizer()
    """
    path = expand(path)
    file = find_tokenizer(path) if path.is_dir() else path
    with open_regular(file) as opened:
        start = opened.read(1000)
    if _TIKTOKEN.match(start):
        problem = "is a vocabulary of tiktoken, which cannot be imported without its pattern of words"
        raise ValueError(f"{file} {problem}; {_REMEDY}")
    if _MERGES.match(start):
        raise ValueError(f"{file} is only a list of merges like GPT-2's merges.txt; {_REMEDY}")
    match document := read_json(file):
        case {"model": dict()}:
            return tokenizer_from_hugging_face(document, origin=file)
        case dict() if document and all(isinstance(token, int) for token in document.values()):
            kind = "a vocabulary like GPT-2's vocab.json"
        case {"tokenizer_class": _} | {"added_tokens_decoder": _}:
            kind = "a configuration of Hugging Face"
        case _:
            return tokenizer_from_json(document, origin=file)
    raise ValueError(f"{file} is only {kind}; {_REMEDY}")


def find_tokenizer(folder: Path) -> Path:
    """Return the path of the tokenizer in a directory: of `TOKENIZER_FILE`, or else of `tokenizer.json`."""
    file, other = folder / TOKENIZER_FILE, folder / "tokenizer.json"
    return other if other.exists() and not file.exists() else file


def tokenizer_to_json(tokenizer: Tokenizer) -> str:
    """Return the text that `save` writes. Raises a TypeError for a tokenizer of your own class."""
    kinds = {CharTokenizer: "char", ByteTokenizer: "byte", BPETokenizer: "bpe"}
    if not isinstance(tokenizer, CharTokenizer | ByteTokenizer | BPETokenizer):
        raise TypeError(f"only char, byte and bpe tokenizers can be saved, got {tokenizer!r}")
    names = [each.name for each in dataclasses.fields(tokenizer)]
    fields = {name: value for name in names if (value := getattr(tokenizer, name)) is not None}
    return add_checksum({"version": _SCHEMA_VERSION, "tokenizer": kinds[type(tokenizer)], **fields})


def tokenizer_from_json(document: Any, *, origin: str | Path) -> Tokenizer:
    """Return the tokenizer that `document` describes. If it is not valid, raise a ValueError with `origin`."""
    fields = check_document(document, _SCHEMA_VERSION, origin=origin, what="tokenizer's file")
    try:
        match fields:
            case {"tokenizer": "char", "characters": str(characters)}:
                return CharTokenizer(characters)
            case {"tokenizer": "byte"}:
                return ByteTokenizer()
            case {"tokenizer": "bpe", "merges": list(merges)} if all(isinstance(merge, list) for merge in merges):
                return BPETokenizer(tuple(map(tuple, merges)), fields.get("training"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin} is damaged: {error}") from None
    raise ValueError(f"{origin} is damaged: its fields are not those of a char, byte or bpe tokenizer")
