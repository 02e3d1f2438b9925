"""Convert tokenizers to and from `tokenizer.json`, the file of Hugging Face's library `tokenizers`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxlm.text.bpe import BYTE_OF_CHARACTER, CHARACTERS, Merges
from jaxlm.text.tokenizers import BPETokenizer, ByteTokenizer, Tokenizer
from jaxlm.utils.json_files import MAX_JSON_BYTES

_MAX_TOKEN_LENGTH = 1000  # bytes; `tokenizers` takes quadratic time in it

# The values of a document's fields with which ids are those of `BPETokenizer`. None is a missing field.
_ALLOWED: dict[tuple[str, ...], list[Any]] = {
    ("model", "type"): ["BPE"],
    ("normalizer",): [None],
    ("pre_tokenizer", "type"): ["ByteLevel"],
    ("pre_tokenizer", "add_prefix_space"): [False],
    ("pre_tokenizer", "use_regex"): [True, None],
    ("post_processor", "type"): [None, "ByteLevel"],
    ("decoder", "type"): [None, "ByteLevel"],
    ("truncation",): [None],
    ("padding",): [None],
    ("model", "dropout"): [None, 0],
    ("model", "continuing_subword_prefix"): [None, ""],
    ("model", "end_of_word_suffix"): [None, ""],
    ("model", "byte_fallback"): [None, False],
}


def tokenizer_to_hugging_face(tokenizer: Tokenizer) -> str:
    """Return the `tokenizer.json` of a byte or BPE tokenizer. It gives the same ids for every text.

    Raises:
        ValueError: it is another tokenizer; it has a token that its merges do not result in, which training
            never makes; or the file would be larger than jaxlm reads.
    """
    import tokenizers

    if isinstance(tokenizer, BPETokenizer):
        tokens, merges = [*BYTE_OF_CHARACTER, *map("".join, tokenizer.merges)], tokenizer.merges
    elif isinstance(tokenizer, ByteTokenizer):
        tokens, merges = CHARACTERS, ()
    else:
        raise ValueError(f"a {type(tokenizer).__name__} has no tokenizer.json; use a byte or a BPE tokenizer")
    content = tokenizers.ByteLevelBPETokenizer(_number(dict.fromkeys(tokens)), [*merges]).to_str()
    try:
        _convert(json.loads(content))
    except ValueError as problem:
        raise ValueError(f"this tokenizer cannot be written as a tokenizer.json: {problem}") from None
    if (size := len(content.encode())) > MAX_JSON_BYTES:
        raise ValueError(f"the tokenizer has {size:,} bytes as a tokenizer.json, more than {MAX_JSON_BYTES:,}")
    return content


def tokenizer_from_hugging_face(document: Any, *, origin: str | Path) -> BPETokenizer | ByteTokenizer:
    """Return the tokenizer that a parsed `tokenizer.json` describes.

    Special tokens with the last ids are left out: their text is encoded like any other text.

    Raises:
        ValueError: it is not byte-level BPE with GPT-2's pattern of words and order of ids: bytes, then merges.
            The message names `origin` and what differs.
    """
    try:
        return _convert(document)
    except ValueError as problem:
        remedy = "jaxlm reads byte-level BPE with GPT-2's pattern of words and order of ids"
        raise ValueError(f"{origin} is a tokenizer of Hugging Face, but {problem}; {remedy}") from None


def _convert(document: dict[str, Any]) -> BPETokenizer | ByteTokenizer:
    for path, allowed in _ALLOWED.items():
        found: Any = document
        for name in path:
            found = found.get(name) if isinstance(found, dict) else found
        if found not in allowed:
            raise ValueError(f"its {' '.join(path)} is {found!r:.100}, not {allowed[0]!r}")
    vocab, added = document["model"].get("vocab"), document.get("added_tokens") or []
    if not isinstance(vocab, dict) or not isinstance(added, list):
        raise ValueError("its vocab is not an object, or its added_tokens are not a list")
    merges = _read_merges(document["model"].get("merges"))
    tokens, left_out = [*BYTE_OF_CHARACTER, *map("".join, merges)], set()
    for token in added:
        match token:
            case {"special": True, "content": str(content)}:
                left_out.add(content)
            case _:
                raise ValueError(f"it has the added token {token!r:.200}, which is not a special one")
    ids = {token: index for token, index in vocab.items() if token not in left_out}
    if len(set(tokens)) < len(tokens):
        raise ValueError("two of its merges result in the same token")
    is_byte = not merges and ids == _number(CHARACTERS)
    if not is_byte and ids != _number(tokens):
        raise ValueError("its ids are not those of the bytes in GPT-2's order, then of the merges")
    tokenizer = ByteTokenizer() if is_byte else BPETokenizer(merges)
    _check_library(document, ids)
    return tokenizer


def _number(tokens: Iterable[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


def _read_merges(merges: Any) -> Merges:
    """Return pairs of tokens, given lists of two, or strings with a space between them."""
    pairs: list[Any] = []
    for merge in merges if isinstance(merges, list) else [merges]:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or [*map(type, pair)] != [str, str]:
            raise ValueError(f"its merges are not pairs of tokens: {merge!r:.100}")
        pairs.append(tuple(pair))
    return tuple(pairs)


def _check_library(document: dict[str, Any], ids: dict[str, int]) -> None:
    """Raise a ValueError unless `tokenizers` accepts the document, and the merges of each token result in it.

    Then it does not matter that `tokenizers` merges listed pairs, and `tiktoken` any two tokens that form a token:
    when these are merged, the earlier merges have left only the listed pair.
    """
    import tokenizers

    if longest := max((token for token in ids if len(token) > _MAX_TOKEN_LENGTH), default=""):
        raise ValueError(f"it has a token of {len(longest):,} bytes, more than {_MAX_TOKEN_LENGTH:,}")
    try:
        library = tokenizers.Tokenizer.from_str(json.dumps(document))
    except Exception as error:  # it raises nothing more specific
        raise ValueError(f"tokenizers cannot read it: {error!s:.200}") from None
    for token, index in ids.items():
        if [each.id for each in library.model.tokenize(token)] != [index]:
            raise ValueError(f"its merges do not result in the token {token!r:.100}")
