"""Cut texts where byte-level BPE ends a word, and compare with the tokenizers library on the whole text."""

import json

import pytest
from hypothesis import example, given, settings, strategies as st
from library_bpe import library_bpe

from jaxlm import BPETokenizer
from jaxlm.text import bpe
from jaxlm.text.bpe import learn_merges
from jaxlm.text.pieces import cut_text

WORDS = ["the", "cat's", "we'll", "they've", "12", "3.5", "naïve", "日本", "😀", "--", "'", "_x_", "e\u0301"]
CHARACTERS = " \n\t\x0b\x0c\x1c\x1f\x85\xa0\u2003\u2028\u200b\u3000\ufeff\u180e\x00"
SPACES = [*CHARACTERS, "  ", "   ", "\n\n", "\r\n", "\t ", " \n"]
MIXED = st.lists(st.sampled_from(WORDS + 2 * SPACES), max_size=40).map("".join)
TEXTS = MIXED | st.text(st.characters(codec="utf-8"))


TRAINING = (
    " ".join(WORDS) * 9
    + "".join(SPACES) * 9
    + "--\x1c--\x1f" * 20
    + "the  cats\n\n  we'll \t see   them\r\n\r\n" * 9
)
LIBRARY = library_bpe(TRAINING, 340)
BPE = BPETokenizer(tuple(map(tuple, json.loads(LIBRARY.to_str())["model"]["merges"])))


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, length=st.integers(1, 20))
@example(text=" " * 9, length=2)
@example(text="a \x1c b", length=1)
def test_pieces_encode_to_the_ids_of_the_whole_text(text, length):
    pieces = list(cut_text([text], length))
    assert "".join(pieces) == text
    ids = LIBRARY.encode(text).ids
    assert [token for piece in pieces for token in BPE.encode(piece).tolist()] == ids
    assert BPE.encode(text).tolist() == ids


@settings(max_examples=100, deadline=None)
@given(text=TEXTS, length=st.integers(1, 20), size=st.integers(1, 9))
def test_pieces_do_not_depend_on_the_blocks(text, length, size):
    blocks = [text[begin : begin + size] for begin in range(0, len(text), size)]
    assert list(cut_text(blocks, length)) == list(cut_text([text], length))


@settings(max_examples=30, deadline=None)
@given(text=TEXTS)
def test_learn_merges_from_pieces_equals_the_library(text):
    merges, training = learn_merges([text * 3], 300)
    assert [list(pair) for pair in merges] == json.loads(library_bpe(text * 3, 300).to_str())["model"]["merges"]
    assert training == {"characters": 3 * len(text), "sampled": 3 * len(text), "seed": 0, "max_word_length": 1000}


def test_encode_a_long_text_in_pieces():
    text = TRAINING * 100
    assert len(text) > 2**16
    assert BPE.encode(text).tolist() == LIBRARY.encode(text).ids


@pytest.mark.parametrize("text", ["x" * 300_000, " " * 300_000, "日本語" * 100_000, "\n" * 300_000 + "x"])
def test_encode_long_words(text):
    assert BPE.decode(BPE.encode(text)) == text


def test_learn_merges_of_a_large_text_uses_a_sample(monkeypatch):
    monkeypatch.setattr(bpe, "_GROUP_LENGTH", 50)
    monkeypatch.setattr(bpe, "_PIECE_LENGTH", 50)
    monkeypatch.setattr(bpe, "_SAMPLE_LENGTH", 500)
    text = "".join(f"{number} " for number in range(2000))
    merges, training = learn_merges([text], 300)
    assert training["characters"] == len(text)
    assert 500 <= training["sampled"] < 600
    assert learn_merges([text[:999], text[999:]], 300) == (merges, training)
    groups, _ = bpe._sample_groups(cut_text([text], 50))
    numbers = [int(number) for group in groups for number in "".join(group).split()]
    assert min(numbers) < 500 < 1500 < max(numbers)
