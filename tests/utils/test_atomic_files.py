"""After a failed write, the old file is still there. Only regular files are read."""

import contextlib
import errno
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from jaxlm.utils.atomic_files import (
    is_temporary,
    make_parents,
    read_regular,
    remove,
    sync,
    temporary_path,
    write_atomically,
)


@pytest.mark.parametrize("content", ["", "two\r\nlines\n", "é ☃ 🎲", bytes(range(256)), ["é\n", "", "☃"]])
def test_write_atomically_replaces_the_file(tmp_path, content):
    (tmp_path / "file").write_text("a longer old content", "utf-8")
    write_atomically(str(tmp_path / "file"), content)
    expected = content if isinstance(content, bytes) else "".join(content).encode()
    assert (tmp_path / "file").read_bytes() == expected
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_write_atomically_syncs_before_and_after_the_rename(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old", "utf-8")
    events = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor):
        events.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def record_replace(temporary, target):
        events.append((temporary.stat().st_ino, temporary.read_text("utf-8"), Path(target).read_text("utf-8")))
        return replace(temporary, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_atomically(tmp_path / "file", "new")
    new = (tmp_path / "file").stat().st_ino
    assert events == [new, (new, "new", "old"), tmp_path.stat().st_ino]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_write_atomically_failure_keeps_the_old_file(tmp_path, monkeypatch, error):
    (tmp_path / "file").write_text("old", "utf-8")
    monkeypatch.setattr(os, "fsync", Mock(side_effect=error))
    with pytest.raises(type(error)) as caught:
        write_atomically(tmp_path / "file", "new")
    if isinstance(error, OSError):
        assert str(caught.value) == f"[Errno 28] No space left on device: '{tmp_path / 'file'}'"
    assert [path.read_text("utf-8") for path in tmp_path.iterdir()] == ["old"]


def test_write_atomically_creates_folders_only_on_request(tmp_path):
    with pytest.raises(FileNotFoundError, match="moved"):
        write_atomically(tmp_path / "moved" / "file", "new")
    assert not (tmp_path / "moved").exists()
    write_atomically(tmp_path / "moved" / "file", "new", parents=True)
    assert (tmp_path / "moved" / "file").read_text("utf-8") == "new"


@pytest.mark.parametrize(
    ("files", "left"), [([], ["mine"]), (["new/file"], ["mine", "mine/new", "mine/new/file"])]
)
def test_make_parents_leaves_no_empty_folder_after_an_error(tmp_path, files, left):
    (tmp_path / "mine").mkdir()
    with contextlib.suppress(KeyboardInterrupt), make_parents(tmp_path / "mine/new/a/model"):
        assert (tmp_path / "mine/new/a").is_dir()
        for name in files:
            (tmp_path / "mine" / name).touch()
        raise KeyboardInterrupt
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == left


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_sync_ignores_only_directories_that_cannot_be_synced(tmp_path, monkeypatch, number):
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(number, os.strerror(number))))
    with pytest.raises(OSError, match=os.strerror(number)) if number == errno.EIO else contextlib.nullcontext():
        sync(tmp_path)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path / "file")


def test_temporary_path_is_new_hidden_and_recognized(tmp_path):
    paths = {temporary_path(tmp_path / "file") for _ in range(10)}
    assert len(paths) == 10
    assert all(path.parent == tmp_path and path.name[0] == "." and is_temporary(path.name) for path in paths)
    assert not any(map(is_temporary, ["file", ".file", ".git", "." + "0" * 31, "0" * 32, "." + "0" * 33]))


def test_remove_takes_everything_and_follows_no_link(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "file").touch()
    (tmp_path / "directory" / "deep").mkdir(parents=True)
    for name in ("file", "directory", "link", "nothing"):
        remove(tmp_path / name)
    assert set(tmp_path.rglob("*")) == {tmp_path / "kept", tmp_path / "kept" / "file"}


def test_remove_renames_a_directory_first(tmp_path, monkeypatch):
    (tmp_path / "directory").mkdir()
    monkeypatch.setattr("shutil.rmtree", Mock(side_effect=OSError("no")))
    with pytest.raises(OSError, match="no"):
        remove(tmp_path / "directory")
    assert [is_temporary(path.name) for path in tmp_path.iterdir()] == [True]


def test_read_regular_reads_files_and_links_only(tmp_path):
    (tmp_path / "file").write_bytes(b"\x00content\r\n")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(tmp_path / "link") == b"\x00content\r\n"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"{path} is a pipe or a device"):
            read_regular(path)
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read_regular(tmp_path)
