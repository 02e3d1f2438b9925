"""Find text files, and read plain, compressed, JSON-lines and Parquet files."""

import errno
import gzip
import io
import json
import os

import pyarrow
import pytest
import zstandard
from hypothesis import given, settings, strategies as st
from pyarrow import parquet

from jaxlm.text.text_files import find_text_files, read_documents
from jaxlm.utils.text_encoding import decode_blocks

TEXT = "Größe: 日本語 😀\r\nand so on\rto the end\n" * 3000
EXPECTED = TEXT.replace("\r\n", "\n").replace("\r", "\n")
COMPRESS = {".txt": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


def documents(path, field="text"):
    """The texts of a file's documents, and the bytes that the blocks count."""
    blocks = [list(document) for document in read_documents(path, field)]
    return ["".join(text for text, _ in parts) for parts in blocks], sum(
        size for parts in blocks for _, size in parts
    )


@pytest.mark.parametrize("suffix", COMPRESS)
def test_read_compressed_text(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_bytes(COMPRESS[suffix](TEXT.encode("utf-8-sig")))
    assert documents(path) == ([EXPECTED], path.stat().st_size)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_read_files_of_several_streams(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_bytes(COMPRESS[suffix](b"one\n") + COMPRESS[suffix](b"two\n"))
    assert documents(path)[0] == ["one\ntwo\n"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_read_damaged_compressed_files(tmp_path, suffix):
    path, content = tmp_path / f"text{suffix}", COMPRESS[suffix](TEXT.encode())
    junk = [content[:start] + b"\xff\xff\xff\xff" + content[start + 4 :] for start in (10, 200)]
    for damaged in (content[:-1], content[: len(content) // 2], *junk):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"text{suffix} is an? (damaged|incomplete).* file; copy it again"):
            documents(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_read_compressed_files_cut_within_the_magic_number(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_bytes(COMPRESS[suffix](TEXT.encode())[:1])  # which is valid UTF-8
    with pytest.raises(ValueError, match=rf"text{suffix} is an? (damaged|incomplete)"):
        documents(path)


def test_read_zstd_of_a_large_window_and_a_skippable_frame(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=28)  # above the default limit
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    skippable = (0x184D2A50).to_bytes(4, "little") + (2).to_bytes(4, "little") + b"ab"  # as of pzstd
    (tmp_path / "a.zst").write_bytes(skippable + frame.compress(TEXT.encode()) + frame.flush())
    assert documents(tmp_path / "a.zst")[0] == [EXPECTED]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_read_json_lines(tmp_path, suffix):
    path = tmp_path / ("lines.jsonl" + suffix.replace(".txt", ""))
    rows = [{"text": "one\ntwo"}, {"text": None, "id": 1}, {"text": "日本" * 400_000}, {"text": ""}]
    content = "\n".join(map(json.dumps, rows)) + "\r\n\n" + json.dumps({"text": "no line end"})
    path.write_bytes(COMPRESS[suffix](content.encode()))
    assert documents(path) == (["one\ntwo", "", "日本" * 400_000, "", "", "no line end"], path.stat().st_size)


def test_read_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    texts = [f"row {number}" for number in range(3000)] + [None]
    parquet.write_table(pyarrow.table({"body": texts, "id": list(range(3001))}), path)
    assert documents(path, "body")[0] == [text or "" for text in texts]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"abc" * 500_000 + b"\xff", "a.txt is not UTF-8: byte 0xff at offset 1500000"),
        ("a.txt", "é".encode()[:1], "a.txt is not UTF-8: byte 0xc3 at offset 0"),
        ("a.txt", b"x" * (2**20 - 1) + "é".encode() + b"\xff", "byte 0xff at offset 1048577"),
        ("a.txt", "wide text".encode("utf-16-le"), "a.txt is UTF-16LE, not UTF-8"),
        (
            "a.gz",
            gzip.compress("wide text".encode("utf-16-le"), mtime=0),
            "a.gz, extracted, is UTF-16LE, not UTF-8",
        ),
        ("a.gz", b"plain text", "a.gz is a damaged or .* gzip file; copy it again, or rename it if it is plain"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": 1}',
            "a.jsonl, line 2: the field 'text' must be a string .* got int",
        ),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"body": "b"}',
            "a.jsonl, line 2 has no field 'text', but fields body; .*--field",
        ),
        ("a.jsonl", b'["text"]', "a.jsonl, line 1 has no field 'text', but list"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "a.jsonl, line 2 is not valid JSON"),
        ("a.jsonl", b'{"text": "a\\ud800"}', "a.jsonl, line 1: the field 'text' has half of a surrogate pair"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1 is not valid JSON"),
        ("a.parquet", b"PAR1 not really", "a.parquet is not a valid Parquet file"),
    ],
)
def test_read_blocks_names_the_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        documents(tmp_path / name)


def test_read_fields_with_line_ends_of_windows(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a\r\nb\rc\n\n"}))
    parquet.write_table(pyarrow.table({"text": ["a\r\nb\rc\n\n"]}), tmp_path / "a.parquet")
    for name in "a.jsonl", "a.parquet":
        assert documents(tmp_path / name)[0] == ["a\nb\nc\n\n"]


def test_read_damaged_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"text": [f"row {number}" for number in range(99)]}), path)
    content = bytearray(path.read_bytes())
    content[100:400] = bytes(300)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"rows\.parquet is not a valid Parquet file"):
        documents(path)


def test_read_parquet_of_invalid_utf8(tmp_path):
    texts = pyarrow.array([b"a\xff"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet is not a valid Parquet file: 'utf-8' codec"):
        documents(tmp_path / "rows.parquet")


def test_read_parquet_without_the_column(tmp_path):
    parquet.write_table(pyarrow.table({"body": ["a"], "n": [1]}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows.parquet has no field 'text', but fields body, n"):
        documents(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows.parquet: the field 'n' must be a string or null, got int"):
        documents(tmp_path / "rows.parquet", "n")


def test_find_text_files(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.py", ".hidden/d.txt", "sub/.e", "sub/Thumbs.db", "desktop.ini"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "sub/loop").symlink_to(tmp_path)
    expected = [tmp_path / name for name in ("a.txt", "b.txt", "sub/c.py")]
    assert find_text_files([tmp_path]) == expected
    assert find_text_files([str(tmp_path / "**/*.txt"), tmp_path]) == expected
    assert find_text_files([tmp_path / "sub/c.py", tmp_path / "*.txt"]) == [expected[2], *expected[:2]]
    for missing in ("none.txt", "*.csv"):
        with pytest.raises(FileNotFoundError, match="names no file; give"):
            find_text_files([tmp_path / missing])


def test_find_text_files_names_an_unreadable_folder(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "sub").mkdir()
    scan = os.scandir

    def refuse(path):  # as for a user without the permission, unlike root
        if str(path).endswith("sub"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in refuse(path)])
    with pytest.raises(PermissionError, match="sub"):
        find_text_files([tmp_path])


@settings(max_examples=200, deadline=None)
@given(text=st.text("aé日😀\r\n\ufeff"), size=st.integers(1, 7))
def test_decode_blocks_equals_python_text_files(text, size):
    content = text.encode()
    blocks = [content[begin : begin + size] for begin in range(0, len(content), size)]
    expected = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig").read()
    assert "".join(decode_blocks(blocks, origin="here")) == expected
