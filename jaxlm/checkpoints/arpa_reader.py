"""Read ARPA files of any program as backoff models."""

import itertools
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlm._types import Variables
from jaxlm.checkpoints.arpa_words import PLACEHOLDERS, spell_tokens
from jaxlm.models.backoff_lm import LOG10_OF_ZERO, BackoffLM, ListedNgrams
from jaxlm.models.ngram_counts import pack_ngrams
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.atomic_files import expand, open_regular
from jaxlm.utils.text_encoding import decode_text

_MAX_ORDER = 10

Lines = Iterator[tuple[int, str]]  # the number of each line, and its text


class ArpaModel(NamedTuple):
    """A model as `read_arpa` returns it.

    >>> ArpaModel(BackoffLM(2, 1), {}, ["a", "b"]).words[1]
    'b'
    """

    model: BackoffLM
    variables: Variables  # on JAX's default device
    words: list[str]  # the word of each id


def read_arpa(path: str | os.PathLike[str], tokenizer: Tokenizer | None = None) -> ArpaModel:
    r"""Read an ARPA file line by line. Host function; not for use inside `jit`.

    Without a tokenizer, the ids of words are in the order of the file. With one, its tokens keep their ids, and
    other words follow. Each token that is not listed has the probability of `<unk>`, as in KenLM, so the sum of
    all probabilities can exceed 1.

    `<unk>`, `<s>` and `</s>` are words like others, except that the three lines which `write_arpa` adds for them
    are left out. `<s>` is never predicted; its probability is 0, though KenLM writes 1.

    To score sentences as KenLM does, put N - 1 times `</s>` in front of the text, then `<s>` before and `</s>`
    after each sentence. Call `window_nats`, and drop the results whose target is `<s>`. No n-gram contains
    `</s> <s>`, so the first word of a sentence is scored after `<s>` alone.

    Args:
        tokenizer: of the tokens that the words spell, as in `write_arpa`.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is not valid; the message names the line.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "lm.arpa")
    >>> lines = "\\data\\", "ngram 1=2", "", "\\1-grams:", "-0.1249387\ta", "-0.6020600\tb", "", "\\end\\"
    >>> _ = file.write_text("\n".join(lines))
    >>> model, variables, words = read_arpa(file)
    >>> print(words, np.exp(model.apply(variables, np.zeros((1, 0), int))).round(2))
    ['a', 'b'] [[0.75 0.25]]
    """
    path = expand(path)
    words = [] if tokenizer is None else spell_tokens(tokenizer.vocab_size, tokenizer)
    ids = {word: index for index, word in enumerate(words)}
    with open_regular(path) as file:
        orders = _read_orders(path, _read_lines(path, file), ids)
    unigrams, log_probs, backoffs = orders[0]
    if "<s>" in ids:
        log_probs[unigrams[:, 0] == ids["<s>"]] = LOG10_OF_ZERO
    if "<unk>" in ids:
        unlisted = np.setdiff1d(np.arange(len(words), dtype=np.int32), unigrams)
        orders[0] = ListedNgrams(
            np.append(unigrams, unlisted[:, None], axis=0),
            np.append(log_probs, np.repeat(log_probs[unigrams[:, 0] == ids["<unk>"]], len(unlisted))),
            np.append(backoffs, np.zeros(len(unlisted), np.float32)),
        )
    return ArpaModel(*BackoffLM.from_ngrams(len(ids), orders), [*ids])


