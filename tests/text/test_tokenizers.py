"""Encode and decode with each tokenizer, and train BPE as the tokenizers library does."""

import json
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from library_bpe import library_bpe

from jaxlm import BPETokenizer, ByteTokenizer, CharTokenizer
from jaxlm.text.pieces import cut_text

PROSE = (
    "First Citizen:\nBefore we proceed any further, hear me speak.\r\n\r\nAll:\nSpeak, speak.   It's the élève's "
    "naïve café, 12 345 times: we'll speak!\t日本語 😀 and we'll hear, we'll proceed, we'll speak further.\n"
) * 3
ALPHABET = "".join(sorted(set(PROSE)))
CHAR, BYTE, BPE = CharTokenizer.train(PROSE), ByteTokenizer(), BPETokenizer.train(PROSE, 300)
for_every_tokenizer = pytest.mark.parametrize("tokenizer", [CHAR, BYTE, BPE], ids=["char", "byte", "bpe"])


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
@settings(max_examples=30, deadline=None)
@given(text=st.text(st.characters(codec="utf-8")) | st.text("we'll speak \n\r\t 12é😀"))
def test_round_trip_of_any_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert (tokenizer.decode(ids), tokenizer.decode_bytes(ids)) == (text, text.encode())


@for_every_tokenizer
def test_encode_returns_int32_ids_below_vocab_size(tokenizer):
    for text in ("", PROSE):
        ids = tokenizer.encode(text)
        assert (type(ids), ids.dtype, ids.ndim) == (np.ndarray, np.int32, 1)
        assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()
        assert (tokenizer.decode(ids), tokenizer.decode_bytes(ids)) == (text, text.encode())


def test_bpe_encodes_a_piece_in_the_calling_thread(monkeypatch):
    """Callers encode pieces in threads of their own."""
    text = "speak further " * 20_000
    expected = BPE.encode(text).tolist()
    monkeypatch.setattr(threading.Thread, "start", lambda _: pytest.fail("started a thread"))
    assert [token for piece in cut_text([text]) for token in BPE.encode(piece).tolist()] == expected


def test_char_and_byte_ids():
    """Characters are numbered by code point, bytes by value."""
    assert BYTE.vocab_size == 256
    assert BYTE.encode(PROSE).tolist() == list(PROSE.encode())
    assert CHAR.encode(ALPHABET).tolist() == list(range(len(ALPHABET)))
    assert CharTokenizer.train("ba\U0001f600é").encode("aé😀b").tolist() == [0, 2, 3, 1]


@pytest.mark.parametrize("vocab_size", [256, 300, 10_000])
def test_bpe_ids_equal_the_librarys(vocab_size):
    library, tokenizer = library_bpe(PROSE, vocab_size), BPETokenizer.train(PROSE, vocab_size)
    assert tokenizer.vocab_size == library.get_vocab_size() <= vocab_size
    for text in (PROSE, " unseen words, \x00 and 한국어\n\n"):
        assert tokenizer.encode(text).tolist() == library.encode(text).ids


def test_bpe_of_a_small_text_has_fewer_tokens():
    tokenizer = BPETokenizer.train("abab", 2**70)  # more than any memory
    assert tokenizer.merges == (("a", "b"), ("ab", "ab"))
    assert tokenizer.vocab_size == 258
    assert tokenizer.encode("abab").tolist() == [257]
    assert BPETokenizer.train(PROSE, 2**31 - 1) == BPETokenizer.train(PROSE, 256 + len(PROSE.encode()))


@pytest.mark.parametrize("text", ["日本語" * 70_000, " " * 200_000 + "ab"])
def test_bpe_of_long_words_is_quick(text):
    """The library takes quadratic time, which is minutes here."""
    begin = time.monotonic()
    tokenizer = BPETokenizer.train(text, 270)
    assert tokenizer.vocab_size > 256
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert time.monotonic() - begin < 20


def test_bpe_of_words_below_1000_characters_is_the_librarys():
    text = ("x" * 999 + " " + "yz" * 499 + "\n") * 2 + PROSE
    merges = json.loads(library_bpe(text, 280).to_str())["model"]["merges"]
    assert BPETokenizer.train(text, 280).merges == tuple(map(tuple, merges))


