"""Tokenizer files: saved and loaded, damaged, unusual, or of other programs."""

import itertools
import string
import tracemalloc
from pathlib import Path

import pytest
import tokenizers
from library_bpe import library_bpe

from jaxlm import BPETokenizer, ByteTokenizer, CharTokenizer, load_tokenizer
from jaxlm.text.tokenizer_files import TOKENIZER_FILE, make_tokenizer, tokenizer_from_json, tokenizer_to_json
from jaxlm.utils.json_files import add_checksum, parse_json

PROSE = "First Citizen: speak, speak. It's the élève's naïve café, 12 times:\t日本語 😀 we'll speak further.\n"
CHAR, BYTE, BPE = CharTokenizer.train(PROSE), ByteTokenizer(), BPETokenizer.train(PROSE, 270)


@pytest.mark.parametrize("tokenizer", [CHAR, BYTE, BPE], ids=["char", "byte", "bpe"])
def test_save_and_load(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    BYTE.save(path)
    tokenizer.save(str(path))  # replaces the file
    loaded = load_tokenizer(str(path))
    assert (type(loaded), loaded, hash(loaded)) == (type(tokenizer), tokenizer, hash(tokenizer))
    assert loaded.encode(PROSE).tolist() == tokenizer.encode(PROSE).tolist()
    assert list(tmp_path.iterdir()) == [path]
    content = path.read_text("utf-8")
    assert tokenizer_to_json(tokenizer) == content
    assert tokenizer_from_json(parse_json(content, origin="here"), origin="here") == tokenizer


def test_make_tokenizer_keeps_one_block_at_a_time():
    blocks = (chr(97 + number) * 2**20 for number in range(20))
    tracemalloc.start()
    tokenizer = make_tokenizer("char", blocks, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tokenizer == CharTokenizer("abcdefghijklmnopqrst")
    assert peak < 2**22


def test_load_tokenizer_missing_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        load_tokenizer(tmp_path / "nowhere.json")
    CHAR.save(tmp_path / "damaged.json")
    content = (tmp_path / "damaged.json").read_bytes()
    for damaged, problem in ((content[:-9], "not valid JSON"), (content.replace(b"F", b"E", 1), "damaged")):
        (tmp_path / "damaged.json").write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"damaged\.json is {problem}"):
            load_tokenizer(tmp_path / "damaged.json")


def test_save_and_load_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    CHAR.save("~/run/tokenizer.json")
    CHAR.save("~/new/folder/tokenizer.json")
    BYTE.save(Path("~/mine.json"))
    for path, tokenizer in (("~/new/folder/tokenizer.json", CHAR), (Path("~/run"), CHAR), ("~/mine.json", BYTE)):
        assert load_tokenizer(path) == tokenizer


def test_load_tokenizer_of_a_directory_prefers_the_new_name(tmp_path):
    BYTE.save(tmp_path / "tokenizer.json")  # as earlier versions did
    assert load_tokenizer(tmp_path) == BYTE
    CHAR.save(tmp_path / TOKENIZER_FILE)
    assert load_tokenizer(tmp_path) == CHAR


OTHERS = {
    "tokenizer_config.json": ('{"tokenizer_class": "GPT2Tokenizer"}', "only a configuration of Hugging Face"),
    "vocab.json": ('{"!": 0, "model": 19849, "version": 9641}', "only a vocabulary like GPT-2's vocab.json"),
    "merges.txt": ("#version: 0.2\nĠ t\nĠ a\n", "only a list of merges like GPT-2's merges.txt"),
    "merges.txt without a version": ("Ġ t\r\nĠ a\r\n", "only a list of merges like GPT-2's merges.txt"),
    "gpt2.tiktoken": (
        "IQ== 0\nIg== 1\nIw== 2\n",
        "a vocabulary of tiktoken, which cannot be imported without its pattern",
    ),
}


@pytest.mark.parametrize(("content", "kind"), OTHERS.values(), ids=OTHERS)
def test_load_tokenizer_names_files_of_other_programs(content, kind, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content, "utf-8")
    with pytest.raises(
        ValueError,
        match=rf"tokenizer\.json is {kind}.*; pass the tokenizer\.json of the same",
    ):
        load_tokenizer(tmp_path)


def test_load_tokenizer_reads_what_its_error_advises(tmp_path, monkeypatch):
    library = library_bpe(PROSE, 300)
    library.model.save(str(tmp_path))
    with pytest.raises(ValueError, match=r"tokenizers\.ByteLevelBPETokenizer") as error:
        load_tokenizer(tmp_path / "merges.txt")
    assert str(error.value).endswith(
        "tokenizers.ByteLevelBPETokenizer('vocab.json', 'merges.txt').save('tokenizer.json')"
    )
    monkeypatch.chdir(tmp_path)
    tokenizers.ByteLevelBPETokenizer("vocab.json", "merges.txt").save("tokenizer.json")
    assert load_tokenizer(tmp_path).encode(PROSE).tolist() == library.encode(PROSE).ids


def document(version=2, **fields):
    """A document with a valid checksum."""
    return parse_json(add_checksum({"version": version, **fields}), origin="here")


INVALID = {
    "a later version": document(version=3, tokenizer="byte"),
    "no checksum": {"version": 2, "tokenizer": "byte"},
    "no kind": document(),
    "unknown kind": document(tokenizer="word"),
    "characters of another type": document(tokenizer="char", characters=["a", "b"]),
    "characters out of order": document(tokenizer="char", characters="ba"),
    "half of a surrogate pair": document(tokenizer="char", characters="a\ud83d"),
    "no characters": document(tokenizer="char", characters=""),
    "merges of another type": document(tokenizer="bpe", merges="ab"),
    "a merge of three": document(tokenizer="bpe", merges=[["a", "b", "c"]]),
    "a merge that is a string": document(tokenizer="bpe", merges=["ab"]),
    "a merge before its parts": document(tokenizer="bpe", merges=[["ab", "c"], ["a", "b"]]),
    "a merge of a character": document(tokenizer="bpe", merges=[["a", "日"]]),
}


@pytest.mark.parametrize("invalid", INVALID.values(), ids=INVALID)
def test_tokenizer_from_json_invalid(invalid):
    assert tokenizer_from_json(document(tokenizer="char", characters="ab"), origin="here") == CharTokenizer("ab")
    assert tokenizer_from_json(document(tokenizer="bpe", merges=[]), origin="here") == BPETokenizer(())
    with pytest.raises(ValueError, match=r"^here is (damaged|not a tokenizer's file of version 2)"):
        tokenizer_from_json(invalid, origin="here")


@pytest.mark.parametrize(
    "merges",
    [
        [("a", "b")] * 3,
        [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")],  # two ways to one token
        [("a" * 2**n, "a" * 2**n) for n in range(17)],
    ],
    ids=["one merge three times", "two ways to a token", "tokens of 2^17 letters"],
)
def test_bpe_with_unusual_merges(merges):
    tokenizer = BPETokenizer(tuple(merges))
    for text in ("abcabc aaaa", "a" * 1000, PROSE):
        ids = tokenizer.encode(text)
        assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()
        assert tokenizer.decode(ids) == text


@pytest.mark.slow
def test_bpe_saves_a_quarter_of_a_million_tokens(tmp_path):
    words = (word for length in (2, 3, 4) for word in itertools.product(string.ascii_lowercase, repeat=length))
    merges = [("".join(word[:-1]), word[-1]) for word in itertools.islice(words, 250_000)]
    tokenizer = BPETokenizer(tuple(merges))
    tokenizer.save(tmp_path / "large.json")
    assert load_tokenizer(tmp_path / "large.json") == tokenizer
    assert tokenizer.decode(tokenizer.encode("the cat sat")) == "the cat sat"


def test_save_refuses_what_cannot_be_loaded(tmp_path):
    merges = tuple(("a" * 2**n, "a" * 2**n) for n in range(23))
    with pytest.raises(ValueError, match="16,777,216"):
        BPETokenizer(merges).save(tmp_path / "large.json")
    assert not list(tmp_path.iterdir())