def _read_lines(path: Path, file: Iterable[bytes]) -> Lines:
    """Yield the lines of a file. Raise a ValueError at its end."""
    number = 0
    for number, line in enumerate(file, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            text = decode_text(line, origin=f"{path}, line {number}")  # raises an error that names the encoding
        yield number, text.strip(" \t\r\n")
    raise ValueError(f"{path} is truncated: it ends after line {number}, before \\end\\")


def _skip_blank(lines: Lines) -> tuple[int, str]:
    return next((number, text) for number, text in lines if text)


def _expect(path: Path, line: tuple[int, str], wanted: str) -> None:
    if line[1] != wanted:
        raise _error(path, line, f"expected {wanted}")


def _error(path: Path, line: tuple[int, str], problem: str) -> ValueError:
    return ValueError(f"{path}, line {line[0]}: {problem}, got {line[1][:80]!r}")


def _read_orders(path: Path, lines: Lines, ids: dict[str, int]) -> list[ListedNgrams]:
    """Return the n-grams of each order. Adds the words of the file to `ids`."""
    _expect(path, _skip_blank(lines), "\\data\\")
    sizes: list[int] = []
    while not (line := _skip_blank(lines))[1].startswith("\\"):
        order = len(sizes) + 1
        entry = re.fullmatch(rf"ngram +{order} *= *([0-9]{{1,18}})", line[1])
        if entry is None or order > _MAX_ORDER:
            raise _error(path, line, f"expected ngram {order}=SIZE, with orders of at most {_MAX_ORDER}")
        sizes.append(int(entry[1]))
    orders: list[ListedNgrams] = []
    listed = ids
    for order, size in enumerate(sizes, 1):
        _expect(path, line, f"\\{order}-grams:")
        entries: Lines = itertools.islice(lines, size)
        if order == 1:
            first = [*itertools.islice(entries, len(PLACEHOLDERS))]
            if tuple(text for _, text in first) != PLACEHOLDERS:
                entries = itertools.chain(first, entries)
        orders.append(_read_ngrams(path, entries, order, order == len(sizes), listed))
        if order == 1:  # tokens of the tokenizer may not be listed
            words = [*ids]
            listed = {words[index]: index for index in orders[0].ngrams[:, 0].tolist()}
        line = _skip_blank(lines)
    _expect(path, line, "\\end\\")
    if not ids or not orders:
        raise _error(path, line, "expected at least one 1-gram before")
    return orders


def _parse(number: str) -> float:
    if "_" in number or not number.isascii():  # Python's `float` accepts 1_000 and digits of all scripts
        raise ValueError
    return float(number)


def _read_ngrams(path: Path, lines: Lines, order: int, is_highest: bool, ids: dict[str, int]) -> ListedNgrams:
    """Return the n-grams of consecutive lines. Those of order 1 add their words to `ids`."""
    tokens, line_numbers = array("i"), array("q")
    log_probs, backoffs = array("f"), array("f")
    for line in lines:
        fields = [field for field in line[1].replace("\t", " ").split(" ") if field]
        if not order + 1 <= len(fields) <= order + 2:
            wanted = f"the log-probability and words of a {order}-gram, and perhaps a backoff"
            raise _error(path, line, f"expected {wanted}")
        try:
            log_prob, backoff = _parse(fields[0]), _parse(fields[order + 1]) if len(fields) > order + 1 else 0.0
        except ValueError:
            raise _error(path, line, "expected numbers as log-probability and backoff") from None
        if not (log_prob <= 0 and backoff <= -LOG10_OF_ZERO):
            raise _error(path, line, "a log-probability must be at most 0, and a backoff at most 99")
        if is_highest and backoff:
            raise _error(path, line, "expected no backoff, or 0, in the highest order")
        words = fields[1 : order + 1]
        if order == 1:
            ids.setdefault(words[0], len(ids))
        try:
            tokens.extend([ids[word] for word in words])
        except KeyError as error:
            raise _error(path, line, f"{error!s:.80} is not among the 1-grams") from None
        log_probs.append(max(log_prob, LOG10_OF_ZERO))
        backoffs.append(max(backoff, LOG10_OF_ZERO))
        line_numbers.append(line[0])
    ngrams = np.frombuffer(tokens, np.int32).reshape(-1, order) if tokens else np.zeros((0, order), np.int32)
    keys = pack_ngrams(ngrams, int(ngrams.max(initial=0)) + 1)
    ranks = np.lexsort(keys[::-1])
    repeated = ranks[1:][(keys[:, ranks[1:]] == keys[:, ranks[:-1]]).all(axis=0)]
    if len(repeated):
        raise ValueError(f"{path}, line {line_numbers[min(repeated)]}: this {order}-gram is listed twice")
    return ListedNgrams(ngrams, np.array(log_probs, np.float32), np.array(backoffs, np.float32))
