"""Find and read text files: plain or compressed UTF-8, JSON lines, and Parquet."""

import glob
import gzip
import importlib.util
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.utils.atomic_files import expand, open_regular
from jaxlm.utils.text_encoding import decode_blocks

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SURROGATE = re.compile("[\ud800-\udfff]")

Block = tuple[str, int]  # a part of a document, and the number of bytes of the file read for it


def find_text_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the files among `paths`, those in the folders, and those that match the globs, each file once.

    Files of a folder or a glob are sorted by path. In folders, names that start with a dot, links to folders, and
    the files that Windows adds are skipped.

    Raises a FileNotFoundError for a path that names no file, and a PermissionError for an unreadable folder.
    """
    found: dict[Path, Path] = {}
    for path in map(expand, paths):
        if path.is_dir():
            files = [*_files_of(path)]
        elif path.exists():
            files = [path]
        else:
            files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]  # noqa: PTH207
        if not files:
            raise FileNotFoundError(
                f"{path} names no file; give a file, a folder with files, or a pattern that matches some"
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_documents(path: Path, field: str) -> Iterator[Iterator[Block]]:
    """Yield the documents of a file, each in parts, which must be read before the next document.

    A `.jsonl` file has one document per line, in the string `field` of an object; a `.parquet` file has one per
    row, in the column `field`. Both may be null. Any other file is one document. All but Parquet may be compressed
    with gzip or zstd.

    Raises:
        ValueError: the file is damaged, not UTF-8, or without this field. The message names the file.
        OSError: it is missing or cannot be read.
    """
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".parquet", ".jsonl")):
        read = _read_parquet if name.endswith(".parquet") else _read_lines
        yield from (iter([text]) for text in read(path, field))
    else:
        yield read_blocks(path)


def read_blocks(path: Path) -> Iterator[Block]:
    """Yield the text of a file, which may be compressed, in parts. Raises the errors of `read_documents`."""
    with open_regular(path) as file:
        position, origin = 0, f"{path}, extracted," if path.suffix in (".gz", ".zst") else path
        for text in decode_blocks(_decompress(file, path), origin=origin):
            yield text, file.tell() - position
            position = file.tell()


def _files_of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name.lower() not in ("thumbs.db", "desktop.ini"):
            if path.is_file():
                yield path
            elif path.is_dir() and not path.is_symlink():
                yield from _files_of(path)


def _read_lines(path: Path, field: str) -> Iterator[Block]:
    rest, unreported, number = "", 0, 0
    for text, num_bytes in read_blocks(path):
        unreported += num_bytes
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            number += 1
            yield _parse_line(line, field, f"{path}, line {number}"), unreported
            unreported = 0
    if rest:
        yield _parse_line(rest, field, f"{path}, line {number + 1}"), unreported


def _parse_line(line: str, field: str, origin: str) -> str:
    try:
        document = json.loads(line) if line.strip() else {field: None}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{origin} is not valid JSON: {error}") from None
    return _check_text_of(document, field, origin)


def _check_text_of(document: Any, field: str, origin: str) -> str:
    r"""Return the field of a document, with `\n` for `\r\n` and `\r`. Raise a ValueError if it is not a text."""
    if not isinstance(document, dict) or field not in document:
        names = f"fields {', '.join(document)}" if isinstance(document, dict) else type(document).__name__
        raise ValueError(f"{origin} has no field {field!r}, but {names:.200}; choose another with --field")
    text = document[field]
    if not isinstance(text, str | None):
        raise ValueError(f"{origin}: the field {field!r} must be a string or null, got {type(text).__name__}")
    if text and _SURROGATE.search(text):  # JSON can escape one without the other
        raise ValueError(
            f"{origin}: the field {field!r} has half of a surrogate pair; repair it, or drop the line"
        )
    return (text or "").replace("\r\n", "\n").replace("\r", "\n")


def _read_parquet(path: Path, field: str) -> Iterator[Block]:
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError(f"{path}: reading Parquet needs pyarrow; install it with pip install 'jaxlm[parquet]'")
    import pyarrow
    from pyarrow import parquet

    with open_regular(path) as file:
        try:
            table = parquet.ParquetFile(file)
            if field not in table.schema_arrow.names:
                _check_text_of(dict.fromkeys(table.schema_arrow.names), field, str(path))
            num_bytes = path.stat().st_size // max(table.metadata.num_rows, 1)
            for batch in table.iter_batches(batch_size=1024, columns=[field]):
                for text in batch.column(0).to_pylist():
                    yield _check_text_of({field: text}, field, str(path)), num_bytes
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a valid Parquet file: {error}") from None


def _decompress(file: io.BufferedReader, path: Path) -> Iterator[bytes]:
    """Yield the content of a file in blocks, decompressed if it starts or is named as gzip or zstd."""
    start = file.peek(4)[:4]
    if start.startswith(_GZIP) or path.suffix == ".gz":
        try:
            yield from _read(gzip.GzipFile(fileobj=file))
        except (EOFError, gzip.BadGzipFile, zlib.error):
            remedy = "copy it again, or rename it if it is plain text"  # browsers extract a file and keep its name
            raise ValueError(f"{path} is a damaged or incomplete gzip file; {remedy}") from None
    elif start == _ZSTD or path.suffix == ".zst":
        yield from _decompress_zstd(file, path)
    else:
        yield from _read(file)


def _decompress_zstd(file: io.BufferedReader, path: Path) -> Iterator[bytes]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)  # the limit of `zstd --long=31`
    frame = decompressor.decompressobj()
    try:
        for block in _read(file, 2**16):  # small, because decompression can enlarge a block a thousand times
            while block:
                if frame.eof:  # a file can have several
                    frame = decompressor.decompressobj()
                yield frame.decompress(block)
                block = frame.unused_data
    except zstandard.ZstdError:
        raise ValueError(f"{path} is a damaged zstd file; copy it again") from None
    if not frame.eof:
        raise ValueError(f"{path} is an incomplete zstd file; copy it again")


def _read(file: Any, num_bytes: int = 2**20) -> Iterator[bytes]:
    while block := file.read(num_bytes):
        yield block
