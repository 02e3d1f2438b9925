"""Encode files into directories of ids: the ids of each document, and the same bytes after any interruption."""

import errno
import gzip
import json
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest

import jaxlm
from jaxlm.text import encode_files as module, token_writer
from jaxlm.text.encode_files import encode_files
from jaxlm.text.pieces import cut_text
from jaxlm.utils.directory_lock import lock_directory

PROSE = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n  All:\tSpeak,   speak. 日本 😀\n"
BPE = jaxlm.BPETokenizer.train(PROSE, 290)


@pytest.fixture
def folder(tmp_path):
    """A folder with plain text, compressed text, an empty file and JSON lines; and the texts of its documents."""
    source = tmp_path / "sources"
    source.mkdir()
    (source / "a.txt").write_text(PROSE * 40)
    (source / "b.txt.gz").write_bytes(gzip.compress(PROSE[::-1].encode() * 3))
    (source / "c.txt").write_text("")
    rows = [PROSE[begin : begin + 9] for begin in range(0, len(PROSE), 9)]
    (source / "d.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return source, [PROSE * 40, PROSE[::-1] * 3, "", *rows]


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    monkeypatch.setattr(module, "PIECE_LENGTH", 100)
    monkeypatch.setattr(module, "cut_text", lambda blocks: cut_text(blocks, 100))


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != ".lock"}


@pytest.mark.parametrize("tokenizer", [BPE, jaxlm.ByteTokenizer(), jaxlm.CharTokenizer.train(PROSE)])
def test_encode_files_gives_the_ids_of_each_document(folder, tmp_path, tokenizer):
    source, texts = folder
    stream = encode_files([source], tokenizer, tmp_path / "out", shard_size=500)
    expected = [tokenizer.encode(text) for text in texts]
    assert np.asarray(stream).tolist() == np.concatenate(expected).tolist()
    assert (stream.dtype, stream.vocab_size, stream.tokenizer) == (np.uint16, tokenizer.vocab_size, tokenizer)
    assert len(stream.shards) > 3
    assert all(500 <= len(shard) < 1000 for shard in stream.shards[:-1])
    ends = np.load(tmp_path / "out/document_ends.npy")
    assert ends.tolist() == np.cumsum([len(ids) for ids in expected]).tolist()
    rows = [json.loads(line) for line in (tmp_path / "out/sources.jsonl").read_text().splitlines()]
    assert [row["num_documents"] for row in rows] == [1, 1, 1, len(texts) - 3]
    assert [row["num_tokens"] for row in rows] == [*map(len, expected[:3]), sum(map(len, expected[3:]))]
    assert [row["path"] for row in rows] == sorted(map(str, source.iterdir()))


def test_encode_files_trains_a_tokenizer(folder, tmp_path):
    source, _ = folder
    text = "".join(folder[1])
    for kind, trained in {
        "bpe": jaxlm.BPETokenizer.train(text, 300),
        "char": jaxlm.CharTokenizer.train(text),
    }.items():
        size = 300 if kind == "bpe" else None
        stream = encode_files([source], kind, tmp_path / kind, vocab_size=size)
        assert stream.tokenizer == trained


def test_encode_files_ends_in_the_same_bytes_after_an_interruption(folder, tmp_path, monkeypatch):
    """Stop before each write, in an order that a killed process leaves, and go on."""
    source, _ = folder
    encode_files([source], "bpe", tmp_path / "whole", vocab_size=300, shard_size=400, workers=1)
    expected = contents(tmp_path / "whole")
    write, num_writes = token_writer.write_atomically, 0

    def count(*arguments):
        nonlocal num_writes
        num_writes += 1
        write(*arguments)

    monkeypatch.setattr(token_writer, "write_atomically", count)
    encode_files([source], "bpe", tmp_path / "counted", vocab_size=300, shard_size=400)
    assert num_writes > 12
    for stop in range(num_writes):
        remaining = stop

        def write_some(*arguments):
            nonlocal remaining
            if not remaining:
                raise OSError("killed")
            remaining -= 1
            write(*arguments)

        out = tmp_path / f"stop{stop}"
        monkeypatch.setattr(token_writer, "write_atomically", write_some)
        with pytest.raises(OSError, match="killed"):
            encode_files([source], "bpe", out, vocab_size=300, shard_size=400)
        with pytest.raises(FileNotFoundError, match="it has no index"):
            jaxlm.open_tokens(out)
        monkeypatch.setattr(token_writer, "write_atomically", write)
        encode_files([source], "bpe", out, vocab_size=300, shard_size=400, workers=3)
        assert contents(out) == expected
        (out / "progress.json").write_text("left by a process that was killed before it removed this file")
        assert len(encode_files([source], "bpe", out, vocab_size=300, shard_size=400)) > 100
        assert contents(out) == expected