@pytest.mark.slow
def test_bpe_token_count_of_the_classic_file(classic_shakespeare):
    tokenizer = BPETokenizer.train(classic_shakespeare, 4096)
    ids = tokenizer.encode(classic_shakespeare)
    assert (tokenizer.vocab_size, len(ids)) == (4096, 344_092)
    assert tokenizer.decode(ids) == classic_shakespeare


@pytest.mark.parametrize("tokenizer", [BYTE, BPETokenizer.train("a", 256)], ids=["byte", "bpe"])
def test_decode_within_a_character(tokenizer):
    ids = tokenizer.encode("né😀")
    assert tokenizer.decode(ids[:2]) == "n\ufffd"
    assert tokenizer.decode(ids[2:]) == "\ufffd😀"
    assert [tokenizer.decode_bytes(ids[:n]) for n in range(8)] == ["né😀".encode()[:n] for n in range(8)]


@for_every_tokenizer
def test_decode_accepts_lists_and_integer_arrays(tokenizer):
    ids = tokenizer.encode("hear me")
    for same in (ids.tolist(), ids.astype(np.uint16), jnp.asarray(ids)):
        assert tokenizer.decode(same) == "hear me"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode_bytes([]) == b""


@for_every_tokenizer
def test_decode_refuses_other_ids(tokenizer):
    size = tokenizer.vocab_size
    for unknown in (size, -1):
        with pytest.raises(ValueError, match=rf"cannot decode id {unknown}: .* 0\.\.{size - 1}; if the model"):
            tokenizer.decode([0, unknown, 1])
    with pytest.raises(TypeError, match="must be integers, got float64"):
        tokenizer.decode([0.0, 1.0])
    for decode, ids in (
        (tokenizer.decode_bytes, [[0, 1]]),
        (tokenizer.decode, np.int32(1)),
        (tokenizer.decode, 1),
    ):
        with pytest.raises(ValueError, match=r"shape \[T\], got shape"):
            decode(ids)


@for_every_tokenizer
def test_decode_each_row(tokenizer):
    ids = tokenizer.encode("speak further")
    texts = [tokenizer.decode(ids[:3]), tokenizer.decode(ids[-3:])]
    for rows in ([ids[:3].tolist(), ids[-3:].tolist()], jnp.array([ids[:3], ids[-3:]])):
        assert tokenizer.decode(rows) == texts
    assert tokenizer.decode([ids[:3].tolist(), [], jnp.asarray(ids[-3:])]) == [texts[0], "", texts[1]]
    assert tokenizer.decode(np.zeros((2, 0), np.int32)) == ["", ""]
    column = np.array([ids[:3].tolist(), ids[-3:].tolist(), []], object)  # as of lists in pandas
    assert tokenizer.decode(column) == [*texts, ""]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CHAR.encode("spea\xdf\xdf ǂ"), f"character 'ß' at position 4 is not among the {len(ALPHABET)} "),
        # Beyond the last known code point, after a character of two UTF-16 units.
        (lambda: CHAR.encode("😀😁"), "character '\U0001f601' at position 1"),
        (lambda: BYTE.encode("ab\ud83d"), r"character '\\ud83d' at position 2 is half of a surrogate pair"),
        (lambda: BPE.encode("ab\ud83d"), r"character '\\ud83d' at position 2 is half of a surrogate pair"),
        (lambda: BPETokenizer.train("\udc00 ab", 300), "position 0 is half of a surrogate pair"),
        (lambda: CharTokenizer.train("\udc00 ab"), "position 0 is half of a surrogate pair"),
        (lambda: CharTokenizer.train(""), "the text is empty"),
        (lambda: BPETokenizer.train("", 300), "the text is empty"),
        (lambda: BPETokenizer.train(PROSE, 255), "vocab_size must be at least 256, .* got 255"),
    ],
)
def test_unusable_text_names_the_problem(call, message):
    with pytest.raises(ValueError, match=message):
        call()
