"""Any change to a document or directory with checksums is an error."""

import functools
import hashlib
import json
import os

import pytest

from jaxlm.utils.checksums import add_checksum, file_checksums, sha256_of, verify_checksum, verify_file_checksums
from jaxlm.utils.json_files import parse_json


def verify(content):
    """Parse a document as the readers do, and verify it."""
    return verify_checksum(parse_json(content, origin="here"), origin="here")


def test_add_checksum_round_trip():
    document = {"version": 1, "b": [1.5, None], "a": {"x": "é"}}
    content = add_checksum(document)
    assert verify(content) == document
    canonical = b'{"a":{"x":"\\u00e9"},"b":[1.5,null],"version":1}'
    assert json.loads(content)["sha256"] == hashlib.sha256(canonical).hexdigest() == sha256_of(canonical)


def test_verify_checksum_covers_every_bit():
    document = {"version": 1, "a": [0.1, "text", None], "b": {"c": True}}
    content = add_checksum(document).encode()
    harmless = 0
    for position in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            try:
                assert verify(bytes(changed)) == document
                harmless += 1  # a space that became another white space
            except ValueError:
                pass
    assert harmless < content.count(b" ") + content.count(b"\n")


DEEP = functools.reduce(lambda inner, _: [inner], range(5000), [])


@pytest.mark.parametrize(
    "change",
    [{"a": True}, {"a": "1"}, {"b": 0}, {"sha256": "0" * 64}, {"a": float("inf")}, {"a": {}}, {"a": DEEP}],
)
def test_verify_checksum_mismatch(change):
    document = json.loads(add_checksum({"version": 1, "a": 1}))
    with pytest.raises(ValueError, match="here is damaged: checksum mismatch"):
        verify_checksum(document | change, origin="here")


@pytest.mark.parametrize("document", [None, [], 1, "text", {}, {"a": 1}, {"sha256": 1}, {"sha256": None}])
def test_verify_checksum_missing(document):
    with pytest.raises(ValueError, match="here is damaged: it has no sha256"):
        verify_checksum(document, origin="here")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a" * 2**24], ids=["NaN", "infinity", "too long"])
def test_add_checksum_refuses_what_cannot_be_read(value):
    with pytest.raises(ValueError, match=r"JSON compliant|at most 16,777,216 can be read back"):
        add_checksum({"a": value})


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "file").write_bytes(b"content")
    (folder / "deep" / "file").write_bytes(b"x" * (2**20 + 1))
    return folder


def test_file_checksums_of_every_file(folder):
    contents = {"file": b"content", "deep/file": b"x" * (2**20 + 1)}
    expected = {name: [len(each), hashlib.sha256(each).hexdigest()] for name, each in contents.items()}
    assert file_checksums(folder) == expected
    verify_file_checksums(folder, expected)


DAMAGE = {
    "changed": (lambda folder: (folder / "file").write_bytes(b"consent"), "checksum mismatch in file 'file'"),
    # Reading so large a file would take minutes.
    "grown": (lambda folder: os.truncate(folder / "file", 2**40), "checksum mismatch in file 'file'"),
    "cut": (lambda folder: os.truncate(folder / "file", 3), "checksum mismatch in file 'file'"),
    "deleted": (lambda folder: (folder / "deep" / "file").unlink(), "file 'deep/file' is missing"),
    "added": (lambda folder: (folder / "deep" / "more").touch(), "unexpected file 'deep/more'"),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), "unexpected file 'pipe'"),
    "link": (lambda folder: replace(folder / "file", "content"), "file is a symbolic link"),
    "link to a directory": (lambda folder: replace(folder / "deep", ".."), "unexpected file 'deep'"),
    "directory": (lambda folder: replace(folder / "file", None).mkdir(), "file 'file' is missing"),
    "link to all": (lambda folder: replace(folder, "moved"), "folder is a symbolic link"),
    "all deleted": (lambda folder: replace(folder, None), "folder is damaged: .*No such file"),
}


def replace(path, target):
    """Move the path out of the folder, and put a link to the target in its place if there is one."""
    path.rename(path.parent / ("moved" if path.name == "folder" else "../moved"))
    if target is not None:
        path.symlink_to(target)
    return path


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_verify_file_checksums_names_the_damage(folder, damage, message):
    checksums = file_checksums(folder)
    damage(folder)
    with pytest.raises(ValueError, match=message):
        verify_file_checksums(folder, checksums)


@pytest.mark.parametrize("wrong", [None, 1, {}, "7", [], [7], [7.0, "x"], ["7", "x"], [[7]]], ids=str)
def test_verify_file_checksums_malformed(folder, wrong):
    with pytest.raises(ValueError, match="checksum mismatch in file 'file'"):
        verify_file_checksums(folder, file_checksums(folder) | {"file": wrong})


def test_file_checksums_deeper_than_the_stack(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(900):
        os.mkdir("a", dir_fd=descriptor)
        inner = os.open("a", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    assert file_checksums(tmp_path) == {}
