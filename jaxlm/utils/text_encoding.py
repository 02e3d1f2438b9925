"""Decode UTF-8, and name other encodings."""

import re
from pathlib import Path

_BYTE_ORDER_MARKS = {  # UTF-32 first: its mark starts with that of UTF-16
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_FILE_TYPES = {
    **{b"PK\3\4": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"},
    b"%PDF": "PDF",
}
# What Windows-1252 does not contain: undefined bytes, three special bytes in a row, and within a word a symbol or,
# after a small letter, a capital.
_NOT_WINDOWS_1252 = re.compile(
    rb"[\x81\x8d\x8f\x90\x9d]|[\x80-\xff]{3}|[a-z][\x8a\x8c\x8e\x9f\xc0-\xde]"
    rb"|[A-Za-z][\x80-\x89\x8b\x91\x93-\x95\x98\x99\x9b\xa1-\xa9\xab\xac\xae-\xb4\xb6\xb8\xb9\xbb-\xbf\xd7\xf7][A-Za-z]"
)


def decode_text(content: bytes, *, origin: str | Path) -> str:
    """Return UTF-8 text without its byte order mark.

    Raises a ValueError that names `origin`, the encoding of the content if it can be detected, and the remedy.

    >>> decode_text("café".encode("utf-16-le"), origin="menu.txt")
    Traceback (most recent call last):
    ValueError: menu.txt is UTF-16LE, not UTF-8; save it as UTF-8, with `iconv -f UTF-16LE -t UTF-8 OLD > NEW`
    """
    place = "it has control characters"
    try:
        # UTF-16 text can be valid UTF-8: then more than every fourth byte is a control character.
        if len(content) % 2 or _count_controls(content) <= max(len(content) / 4, 1):
            return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"byte 0x{content[error.start]:02x} at offset {error.start}"
    for start, kind in _FILE_TYPES.items():
        if content.startswith(start):
            raise ValueError(f"{origin} is a {kind} file, not UTF-8 text; extract its text first")
    if encoding := _detect_encoding(content):
        remedy = f"save it as UTF-8, with `iconv -f {encoding} -t UTF-8 OLD > NEW`"
        raise ValueError(f"{origin} is {encoding}, not UTF-8; {remedy}")
    remedy = "find its encoding, and save it as UTF-8, with `iconv -f ENCODING -t UTF-8 OLD > NEW`"
    intact = content.decode("utf-8", "ignore")
    if not intact.isascii() and len(intact.encode()) > 0.99 * len(content):  # such as text cut within a character
        remedy = "repair it, or drop such bytes with `iconv -c -f UTF-8 -t UTF-8 OLD > NEW`"
    raise ValueError(f"{origin} is not UTF-8: {place}; {remedy}")


def _detect_encoding(content: bytes) -> str | None:
    """Return the name of an encoding other than UTF-8, as `iconv` and Python spell it; None if it is not clear."""
    for mark, name in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return name
    if _count_controls(content) > len(content) / 200:
        return _detect_wide_encoding(content)
    has_utf8 = not content.decode("utf-8", "ignore").isascii()  # and damage
    return None if has_utf8 or _NOT_WINDOWS_1252.search(content) else "WINDOWS-1252"


def _detect_wide_encoding(content: bytes) -> str | None:
    if len(content) % 4 == 0 and max(content[3::4]) == 0 and max(content[2::4]) <= 0x10:
        return "UTF-32LE"
    if len(content) % 4 == 0 and max(content[::4]) == 0 and max(content[1::4]) <= 0x10:
        return "UTF-32BE"
    if len(content) % 2:
        return None
    pairs = list(zip(content[: 2**16 : 2], content[1 : 2**16 : 2], strict=True))
    little = sum(high == 0 and low in b" \r\n" for low, high in pairs)
    big = sum(high == 0 and low in b" \r\n" for high, low in pairs)
    if (
        little == big
    ):  # there are no spaces and line ends; in many scripts, the high bytes of most characters are low
        little = sum(high < 9 for _, high in pairs) > len(pairs) / 2
        big = sum(high < 9 for high, _ in pairs) > len(pairs) / 2
    return None if little == big else "UTF-16LE" if little > big else "UTF-16BE"


def _count_controls(content: bytes) -> int:
    return len(content) - len(content.translate(None, bytes(range(9))))
