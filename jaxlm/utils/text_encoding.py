"""Decode UTF-8, and name other encodings."""

import codecs
import contextlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_FILE_TYPES = {b"PK\3\4": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"%PDF": "PDF"}
_SENTENCEPIECE = re.compile(rb"\n.\n[\1-\x1f]<", re.DOTALL)  # a message of protobuf, whose first piece is special
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")
_CHINESE_OR_JAPANESE = re.compile("[\u3000-\u30ff\u4e00-\u9fff\uff00-\uff65]")


def decode_text(content: bytes, *, origin: str | Path) -> str:
    """Return UTF-8 text without its byte order mark.

    Raises a ValueError that names `origin`, the encoding if it is UTF-16 or UTF-32, and the remedy.
    """
    _check_is_text(content, origin)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _describe(error, origin, error.start) from None


def decode_blocks(blocks: Iterable[bytes], *, origin: str | Path) -> Iterator[str]:
    r"""Yield UTF-8 text in consecutive parts, without its byte order mark, with `\n` for `\r\n` and `\r`.

    Raises the ValueErrors of `decode_text`.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    offset = 0
    for block in itertools.chain(filter(None, blocks), [b""]):
        if offset == 0:
            _check_is_text(block, origin)
        try:
            yield decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            # The decoder holds back the start of a character that the last block cut.
            raise _describe(error, origin, offset + error.start - (len(error.object) - len(block))) from None
        offset += len(block)


def _check_is_text(content: bytes, origin: str | Path) -> None:
    """Raise a ValueError for tar, UTF-16 and UTF-32, which can be valid UTF-8 with many control characters."""
    if content.startswith(b"ustar", 257):
        raise ValueError(f"{origin} is a tar file, not UTF-8 text; extract its text first")
    if len(_CONTROL.findall(content)) > len(content) / 20:
        _check_type(content, origin)


def _check_type(content: bytes, origin: str | Path) -> None:
    """Raise a ValueError that names UTF-16, UTF-32, or another type of file, if it is one."""
    for start, kind in _FILE_TYPES.items():
        if content.startswith(start):
            raise ValueError(f"{origin} is a {kind} file, not UTF-8 text; extract its text first")
    if _SENTENCEPIECE.match(content):
        remedy = "jaxlm cannot import it, but trains tokenizers of its own"
        raise ValueError(f"{origin} is a SentencePiece model, not UTF-8 text; {remedy}")
    if encoding := _detect_utf16_or_32(content):
        remedy = f"save it as UTF-8, with `iconv -f {encoding} -t UTF-8 OLD > NEW`"
        raise ValueError(f"{origin} is {encoding}, not UTF-8; {remedy}")


def _describe(error: UnicodeDecodeError, origin: str | Path, offset: int) -> ValueError:
    """Return the error to raise for content that is not UTF-8 at `offset`."""
    content = error.object
    _check_type(content, origin)
    remedy = "convert it; if it is WINDOWS-1252, with `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`"
    intact = content.decode("utf-8", "ignore")
    if not intact.isascii() and len(intact.encode()) > 0.99 * len(content):  # such as text cut within a character
        remedy = "repair it, or drop such bytes with `iconv -c -f UTF-8 -t UTF-8 OLD > NEW`"
    return ValueError(f"{origin} is not UTF-8: byte 0x{content[error.start]:02x} at offset {offset}; {remedy}")


def _detect_utf16_or_32(content: bytes) -> str | None:
    """Return the encoding that gives the most spaces, line ends, quotes and byte order marks.

    If there are none, return one that gives mostly Chinese or Japanese characters, or None.
    """
    texts = {}
    for encoding in ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE"):  # UTF-32 is also UTF-16, with NULs
        with contextlib.suppress(UnicodeDecodeError):
            texts[encoding] = content[: len(content) // 4 * 4].decode(encoding)  # may be cut within a character
    counts = {encoding: sum(map(text.count, ' \r\n"\ufeff')) for encoding, text in texts.items()}
    if not any(counts.values()) and _CONTROL.search(content):  # text in a code page has no control characters
        counts = {
            encoding: len(_CHINESE_OR_JAPANESE.findall(text)) > 0.9 * len(text) for encoding, text in texts.items()
        }
    return max(counts, key=counts.__getitem__) if any(counts.values()) else None
