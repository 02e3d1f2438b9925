"""Cut long texts into pieces that can be tokenized separately."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

PIECE_LENGTH = 2**16  # characters

# GPT-2's pattern ends a word at each of these places, whatever surrounds them: before white space that follows
# something else, and before the last of several white-space characters. Python's `\s`, unlike the pattern's, has
# the separators U+001C to U+001F.
_SPACE = r"[^\S\x1c-\x1f]"
_CUT = re.compile(rf"(?<=\S)(?={_SPACE})|(?<={_SPACE})(?={_SPACE}\S)")


def cut_text(blocks: Iterable[str], length: int = PIECE_LENGTH) -> Iterator[str]:
    """Yield pieces of a text that byte-level BPE encodes to the same ids as the whole text.

    Args:
        blocks: the text, in consecutive parts of any size. Where they end does not affect the pieces.
        length: minimum length of a piece in characters, at least 1. A longer word is not cut.

    >>> list(cut_text(["one two  thr", "ee"], length=2))
    ['one', ' two', '  three']
    """
    text, searched = "", 0
    for block in blocks:
        text += block
        start = 0
        while match := _CUT.search(text, max(start + length, searched)):
            yield text[start : match.start()]
            start = match.start()
        searched = max(len(text) - start - 1, 0)
        text = text[start:]
    if text:
        yield text


def group_by_size(items: Iterable[T], size: int, size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield consecutive items in lists whose sizes add up to at least `size`, except the last.

    >>> list(group_by_size("abcde", 2, len))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    taken: list[T] = []
    total = 0
    for item in items:
        taken.append(item)
        total += size_of(item)
        if total >= size:
            yield taken
            taken, total = [], 0
    if taken:
        yield taken
