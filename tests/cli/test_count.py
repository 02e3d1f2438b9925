"""`jaxlm count`."""

import errno
import io
import itertools
import threading
from collections import Counter

import numpy as np
import pytest
from cli_helpers import pipe, shown

import jaxlm
from jaxlm.cli.count import CountOptions, count_tokens
from jaxlm.models import count_ngrams as count_ngrams_module
from jaxlm.models.ngram_counts import NgramCounts

IDS = [0, 1, 2, 0, 1, 2, 0, 1, 1]


@pytest.fixture
def tokens(tmp_path):
    np.save(tmp_path / "ids.npy", np.array(IDS, np.uint16))
    return tmp_path / "ids.npy"


def npy(values):
    """Return the bytes of a `.npy` file."""
    file = io.BytesIO()
    np.save(file, np.array(values))
    return file.getvalue()


def count(*arguments, console=None, **options):
    return count_tokens(CountOptions(*arguments, **options), console or pipe())


def as_counter(path):
    counts = NgramCounts.load(path)
    return dict(zip(map(tuple, counts.ngrams().tolist()), counts.counts.tolist(), strict=True))


def test_count_writes_counts_and_reports(tokens, tmp_path):
    console, out = pipe(), tmp_path / "counts"
    document = count(tokens, order=2, workers=1, out=out, console=console)
    expected = Counter(itertools.pairwise(IDS))
    assert as_counter(out) == expected
    assert document == {"out": str(out), "order": 2, "vocab_size": 3, "ngrams": 4, "windows": 8}
    assert shown(console).endswith(f"{out}: 4 distinct n-grams of 8, order 2\n")


def test_count_merge_adds_counts(tokens, tmp_path):
    for name in "ab":
        count(tokens, order=3, vocab_size=5, out=tmp_path / name)
    document = count(merge=(tmp_path / "a", tmp_path / "b"), out=tmp_path / "sum")
    assert as_counter(tmp_path / "sum") == {ngram: 2 * each for ngram, each in as_counter(tmp_path / "a").items()}
    assert (document["windows"], document["vocab_size"]) == (14, 5)


def test_count_takes_the_directory_of_encode(text, tmp_path):
    jaxlm.encode_files([text], "byte", tmp_path / "tokens")
    document = count(tmp_path / "tokens", order=1, out=tmp_path / "counts")
    assert (document["vocab_size"], document["windows"]) == (256, text.stat().st_size)


def test_count_refuses_and_writes_nothing(tokens, tmp_path):
    with pytest.raises(ValueError, match="requires either TOKENS or --merge"):
        count(out=tmp_path / "counts")
    with pytest.raises(ValueError, match="requires either TOKENS or --merge"):
        count(tokens, merge=(tmp_path / "a",), out=tmp_path / "counts")
    for workers in (0, 1025):
        with pytest.raises(ValueError, match=rf"workers must be in \[1, 1024\], got {workers}"):
            count(tokens, workers=workers, out=tmp_path / "counts")
    for name, value in {"order": 5, "vocab_size": 9, "workers": 2, "dask": "tcp://host:1"}.items():
        with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} does not apply to --merge; remove it"):
            count(merge=(tmp_path / "a",), out=tmp_path / "counts", **{name: value})
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        count(tokens, order=0, out=tmp_path / "counts")
    with pytest.raises(FileExistsError, match=r"ids\.npy exists; choose another --out"):
        count(tokens, out=tokens)
    with pytest.raises(NotADirectoryError, match=r"ids\.npy/counts"):  # before it counts
        count(tokens, order=-1, out=tokens / "counts")
    assert not (tmp_path / "counts").exists()


def test_count_does_not_wait_for_pieces_after_an_interrupt(tokens, tmp_path, monkeypatch):
    started, release, finished = threading.Event(), threading.Event(), []

    def count_piece(piece, order, vocab_size):
        if piece[0] == IDS[0]:
            started.wait(5)
            raise KeyboardInterrupt
        started.set()
        release.wait(5)
        finished.append(piece)

    monkeypatch.setattr(count_ngrams_module, "count_piece", count_piece)
    monkeypatch.setattr(count_ngrams_module, "_PIECE", 5)
    with pytest.raises(KeyboardInterrupt):
        count(tokens, order=1, workers=2, out=tmp_path / "counts")
    assert not finished
    release.set()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged: EOF"),
        (b"It was the best of times", "is damaged: the magic string is not correct"),
        (npy([0.5, 1.0]), r"must be integers \[T\], got float64\[2\]"),
        (npy([[0, 1]]), r"must be integers \[T\], got int64\[1, 2\]"),
        (npy(IDS)[:-8], "is damaged: mmap length is greater than file size"),
    ],
)
def test_count_refuses_a_file_without_ids(tmp_path, content, message):
    (tmp_path / "ids.npy").write_bytes(content)
    with pytest.raises(ValueError, match=rf"ids\.npy {message}"):
        count(tmp_path / "ids.npy", out=tmp_path / "counts")


def test_count_names_the_file_that_does_not_fit(tokens, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # bytes of a file
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            count(tokens, order=2, out=tmp_path / "counts")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "counts" / "keys.npy"))
    assert not (tmp_path / "counts").exists()
