"""A file is the old one or the new one, never a part of either."""

import errno
import os
from pathlib import Path

import pytest

from jaxlm.files import write_atomically


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text", b"text"),
        ("", b""),
        ("two\r\nlines\n", b"two\r\nlines\n"),
        ("é ☃ 🎲", "é ☃ 🎲".encode()),
        (bytes(range(256)), bytes(range(256))),
    ],
)
def test_content_is_written_as_it_is(tmp_path, content, expected):
    write_atomically(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == expected


def test_path_may_be_a_string(tmp_path):
    write_atomically(str(tmp_path / "file"), "text")
    assert (tmp_path / "file").read_text("utf-8") == "text"


def test_old_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "file").write_text("a longer old content", "utf-8")
    write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text("utf-8") == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_new_file_is_whole_and_synced_before_it_takes_the_name(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old", "utf-8")
    events = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor):
        events.append("sync")
        fsync(descriptor)

    def watched_replace(temporary, target):
        events.append((temporary.read_text("utf-8"), Path(target).read_text("utf-8")))
        return replace(temporary, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_atomically(tmp_path / "file", "new")
    assert events == ["sync", ("new", "old")]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    (tmp_path / "file").write_text("old", "utf-8")

    def fail(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        write_atomically(tmp_path / "missing" / "file", "text")
    assert not list(tmp_path.iterdir())


def test_folder_in_the_way_is_an_error_and_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "text")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/results\.json'"):
        write_atomically(tmp_path / "results.json", "{}")
    assert not list(tmp_path.iterdir())
