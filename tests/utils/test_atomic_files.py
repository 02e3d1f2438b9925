"""Files: the old one or the new one, never a part of either; read at no more than their cost, and checked."""

import contextlib
import errno
import hashlib
import json
import os
import socket
from pathlib import Path

import pytest

from jaxlm.utils import atomic_files as files
from jaxlm.utils.atomic_files import (
    commit_directory,
    is_temporary,
    read_regular,
    remove,
    sync,
    temporary_path,
    write_atomically,
)
from jaxlm.utils.checksums import add_checksum, file_checksums, verify_checksum, verify_file_checksums
from jaxlm.utils.json_files import check_version, parse_json, read_json


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


def test_new_file_is_whole_and_synced_before_it_takes_the_name_and_the_name_is_synced_too(tmp_path, monkeypatch):
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
    assert events == ["sync", ("new", "old"), "sync"]


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


def test_a_folder_that_cannot_be_written_keeps_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("old", "utf-8")

    def refuse(path, mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patches:
        patches.setattr(Path, "open", refuse)
        with pytest.raises(PermissionError, match=r"Permission denied: '.*/file'"):
            write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_folder_is_no_error_but_an_unsynced_file_is(tmp_path, monkeypatch, number):
    (tmp_path / "file").touch()

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    sync(tmp_path)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync(tmp_path / "file")


def test_a_disk_error_on_a_folder_is_told(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        sync(tmp_path)


# Folders.


def make_folder(path, content="new"):
    (path / "deep").mkdir(parents=True)
    (path / "file").write_text(content, "utf-8")
    (path / "deep" / "file").write_text(f"deep {content}", "utf-8")
    return path


def listing(folder):
    return {
        path.relative_to(folder).as_posix(): path.is_dir() or path.read_text("utf-8") for path in folder.rglob("*")
    }


def test_a_temporary_name_is_hidden_beside_the_path_and_known_again(tmp_path):
    names = {temporary_path(tmp_path / "file").name for _ in range(10)}
    assert len(names) == 10
    assert all(name.startswith(".") and is_temporary(name) for name in names)
    assert temporary_path(tmp_path / "file").parent == tmp_path
    assert not any(map(is_temporary, ["file", ".file", ".git", "." + "0" * 31, "0" * 32, "." + "0" * 33]))


def test_a_folder_is_published_whole_and_every_file_of_it_synced(tmp_path, monkeypatch):
    unfinished = make_folder(tmp_path / ".unfinished")
    synced = []
    real = files.sync
    monkeypatch.setattr(files, "sync", lambda path: (synced.append(path), real(path)))
    commit_directory(unfinished, tmp_path / "folder")
    assert listing(tmp_path) == {
        "folder": True,
        "folder/file": "new",
        "folder/deep": True,
        "folder/deep/file": "deep new",
    }
    assert set(synced[:-1]) == {
        unfinished,
        unfinished / "deep",
        unfinished / "file",
        unfinished / "deep" / "file",
    }
    assert synced[-1] == tmp_path


@pytest.mark.parametrize("kind", ["folder", "empty", "file", "link"])
def test_a_folder_is_published_over_nothing_that_is_there(tmp_path, kind):
    taken = tmp_path / "taken"
    {
        "folder": lambda: make_folder(taken, "old"),
        "empty": taken.mkdir,
        "file": taken.touch,
        "link": lambda: taken.symlink_to(tmp_path / "nowhere"),
    }[kind]()
    before = listing(tmp_path) if kind != "link" else None
    unfinished = make_folder(tmp_path / "unfinished")
    with pytest.raises(FileExistsError, match="taken"):
        commit_directory(unfinished, taken)
    assert taken.is_symlink() if kind == "link" else {**before, **listing(tmp_path)} == listing(tmp_path)
    assert unfinished.is_dir()


@pytest.mark.parametrize("kind", ["nothing", "folder", "file"])
def test_a_folder_replaces_what_is_there_where_it_may(tmp_path, kind):
    if kind == "folder":
        make_folder(tmp_path / "folder", "old")
    if kind == "file":
        (tmp_path / "folder").touch()
    commit_directory(make_folder(tmp_path / "unfinished"), tmp_path / "folder", replace=True)
    assert listing(tmp_path) == {
        "folder": True,
        "folder/file": "new",
        "folder/deep": True,
        "folder/deep/file": "deep new",
    }


def test_what_was_to_be_replaced_comes_back_where_the_new_folder_cannot_take_its_place(tmp_path, monkeypatch):
    old, unfinished = make_folder(tmp_path / "folder", "old"), make_folder(tmp_path / "unfinished")
    before = listing(old)
    rename = Path.rename

    def fail_for_unfinished(path, target):
        if path == unfinished:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_unfinished)
    with pytest.raises(OSError, match="No space"):
        commit_directory(unfinished, old, replace=True)
    assert listing(old) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "unfinished"]


def test_a_folder_that_cannot_be_synced_replaces_nothing(tmp_path, monkeypatch):
    old, unfinished = make_folder(tmp_path / "folder", "old"), make_folder(tmp_path / "unfinished")
    before = listing(old)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        commit_directory(unfinished, old, replace=True)
    assert listing(old) == before