def test_encode_files_refuses_another_directory(folder, tmp_path, monkeypatch):
    source, _ = folder
    encode_files([source], BPE, tmp_path / "out")
    with pytest.raises(ValueError, match="holds another encoding"):
        encode_files([source], "byte", tmp_path / "out")
    shutil.copytree(source, tmp_path / "mine")
    with pytest.raises(ValueError, match=r"is not empty: it has a\.txt; choose another"):
        encode_files([source], BPE, tmp_path / "mine")
    with monkeypatch.context() as patch:
        patch.setattr(token_writer.TokenWriter, "end_source", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encode_files([source], BPE, tmp_path / "half", shard_size=9)
    with pytest.raises(ValueError, match="holds another encoding, which is not complete"):
        encode_files([source / "a.txt"], BPE, tmp_path / "half", shard_size=9)


def test_encode_files_names_the_file(folder, tmp_path):
    source, _ = folder
    (source / "b2.txt").write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match=r"b2\.txt is not UTF-8: byte 0xff at offset 3"):
        encode_files([source], BPE, tmp_path / "out", shard_size=100)
    assert len(list((tmp_path / "out").glob("0*.npy"))) > 3  # what was finished stays
    with pytest.raises(ValueError, match=r"a\.txt: character 'F' at position 0 is not among"):
        encode_files([source / "a.txt"], jaxlm.CharTokenizer.train("abc"), tmp_path / "char")
    with pytest.raises(ValueError, match=r"c\.txt has no text"):
        encode_files([source / "c.txt"], BPE, tmp_path / "empty")
    with pytest.raises(ValueError, match="vocab_size 300 is for training a BPE tokenizer"):
        encode_files([source], "byte", tmp_path / "no", vocab_size=300)


@pytest.mark.parametrize("out", ["tokens", "link/tokens"])
def test_encode_files_does_not_read_its_own_output(tmp_path, out):
    (tmp_path / "a.txt").write_text(PROSE)
    (tmp_path / "link").symlink_to(tmp_path)
    for _ in range(2):
        stream = encode_files(tmp_path, "byte", tmp_path / out)
        assert bytes(np.asarray(stream).tolist()) == PROSE.encode()
    with pytest.raises(ValueError, match=r"paths must name a file outside of .*tokens; pass at least one"):
        encode_files(tmp_path / "tokens", "byte", tmp_path / "tokens")


def test_encode_files_locks_the_directory_without_flock(folder, tmp_path, monkeypatch, caplog):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    (tmp_path / "out").mkdir()
    held = pytest.raises(BlockingIOError, match=r"out is in use by another process; .* remove .*\.lock-soft")
    with lock_directory(tmp_path / "out"), held:
        encode_files(folder[0], "byte", tmp_path / "out")
    assert len(encode_files(folder[0], "byte", tmp_path / "out")) > 100
    assert "has no file locks" in caplog.text


def test_encode_files_removes_temporary_files_of_a_killed_process(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    leftover = out / f".{'0f' * 16}"
    for _ in range(2):
        leftover.write_text("a part of a file")
        encode_files(folder[0], "byte", out)
        assert not leftover.exists()


def test_encode_files_names_the_file_that_does_not_fit(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(token_writer, "sync", lambda _: os.fsync(10**6))  # raises an OSError without a name
    with pytest.raises(OSError, match="Bad file descriptor") as error:
        encode_files(folder[0], "byte", tmp_path / "out")
    assert error.value.filename.endswith(".jsonl")


def test_encode_files_shows_each_byte_once(folder, tmp_path, monkeypatch):
    shown = Counter()

    def track(console, title, items, total):
        for item, num_bytes in items:
            shown[title] += num_bytes
            yield item
        assert shown[title] == total

    monkeypatch.setattr(module, "track", track)
    encode_files([folder[0]], "bpe", tmp_path / "out", vocab_size=300)
    assert set(shown) == {"training", "encoding"}


def test_encode_files_takes_few_of_many_empty_documents_at_a_time(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n" * 1000 + '{"text": "x"}')
    lengths = []

    class Recorder(ThreadPoolExecutor):
        def submit(self, function, pieces):
            lengths.append(len(pieces))
            return super().submit(function, pieces)

    with Recorder(1) as executor:
        encode_files(tmp_path / "a.jsonl", "byte", tmp_path / "out", executor=executor)
    assert max(lengths) == 100
    assert len(lengths) > 10


@pytest.mark.parametrize(("tokenizer", "size", "message"), [
    ("bpe", 0, "vocab_size must be at least 256, the number of bytes, got 0"),
    ("mine.json", None, "tokenizer must be 'char', 'byte', 'bpe' or a Path to a saved one, got 'mine.json'"),
])  # fmt: skip
def test_encode_files_refuses_a_tokenizer(folder, tmp_path, tokenizer, size, message):
    with pytest.raises(ValueError, match=message):
        encode_files(folder[0], tokenizer, tmp_path / "out", vocab_size=size)


def test_encode_files_notices_an_unwritable_directory_before_training(folder, tmp_path):
    with pytest.raises(NotADirectoryError, match=r"a\.txt/tokens"):
        encode_files(folder[0], "bpe", folder[0] / "a.txt" / "tokens", vocab_size=0)


@pytest.mark.parametrize("workers", [0, 1025])
def test_encode_files_limits_workers(folder, tmp_path, workers):
    with pytest.raises(ValueError, match=rf"workers must be in \[1, 1024\], got {workers}"):
        encode_files(folder[0], "byte", tmp_path / "out", workers=workers)


def test_encode_files_of_a_large_vocabulary(tmp_path):
    characters = "".join(map(chr, range(0x10000, 0x10000 + 70_000)))
    (tmp_path / "a.txt").write_text(characters)
    stream = encode_files([tmp_path / "a.txt"], "char", tmp_path / "out")
    assert stream.dtype == np.uint32
    assert np.asarray(stream).tolist() == list(range(70_000))


def test_encode_files_names_a_file_that_changes(folder, tmp_path, monkeypatch):
    source, _ = folder

    def end_source(writer, path, original=token_writer.TokenWriter.end_source):
        original(writer, path)
        with (source / "a.txt").open("a") as file:
            file.write("more")

    monkeypatch.setattr(token_writer.TokenWriter, "end_source", end_source)
    with pytest.raises(ValueError, match=r"a\.txt changed while it was encoded; encode it again"):
        encode_files([source], BPE, tmp_path / "out")
    assert not (tmp_path / "out/index.json").exists()
