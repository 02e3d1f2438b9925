"""Tokenizers: nothing is lost, BPE is the library's own, and a damaged file is an error that names it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from jaxlm import BPETokenizer, ByteTokenizer, CharTokenizer, load_tokenizer
from jaxlm.utils.checksums import add_checksum

PROSE = (
    "First Citizen:\nBefore we proceed any further, hear me speak.\r\n\r\nAll:\nSpeak, speak.   It's the élève's "
    "naïve café, 12 345 times: we'll speak!\t日本語 😀 and we'll hear, we'll proceed, we'll speak further.\n"
) * 3
ALPHABET = "".join(sorted(set(PROSE)))

CHAR, BYTE, BPE = CharTokenizer.train(PROSE), ByteTokenizer(), BPETokenizer.train(PROSE, 300)
for_every_tokenizer = pytest.mark.parametrize("tokenizer", [CHAR, BYTE, BPE], ids=["char", "byte", "bpe"])
for_every_trained = pytest.mark.parametrize(
    "train", [CharTokenizer.train, lambda text: BPETokenizer.train(text, 300)], ids=["char", "bpe"]
)
few_examples = settings(max_examples=30, deadline=None)


# There and back.


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
@few_examples
@given(text=st.text(st.characters(codec="utf-8")) | st.text("we'll speak \n\r\t 12é😀"))
def test_any_text_comes_back_whole_from_byte_and_bpe(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


@few_examples
@given(text=st.text(ALPHABET))
def test_any_text_of_its_alphabet_comes_back_whole_from_char(text):
    assert CHAR.decode(CHAR.encode(text)) == text
    assert CHAR.decode_bytes(CHAR.encode(text)) == text.encode()


@for_every_tokenizer
@pytest.mark.parametrize("text", ["", PROSE], ids=["empty", "prose"])
def test_ids_are_one_int32_stream_within_the_vocabulary(tokenizer, text):
    ids = tokenizer.encode(text)
    assert isinstance(ids, np.ndarray)
    assert (ids.dtype, ids.ndim) == (np.int32, 1)
    assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()
    assert tokenizer.decode(ids) == text


def test_characters_are_numbered_in_the_order_of_their_code_points():
    assert CHAR.vocab_size == len(ALPHABET)
    assert CHAR.encode(ALPHABET).tolist() == list(range(len(ALPHABET)))
    assert CharTokenizer.train("ba\U0001f600é").encode("aé😀b").tolist() == [0, 2, 3, 1]


def test_byte_ids_are_the_bytes_of_utf8():
    assert BYTE.vocab_size == 256
    assert BYTE.encode(PROSE).tolist() == list(PROSE.encode())


def test_the_names_have_27_characters(names):
    tokenizer = CharTokenizer.train(names)
    assert tokenizer.vocab_size == 27
    assert tokenizer.encode("\naz").tolist() == [0, 1, 26]


# BPE against the library that it wraps, and against the published count.


def library_bpe(text, vocab_size):
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([text], trainer)
    return library


@pytest.mark.parametrize("vocab_size", [256, 257, 300, 10_000])
def test_bpe_ids_are_those_of_the_librarys_own_pipeline(vocab_size):
    library, tokenizer = library_bpe(PROSE, vocab_size), BPETokenizer.train(PROSE, vocab_size)
    assert tokenizer.vocab_size == library.get_vocab_size()
    for text in (PROSE, " unseen words, \x00 and 한국어\n\n"):
        assert tokenizer.encode(text).tolist() == library.encode(text).ids


def test_bpe_has_the_vocab_size_that_was_asked():
    assert BPE.vocab_size == 300
    assert BPETokenizer.train(PROSE, 256).encode("é ").tolist() == [
        sorted(pre_tokenizers.ByteLevel.alphabet()).index(character) for character in "Ã©Ġ"
    ]


def test_a_text_too_small_for_the_vocab_size_gives_fewer_tokens():
    tokenizer = BPETokenizer.train("abab", 1000)
    assert tokenizer.merges == (("a", "b"), ("ab", "ab"))
    assert tokenizer.vocab_size == 258
    assert tokenizer.encode("abab").tolist() == [257]


@pytest.mark.slow
def test_the_classic_file_has_the_published_number_of_tokens(classic_shakespeare):
    tokenizer = BPETokenizer.train(classic_shakespeare, 4096)
    ids = tokenizer.encode(classic_shakespeare)
    assert (tokenizer.vocab_size, len(ids)) == (4096, 344_092)
    assert tokenizer.decode(ids) == classic_shakespeare


# Values.


@for_every_trained
def test_training_twice_gives_equal_tokenizers(train):
    first, second = train(PROSE), train(PROSE)
    assert first == second
    assert hash(first) == hash(second)
    assert first != train("another text")


@for_every_tokenizer
def test_a_tokenizer_is_frozen_and_hashable_also_once_used(tokenizer):
    before = hash(tokenizer)
    tokenizer.encode("speak")
    assert {tokenizer: 1}[tokenizer] == 1
    assert hash(tokenizer) == before
    with pytest.raises(AttributeError):
        tokenizer.merges = tokenizer.characters = ""


# Decoding what is not a whole text.


@pytest.mark.parametrize("tokenizer", [BYTE, BPETokenizer.train("a", 256)], ids=["byte", "bpe"])
def test_a_character_that_was_cut_is_shown_as_fffd_and_its_bytes_are_exact(tokenizer):
    ids = tokenizer.encode("né😀")
    assert tokenizer.decode(ids[:2]) == "n\ufffd"
    assert tokenizer.decode(ids[2:]) == "\ufffd😀"
    assert [tokenizer.decode_bytes(ids[:n]) for n in range(8)] == ["né😀".encode()[:n] for n in range(8)]


@for_every_tokenizer
def test_ids_to_decode_may_be_a_list_or_of_any_integer_type(tokenizer):
    ids = tokenizer.encode("hear me")
    for same in (ids.tolist(), ids.astype(np.int64), ids.astype(np.uint16), jnp.asarray(ids)):
        assert tokenizer.decode(same) == "hear me"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode_bytes([]) == b""


@for_every_tokenizer
@pytest.mark.parametrize("method", ["decode", "decode_bytes"])
def test_only_one_stream_of_known_integer_ids_can_be_decoded(tokenizer, method):
    decode, size = getattr(tokenizer, method), tokenizer.vocab_size
    with pytest.raises(ValueError, match=rf"cannot decode id {size}: .* ids 0\.\.{size - 1}"):
        decode([0, size, 1])
    with pytest.raises(ValueError, match=rf"cannot decode id -1: .* ids 0\.\.{size - 1}"):
        decode([0, -1])
    with pytest.raises(TypeError, match="must be integers, got float64"):
        decode([0.0, 1.0])
    with pytest.raises(ValueError, match=r"shape \[T\], got shape \[1, 2\]"):
        decode([[0, 1]])
    with pytest.raises(ValueError, match=r"shape \[T\], got shape \[\]"):
        decode(np.int32(1))


# Text that cannot be encoded or trained on.


def test_a_character_never_seen_is_named_with_its_position():
    with pytest.raises(ValueError, match=f"character 'ß' at position 4 is not among the {len(ALPHABET)} "):
        CHAR.encode("spea\xdf\xdf ǂ")
    with pytest.raises(ValueError, match="character '\U0001f601' at position 1"):
        CHAR.encode("😀😁")  # past the last known code point, behind a character of two UTF-16 units


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
def test_half_of_a_surrogate_pair_is_an_error_that_says_where(tokenizer):
    with pytest.raises(ValueError, match=r"character '\\ud83d' at position 2 .* surrogate"):
        tokenizer.encode("ab\ud83d")


def test_bpe_does_not_train_on_half_of_a_surrogate_pair():
    with pytest.raises(ValueError, match=r"position 0 .* surrogate"):
        BPETokenizer.train("\udc00 ab", 300)


@for_every_trained
def test_an_empty_text_trains_nothing(train):
    with pytest.raises(ValueError, match="the text is empty"):
        train("")


@pytest.mark.parametrize("vocab_size", [255, 0, -1])
def test_a_vocab_size_below_the_256_bytes_is_an_error_that_names_it(vocab_size):
    with pytest.raises(ValueError, match=f"vocab_size={vocab_size} is below the 256 bytes"):
        BPETokenizer.train(PROSE, vocab_size)


# Files.


@for_every_tokenizer
def test_what_was_saved_is_loaded_equal_and_is_one_json_file(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = load_tokenizer(path)
    assert loaded == tokenizer
    assert type(loaded) is type(tokenizer)
    assert loaded.encode(PROSE).tolist() == tokenizer.encode(PROSE).tolist()
    assert isinstance(json.loads(path.read_text("utf-8")), dict)
    assert list(tmp_path.iterdir()) == [path]


def test_saving_again_replaces_the_file_and_takes_a_path_as_a_string(tmp_path):
    path = tmp_path / "tokenizer.json"
    CHAR.save(path)
    BPE.save(str(path))
    assert load_tokenizer(str(path)) == BPE
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        load_tokenizer(tmp_path / "nowhere.json")


def test_a_vocab_size_beyond_all_memory_costs_no_more_than_the_text():
    assert BPETokenizer.train("abab", 2**70).merges == (("a", "b"), ("ab", "ab"))
    assert BPETokenizer.train(PROSE, 2**31 - 1) == BPETokenizer.train(PROSE, 256 + len(PROSE.encode()))


# Files of a right form and sum, with other content than `save` writes.


def document(**fields):
    return add_checksum({"version": 2, **fields}).encode()


def test_the_documents_below_differ_from_good_ones_only_in_what_they_say(tmp_path):
    path = tmp_path / "good.json"
    path.write_bytes(document(tokenizer="char", characters="ab"))
    assert load_tokenizer(path) == CharTokenizer("ab")
    path.write_bytes(document(tokenizer="bpe", merges=[["a", "b"], ["ab", "c"]]))
    assert load_tokenizer(path).vocab_size == 258


DAMAGED = {
    "empty": b"",
    "no JSON": b"First Citizen:\n",
    "no UTF-8": b"\xff\xfe{}",
    "deep JSON": b"[" * 100_000,
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "no version": b'{"tokenizer": "byte"}',
    "a later version": add_checksum({"version": 3, "tokenizer": "byte"}).encode(),
    "a version in words": add_checksum({"version": "2", "tokenizer": "byte"}).encode(),
    "no sum": b'{"version": 2, "tokenizer": "byte"}',
    "another sum": document(tokenizer="byte").replace(b'"byte"', b'"char"'),
    "no kind": document(),
    "another kind": document(tokenizer="word"),
    "a kind of another type": document(tokenizer=["byte"]),
    "char without characters": document(tokenizer="char"),
    "characters of another type": document(tokenizer="char", characters=["a", "b"]),
    "characters out of order": document(tokenizer="char", characters="ba"),
    "a character twice": document(tokenizer="char", characters="aab"),
    "half of a surrogate pair": document(tokenizer="char", characters="a\ud83d"),
    "no characters": document(tokenizer="char", characters=""),
    "bpe without merges": document(tokenizer="bpe"),
    "merges of another type": document(tokenizer="bpe", merges="ab"),
    "a merge of three": document(tokenizer="bpe", merges=[["a", "b", "c"]]),
    "a merge of one": document(tokenizer="bpe", merges=[["a"]]),
    "a merge of numbers": document(tokenizer="bpe", merges=[[1, 2]]),
    "a merge of what was not merged": document(tokenizer="bpe", merges=[["ab", "c"], ["a", "b"]]),
    "a merge of no byte": document(tokenizer="bpe", merges=[["a", "日"]]),
    "a merge of nothing": document(tokenizer="bpe", merges=[["", ""]]),
    "a merge of half of a surrogate pair": document(tokenizer="bpe", merges=[["a", "\ud83d"]]),
    "a space, which the alphabet spells otherwise": document(tokenizer="bpe", merges=[["a", " "]]),
    "merges in an object": document(tokenizer="bpe", merges={"a": "b"}),
    "deep merges": document(tokenizer="bpe", merges=[[[[["a"]], "b"]]]),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_a_value_error_that_names_it(content, tmp_path):
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.json"):
        load_tokenizer(path)


@for_every_tokenizer
def test_a_file_cut_short_anywhere_is_a_value_error_that_names_it(tokenizer, tmp_path):
    path = tmp_path / "cut.json"
    tokenizer.save(path)
    whole = path.read_bytes().rstrip()
    for length in np.linspace(0, len(whole) - 1, 20, dtype=int):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.json"):
            load_tokenizer(path)


@pytest.mark.parametrize(
    "merges",
    [
        [["a", "b"]] * 3,
        [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]],  # two ways to one token
        [["a", "a"]] + [["a" * 2**n, "a" * 2**n] for n in range(1, 17)],
    ],
    ids=["one merge thrice", "two ways to a token", "tokens of 2^17 letters"],
)
def test_odd_merges_make_a_tokenizer_that_loses_nothing(merges, tmp_path):
    (tmp_path / "odd.json").write_bytes(document(tokenizer="bpe", merges=merges))
    tokenizer = load_tokenizer(tmp_path / "odd.json")
    for text in ("abcabc aaaa", "a" * 1000, PROSE):
        ids = tokenizer.encode(text)
        assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()
        assert tokenizer.decode(ids) == text


@pytest.mark.slow
def test_a_vocabulary_of_a_quarter_of_a_million_tokens_is_saved_and_loaded(tmp_path):
    letters = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    pairs = [[a, b] for a in letters for b in letters]
    triples = [[a + b, c] for a, b in pairs for c in letters]
    fours = [[a + b, c] for a, b in triples for c in letters][:230_000]
    tokenizer = BPETokenizer(tuple(map(tuple, pairs + triples + fours)))
    tokenizer.save(tmp_path / "large.json")
    assert load_tokenizer(tmp_path / "large.json") == tokenizer
    assert tokenizer.decode(tokenizer.encode("the cat sat")) == "the cat sat"


def test_a_vocabulary_too_large_to_be_read_again_is_not_saved(tmp_path):
    merges = [("a" * 2**n, "a" * 2**n) for n in range(23)]
    with pytest.raises(ValueError, match="no more than 16,777,216 are read back"):
        BPETokenizer(tuple(merges)).save(tmp_path / "large.json")
    assert not list(tmp_path.iterdir())