def test_a_file_a_folder_and_a_link_are_removed_and_what_a_link_names_stays(tmp_path):
    kept = make_folder(tmp_path / "kept")
    before = listing(kept)
    (tmp_path / "file").touch()
    make_folder(tmp_path / "folder")
    (tmp_path / "link").symlink_to(kept)
    for name in ("file", "folder", "link", "nothing"):
        remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == [kept]
    assert listing(kept) == before


def test_a_folder_is_gone_before_its_files_are_removed_one_by_one(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "folder")

    def crash(path):
        assert is_temporary(path.name)
        assert not folder.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", crash)
    with pytest.raises(KeyboardInterrupt):
        remove(folder)


# Reading.


def test_a_regular_file_is_read_whole_also_through_a_link_unless_links_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"\x00content\r\n")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(str(tmp_path / "link")) == b"\x00content\r\n"
    assert read_regular(tmp_path / "file", follow_links=False) == b"\x00content\r\n"
    with pytest.raises(ValueError, match="link is a link; only what lies here itself is read"):
        read_regular(tmp_path / "link", follow_links=False)


def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"/pipe is a pipe or a device"):
        read_regular(tmp_path / "pipe")


def test_a_device_and_a_socket_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="/dev/zero is a pipe or a device"):
        read_regular("/dev/zero")
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(OSError, match="socket"):
            read_regular("socket")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read_regular(tmp_path)


def test_a_file_longer_than_its_kind_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", max_bytes=5) == b"12345"
    with pytest.raises(ValueError, match="file is longer than 4 bytes"):
        read_regular(tmp_path / "file", max_bytes=4)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"sparse is longer than 16,777,216 bytes"):
        read_json(tmp_path / "sparse")


def test_a_file_larger_than_memory_is_an_os_error(tmp_path, monkeypatch):
    class Huge:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            os.close(self.descriptor)

        def read(self):
            raise MemoryError

    def open_huge(descriptor, mode):
        huge = Huge()
        huge.descriptor = descriptor
        return huge

    (tmp_path / "file").touch()
    monkeypatch.setattr(files, "open", open_huge, raising=False)
    with pytest.raises(OSError, match=r"Cannot allocate memory: '.*/file'"):
        read_regular(tmp_path / "file")


def test_no_descriptor_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"{}")
    (tmp_path / "link").symlink_to("file")
    open_files = Path("/proc/self/fd")
    if not open_files.exists():
        pytest.skip("this system does not list a process's open files in /proc")
    before = len(list(open_files.iterdir()))
    for name in ("pipe", "file", "link", "", "missing"):
        for follow_links in (True, False):
            for read in (read_regular, read_json):
                with contextlib.suppress(OSError, ValueError):
                    read(tmp_path / name, follow_links=follow_links)
    assert len(list(open_files.iterdir())) == before


NO_JSON = {
    "empty": b"",
    "cut": b'{"a": ',
    "no UTF-8": b'"\xff"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "binary": bytes(range(256)),
    "NaN": b'{"a": NaN}',
    "infinity": b"[-Infinity]",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an integer of 10,000 digits": b"1" * 10_000,
    "two documents": b"{} {}",
    "a byte order mark": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("content", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_a_value_error_that_names_the_file(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.json is damaged: it is no JSON$"):
        read_json(tmp_path / "file.json")


def test_json_is_read_as_it_is(tmp_path):
    document = {"a": [1, 2.5, None, True, "é\ud800"], "": {}}
    (tmp_path / "file.json").write_text(json.dumps(document), "utf-8")
    assert read_json(tmp_path / "file.json") == document
    assert parse_json('{"a": 1}', origin="here") == parse_json(b'{"a": 1}', origin="here") == {"a": 1}
    with pytest.raises(ValueError, match="here holds JSON longer than 16,777,216 bytes"):
        parse_json("1" * (2**24 + 1), origin="here")


# Documents with a sum.


def test_a_sealed_document_comes_back_and_is_the_same_text_each_time():
    document = {"version": 1, "b": [1.5, None], "a": {"x": "é"}}
    assert add_checksum(document) == add_checksum(dict(document))
    assert verify_checksum(json.loads(add_checksum(document)), origin="here") == document
    assert (
        json.loads(add_checksum(document))["sha256"]
        == hashlib.sha256(b'{"a":{"x":"\\u00e9"},"b":[1.5,null],"version":1}').hexdigest()
    )


@pytest.mark.parametrize(
    "change",
    [{"a": 2}, {"a": True}, {"a": "1"}, {"b": 0}, {"sha256": "0" * 64}, {"sha256": None}, {"a": float("inf")}],
)
def test_a_change_to_a_sealed_document_is_noticed(change):
    document = json.loads(add_checksum({"version": 1, "a": 1}))
    with pytest.raises(ValueError, match="here is damaged"):
        verify_checksum(document | change, origin="here")


def test_one_changed_bit_anywhere_is_noticed_or_means_the_same():
    document = {"version": 1, "a": [0.1, "text", None], "b": {"c": True}}
    content = add_checksum(document).encode()
    same = 0
    for position in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            try:
                assert verify_checksum(parse_json(bytes(changed), origin="here"), origin="here") == document
                same += 1  # a space that became a line's end
            except ValueError:
                pass
    assert same < content.count(b" ") + content.count(b"\n")


@pytest.mark.parametrize("document", [None, [], 1, "text", {}, {"a": 1}, {"sha256": 1}])
def test_what_was_never_sealed_is_refused(document):
    with pytest.raises(ValueError, match="here is damaged: it has no sha256"):
        verify_checksum(document, origin="here")


def test_a_document_too_deep_to_write_is_a_value_error():
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="here is damaged: its content"):
        verify_checksum({"a": deep, "sha256": "0" * 64}, origin="here")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a" * 2**24], ids=["NaN", "infinity", "too long"])
def test_nothing_is_sealed_that_could_not_be_read_again(value):
    with pytest.raises(ValueError, match=r"JSON compliant|no more than 16,777,216 are read back"):
        add_checksum({"a": value})


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({"version": 3}, "version: 3"),
        ({"version": 1}, "version: 1"),
        ({"version": 2.0}, r"version: 2\.0"),
        ({"version": True}, "version: True"),
        ({"version": "2"}, "version: '2'"),
        ({}, "version: None"),
        ([2], "version: None"),
        ({"version": "x" * 10_000}, r"version: 'x{5,40}\.\.\.x{5,40}'"),
    ],
    ids=str,
)
def test_only_the_wanted_version_is_read_and_another_is_shown(document, shown):
    with pytest.raises(ValueError, match=rf"^here is not a thing of version 2 \({shown}\); .* use the jaxlm that"):
        check_version(document, 2, origin="here", what="thing")
    check_version({"version": 2}, 2, origin="here", what="thing")


