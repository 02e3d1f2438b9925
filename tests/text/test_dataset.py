"""A text is split by position into training and validation ids, each at least one window long."""

import hashlib
import tracemalloc

import numpy as np
import pytest

import jaxlm
from jaxlm.text.corpora import CORPORA
from jaxlm.text.dataset import Dataset, line_start_prompt, load_dataset, open_source

TEXT = "the cat sat on the mat.\na rat sat on a hat.\n" * 20


@pytest.fixture
def path(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def byte_dataset(text, num_train):
    ids = jaxlm.ByteTokenizer().encode(text)
    corpus = jaxlm.Corpus("mine", text, "mine", "none", "0f")
    return Dataset(corpus, jaxlm.ByteTokenizer(), ids[:num_train], ids[num_train:])


@pytest.mark.parametrize(("kind", "vocab_size"), [("char", len(set(TEXT))), ("byte", 256), ("bpe", 264)])
def test_load_dataset_encodes_and_splits_by_position(path, kind, vocab_size):
    data = load_dataset("", path, kind, vocab_size=264, val_fraction=0.25)
    assert data.tokenizer.vocab_size == vocab_size
    ids = data.tokenizer.encode(TEXT)
    np.testing.assert_array_equal(np.concatenate([data.train_ids, data.val_ids]), ids)
    assert len(data.val_ids) == -(-len(ids) // 4)
    assert data.train_ids.dtype == data.val_ids.dtype == np.int32
    assert data.tokenizer.decode(ids) == data.corpus.text == TEXT
    assert data.corpus.source == str(path)


def test_load_dataset_uses_a_trained_tokenizer(path):
    tokenizer = jaxlm.CharTokenizer.train(TEXT + "xyz")
    assert load_dataset("", path, tokenizer).tokenizer is tokenizer
    tokenizer.save(path.with_name("mine.json"))
    assert load_dataset("", str(path), path.with_name("mine.json")).tokenizer == tokenizer
    with pytest.raises(ValueError, match="'\\\\n' at position 23"):
        load_dataset("", path, jaxlm.CharTokenizer.train(TEXT.replace("\n", "")))


def test_load_dataset_loads_a_named_corpus(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path))
    monkeypatch.setitem(CORPORA, "shakespeare", hashlib.sha256(TEXT.encode()).hexdigest())
    path.rename(tmp_path / "shakespeare.txt")
    data = load_dataset("shakespeare", None, "char")
    assert (data.corpus.name, data.corpus.text) == ("shakespeare", TEXT)


def test_val_bytes_per_token_is_of_the_validation_text(tmp_path):
    (tmp_path / "text.txt").write_text("a" * 30 + "é☃" * 5, "utf-8")
    data = load_dataset("", tmp_path / "text.txt", "char", val_fraction=0.25)
    assert len(data.val_ids) == 10
    assert data.val_bytes_per_token == (2 + 3) / 2


def test_load_dataset_refuses_tokens_of_another_tokenizer(path, tmp_path):
    first, second = jaxlm.CharTokenizer.train(TEXT), jaxlm.CharTokenizer.train(TEXT.upper())
    jaxlm.encode_files(path, first, tmp_path / "tokens")
    assert load_dataset("", None, first, tokens=tmp_path / "tokens").tokenizer == first
    with pytest.raises(ValueError, match="tokens was encoded by another tokenizer"):
        load_dataset("", None, second, tokens=tmp_path / "tokens")


def test_open_source_does_not_read_a_large_file(tmp_path):
    with (tmp_path / "train.bin").open("wb") as file:
        file.truncate(2**25)
    tracemalloc.start()
    corpus, _ = open_source("", None, tmp_path / "train.bin")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert corpus.sha256 == hashlib.sha256(bytes(2**25)).hexdigest()
    assert peak < 2**22


@pytest.mark.parametrize(
    ("length", "options", "message"),
    [
        (1, {}, "1 ids cannot be split"),
        (2, {}, r"short\.txt has 2 tokens; .* has 1 and needs 2: use a longer text"),
        (40, {"min_tokens": 5}, "has 40 tokens; .* has 4 and needs 5"),
        (39, {"min_tokens": 5, "val_fraction": 0.9}, "has 39 tokens; .* has 3 and needs 5"),
    ],
)
def test_load_dataset_too_short(tmp_path, length, options, message):
    (tmp_path / "short.txt").write_text("x" * length)
    with pytest.raises(ValueError, match=message):
        load_dataset("", tmp_path / "short.txt", "byte", **options)


def test_load_dataset_limits(tmp_path, path):
    (tmp_path / "long.txt").write_text("x" * 41)  # just long enough
    data = load_dataset("", tmp_path / "long.txt", "byte", min_tokens=5)
    assert (len(data.train_ids), len(data.val_ids)) == (36, 5)
    with pytest.raises(ValueError, match="needs a vocab_size"):
        load_dataset("", path, "bpe")


@pytest.mark.parametrize(
    ("val_text", "num_tokens", "prompt"),
    [
        ("end\nof a line", 3, "of "),
        ("\nfirst", 3, "fir"),
        ("no line ends", 3, "no "),
        ("the last\none", 3, "one"),
        ("too late\nxy", 3, "too"),
        ("x" * 1000 + "\nfar", 2, "xx"),
        ("x" * 999 + "\nnear", 2, "ne"),
    ],
)
def test_line_start_prompt(val_text, num_tokens, prompt):
    data = byte_dataset("train\ning" + val_text, num_train=9)
    assert data.tokenizer.decode(line_start_prompt(data, num_tokens)) == prompt
