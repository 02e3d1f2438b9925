"""Decode UTF-8, and name other encodings."""

import contextlib
from pathlib import Path

_FILE_TYPES = {b"PK\3\4": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"%PDF": "PDF"}


def decode_text(content: bytes, *, origin: str | Path) -> str:
    """Return UTF-8 text without its byte order mark.

    Raises a ValueError that names `origin`, the encoding if it is UTF-16 or UTF-32, and the remedy.
    """
    # UTF-16 can be valid UTF-8, but then many of its bytes are control characters.
    num_controls = sum(map(content.count, (*range(9), *range(14, 32))))
    encoding = _detect_utf16_or_32(content) if num_controls > len(content) / 20 else None
    if encoding is None:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            place = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        for start, kind in _FILE_TYPES.items():
            if content.startswith(start):
                raise ValueError(f"{origin} is a {kind} file, not UTF-8 text; extract its text first")
        encoding = _detect_utf16_or_32(content)
    if encoding:
        remedy = f"save it as UTF-8, with `iconv -f {encoding} -t UTF-8 OLD > NEW`"
        raise ValueError(f"{origin} is {encoding}, not UTF-8; {remedy}")
    remedy = "convert it; if it is WINDOWS-1252, with `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`"
    intact = content.decode("utf-8", "ignore")
    if not intact.isascii() and len(intact.encode()) > 0.99 * len(content):  # such as text cut within a character
        remedy = "repair it, or drop such bytes with `iconv -c -f UTF-8 -t UTF-8 OLD > NEW`"
    raise ValueError(f"{origin} is not UTF-8: {place}; {remedy}")


def _detect_utf16_or_32(content: bytes) -> str | None:
    """Return the encoding that gives the most spaces, line ends and byte order marks; None if there are none."""
    counts = {}
    for encoding in ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE"):  # UTF-32 is also UTF-16, with NULs
        with contextlib.suppress(UnicodeDecodeError):
            text = content[: len(content) // 4 * 4].decode(encoding)  # a copy may be cut within a character
            counts[encoding] = sum(map(text.count, " \r\n\ufeff"))
    return max(counts, key=counts.__getitem__) if any(counts.values()) else None