def test_a_version_as_deep_as_json_allows_is_shown_short():
    document = 1
    for _ in range(100_000):
        document = [document]
    with pytest.raises(ValueError, match="of version 2"):
        check_version({"version": document}, 2, origin="here", what="thing")


# Sums of files.


def test_sums_are_of_every_file_by_its_name(tmp_path):
    make_folder(tmp_path / "folder")
    content = {"file": b"new", "deep/file": b"deep new"}
    assert file_checksums(tmp_path / "folder") == {
        name: [len(each), hashlib.sha256(each).hexdigest()] for name, each in content.items()
    }


def change(folder):
    (folder / "file").write_text("nex", "utf-8")


def grow(folder):
    with (folder / "file").open("ab") as file:
        file.truncate(2**40)  # reading it would take minutes


def shorten(folder):
    (folder / "file").write_text("ne", "utf-8")


def lose(folder):
    (folder / "deep" / "file").unlink()


def add(folder):
    (folder / "deep" / "another").touch()


def link(folder):
    (folder / "file").rename(folder.parent / "file")
    (folder / "file").symlink_to(folder.parent / "file")


def link_folder(folder):
    (folder / "deep").rename(folder.parent / "deep")
    (folder / "deep").symlink_to(folder.parent / "deep")


def make_pipe(folder):
    os.mkfifo(folder / "pipe")


def make_folder_of_file(folder):
    (folder / "file").unlink()
    (folder / "file").mkdir()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (change, "its file 'file' has changed"),
        (grow, "its file 'file' has changed"),
        (shorten, "its file 'file' has changed"),
        (lose, "its file 'deep/file' is missing"),
        (add, "a file that was not saved, 'deep/another'"),
        (link, "file is a link|its file 'file' has changed"),
        (link_folder, "'deep'"),
        (make_pipe, "'pipe'"),
        (make_folder_of_file, "its file 'file' is missing"),
    ],
)
def test_a_folder_that_is_not_what_its_sums_say_is_refused(tmp_path, harm, message):
    folder = make_folder(tmp_path / "folder")
    sums = file_checksums(folder)
    verify_file_checksums(folder, sums)
    harm(folder)
    with pytest.raises(ValueError, match=message):
        verify_file_checksums(folder, sums)


@pytest.mark.parametrize("wrong", [None, 1, [], {}, "3", [3], ["3", "x"], [3.0, "x"], [[3]]], ids=str)
def test_sums_of_another_form_are_refused(tmp_path, wrong):
    folder = make_folder(tmp_path / "folder")
    with pytest.raises(ValueError, match="its file 'file' has changed"):
        verify_file_checksums(folder, {**file_checksums(folder), "file": wrong})


def test_a_folder_that_is_missing_or_a_link_is_refused(tmp_path):
    folder = make_folder(tmp_path / "folder")
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ValueError, match="link is a link"):
        verify_file_checksums(tmp_path / "link", file_checksums(folder))
    with pytest.raises(ValueError, match="nowhere is damaged"):
        verify_file_checksums(tmp_path / "nowhere", file_checksums(folder))


def test_a_folder_nested_deeper_than_the_stack_is_walked(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(900):
        os.mkdir("a", dir_fd=descriptor)
        inner = os.open("a", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    assert file_checksums(tmp_path) == {}
