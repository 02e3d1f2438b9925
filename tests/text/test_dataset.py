"""A text is cut by position into what trains and what validates, and is never too short for a window."""

import re

import numpy as np
import pytest

import jaxlm
from jaxlm.text.dataset import Dataset, line_start_prompt, load_dataset

TEXT = "the cat sat on the mat.\na rat sat on a hat.\n" * 20


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def made_of(lines, num_train=0):
    """Data whose tokens are bytes."""
    ids = jaxlm.ByteTokenizer().encode(lines)
    return Dataset(
        jaxlm.Corpus("mine", lines, "mine", "none", "0f"), jaxlm.ByteTokenizer(), ids[:num_train], ids[num_train:]
    )


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_the_tokens_are_those_of_the_text_cut_by_position(text, kind):
    data = load_dataset("", text, kind, vocab_size=300, val_fraction=0.25)
    ids = data.tokenizer.encode(TEXT)
    np.testing.assert_array_equal(np.concatenate([data.train_ids, data.val_ids]), ids)
    assert len(data.val_ids) == -(-len(ids) // 4)
    assert data.train_ids.dtype == data.val_ids.dtype == np.int32
    assert data.tokenizer.decode(ids) == TEXT
    assert data.corpus.text == TEXT
    assert data.corpus.source == str(text)


def test_the_kind_chooses_the_tokenizer_and_only_bpe_has_a_vocabulary_to_choose(text):
    sizes = {
        kind: load_dataset("", text, kind, vocab_size=300).tokenizer.vocab_size for kind in ("char", "byte", "bpe")
    }
    assert sizes["char"] == len(set(TEXT))
    assert sizes["byte"] == 256
    assert 256 < sizes["bpe"] <= 300


def test_a_tokenizer_that_is_trained_already_is_used_as_it_is(text):
    tokenizer = jaxlm.CharTokenizer.train(TEXT + "xyz")
    assert load_dataset("", text, tokenizer).tokenizer is tokenizer
    with pytest.raises(ValueError, match="'\\\\n' at position 23"):
        load_dataset("", text, jaxlm.CharTokenizer.train(TEXT.replace("\n", "")))


def test_a_named_corpus_is_loaded_where_there_is_no_text(monkeypatch, text):
    monkeypatch.setattr("jaxlm.data.load_corpus", lambda name: jaxlm.read_text(text) if name == "mine" else None)
    assert load_dataset("mine", None, "char").corpus.text == TEXT


def test_bytes_per_token_are_those_of_the_validation_text(tmp_path):
    (tmp_path / "text.txt").write_text("a" * 30 + "é☃" * 5, "utf-8")
    data = load_dataset("", tmp_path / "text.txt", "char", val_fraction=0.25)
    assert len(data.val_ids) == 10
    assert data.val_bytes_per_token == (2 + 3) / 2
    assert made_of("abc", 1).val_bytes_per_token == 1


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("x", {}, "makes 1 token; a model needs one to train on and one to validate"),
        ("xy", {}, "has 2 tokens; .* the shorter has 1, and needs 2: use a longer text"),
        ("x" * 39, {"min_tokens": 5}, "has 39 tokens; .* the shorter has 4, and needs 5"),
        ("x" * 39, {"min_tokens": 5, "val_fraction": 0.9}, "has 39 tokens; .* the shorter has 3, and needs 5"),
        ("", {}, "is empty"),
    ],
)
def test_a_text_that_is_too_short_is_named(tmp_path, content, options, message):
    (tmp_path / "short.txt").write_text(content)
    with pytest.raises(ValueError, match=rf"short\.txt.*{message}"):
        load_dataset("", tmp_path / "short.txt", "byte", **options)


def test_a_text_that_is_just_long_enough_will_do(tmp_path):
    (tmp_path / "text.txt").write_text("x" * 41)
    data = load_dataset("", tmp_path / "text.txt", "byte", min_tokens=5)
    assert (len(data.train_ids), len(data.val_ids)) == (36, 5)


def test_what_cannot_be_had_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none.txt"))):
        load_dataset("", tmp_path / "none.txt", "byte")
    with pytest.raises(ValueError, match=r"'bible'.*tinyshakespeare"):
        load_dataset("bible", None, "byte")


@pytest.mark.parametrize(
    ("lines", "num_tokens", "prompt"),
    [
        ("end\nof a line", 3, "of "),
        ("\nfirst", 3, "fir"),
        ("no line ends", 3, "no "),
        ("the last\none", 3, "one"),
        ("too late\nxy", 3, "too"),
        ("end\nof\na line", 3, "of\n"),
        ("x" * 1000 + "\nfar", 2, "xx"),
        ("x" * 999 + "\nnear", 2, "ne"),
    ],
)
def test_a_prompt_is_the_start_of_a_line_of_the_validation_text(lines, num_tokens, prompt):
    data = made_of("train\ning" + lines, num_train=9)
    ids = line_start_prompt(data, num_tokens)
    assert data.tokenizer.decode(ids) == prompt
