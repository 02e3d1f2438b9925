"""Token directories and `.bin` files open as memory maps, and damage is reported with the file's name."""

import hashlib
import json

import numpy as np
import pytest

import jaxlm
from jaxlm.utils.json_files import add_checksum

SHARDS = [np.arange(5, dtype=np.uint16), np.arange(3, 10, dtype=np.uint16)]


@pytest.fixture
def directory(tmp_path):
    """Write a token directory of two shards."""
    files = [f"{number:06}.npy" for number in range(len(SHARDS))]
    for file, shard in zip(files, SHARDS, strict=True):
        np.save(tmp_path / file, shard)
    jaxlm.CharTokenizer("abcdefghij").save(tmp_path / "tokenizer.json")
    (tmp_path / "sources.jsonl").write_text("{}\n")
    np.save(tmp_path / "document_ends.npy", np.array([12]))
    entries = {
        path.name: {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in tmp_path.iterdir()
    }
    shards = [entries[file] | {"num_tokens": len(shard)} for file, shard in zip(files, SHARDS, strict=True)]
    others = {name.partition(".")[0]: entry for name, entry in entries.items() if name not in files}
    index = {"version": 1, "vocab_size": 10, "dtype": "uint16", "num_tokens": 12, "shards": shards, **others}
    (tmp_path / "index.json").write_text(add_checksum(index))
    return tmp_path


def test_open_tokens_of_a_directory(directory):
    stream = jaxlm.open_tokens(str(directory))
    np.testing.assert_array_equal(stream, np.concatenate(SHARDS))
    assert (stream.vocab_size, stream.dtype) == (10, np.uint16)
    assert stream.tokenizer.decode(stream[3:7]) == "dede"
    assert all(isinstance(shard.base, np.memmap) for shard in stream.shards)
    assert stream[2:].tokenizer is stream.tokenizer


def test_open_tokens_of_a_bin_file(tmp_path):
    path = tmp_path / "train.bin"
    path.write_bytes(bytes([5, 0, 0, 1]))
    stream = jaxlm.open_tokens(path)
    assert (np.asarray(stream).tolist(), stream.vocab_size, stream.tokenizer) == ([5, 256], 65_536, None)
    assert jaxlm.open_tokens(path, vocab_size=257).vocab_size == 257
    with pytest.raises(ValueError, match=r"train\.bin: 256 is outside 0\.\.255"):
        jaxlm.open_tokens(path, vocab_size=256)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.bin", b"", r"train\.bin has 0 bytes, but uint16 ids take a multiple of 2"),
        ("train.bin", b"abc", r"train\.bin has 3 bytes"),
        ("train.txt", b"ab", r"train\.txt is neither a token directory nor a \.bin file; run `jaxlm encode`"),
    ],
)
def test_open_tokens_refuses_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        jaxlm.open_tokens(tmp_path / name)


def test_open_tokens_of_an_interrupted_encoding(directory):
    (directory / "index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no index\.json; run `jaxlm encode` again"):
        jaxlm.open_tokens(directory)


@pytest.mark.parametrize("name", ["000001.npy", "sources.jsonl", "document_ends.npy", "tokenizer.json"])
def test_open_tokens_compares_checksums(directory, name):
    content = bytearray((directory / name).read_bytes())
    content[-1] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is damaged: checksum mismatch"):
        jaxlm.open_tokens(directory)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (np.arange(5, dtype=np.uint32), r"000000\.npy is uint32\[5\], expected uint16\[5\]"),
        (np.arange(4, dtype=np.uint16), r"000000\.npy is uint16\[4\], expected uint16\[5\]"),
        (None, r"000000\.npy is damaged: mmap length is greater than file size"),
    ],
)
def test_open_tokens_without_verify_compares_headers(directory, shard, message):
    path = directory / "000000.npy"
    if shard is None:
        path.write_bytes(path.read_bytes()[:-1])
    else:
        np.save(path, shard)
    with pytest.raises(ValueError, match=message):
        jaxlm.open_tokens(directory, verify=False)


def test_open_tokens_of_a_changed_index(directory):
    path = directory / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"vocab_size": 99}))
    with pytest.raises(ValueError, match=r"index\.json is damaged: checksum mismatch"):
        jaxlm.open_tokens(directory)
    path.write_text(json.dumps(index | {"version": 2}))
    with pytest.raises(ValueError, match=r"index\.json is not a token directory of version 1"):
        jaxlm.open_tokens(directory)


def test_open_tokens_of_a_missing_path(tmp_path):
    for name in ("tokens", "train.bin"):
        with pytest.raises(FileNotFoundError):
            jaxlm.open_tokens(tmp_path / name)
