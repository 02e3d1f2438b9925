"""`tokenizer.json`: read and written with the ids of the library `tokenizers`, and refused by name."""

import copy
import json
import random
import sys

import numpy as np
import pytest
from library_bpe import library_bpe
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

import jaxlm
from jaxlm.text.hugging_face import tokenizer_from_hugging_face, tokenizer_to_hugging_face

TEXT = "First Citizen: speak, speak. It's the élève's naïve café, 12 times:\t日本語 😀 we'll speak further.\n" * 2
TWICE = jaxlm.BPETokenizer((("s", "p"), ("s", "p"), ("sp", "e")))
BPE, BYTE = jaxlm.BPETokenizer.train(TEXT, 320), jaxlm.ByteTokenizer()
DOCUMENT = json.loads(tokenizer_to_hugging_face(BPE))


def random_texts(number):
    """Return texts of pieces of `TEXT`, whitespace of all kinds, and characters of all planes."""
    rng = random.Random(0)
    spaces = [" ", "  ", "\n", "\t", "\r\n", "\u3000", "\x85", "\u2028", "\xa0", "\x00"]
    for _ in range(number):
        pieces = []
        for _ in range(rng.randrange(12)):
            begin = rng.randrange(len(TEXT))
            points = [rng.randrange(0xD800), rng.randrange(0xE000, sys.maxunicode + 1)]
            pieces += [TEXT[begin : begin + rng.randrange(9)], rng.choice(spaces), chr(rng.choice(points))]
        yield "".join(pieces)


@pytest.mark.parametrize("tokenizer", [BPE, BYTE, TWICE], ids=["bpe", "byte", "a merge twice"])
def test_tokenizer_to_hugging_face_gives_the_librarys_ids(tokenizer):
    library = Tokenizer.from_str(tokenizer_to_hugging_face(tokenizer))
    for text in random_texts(2000):
        ids = library.encode(text).ids
        assert tokenizer.encode(text).tolist() == ids
        assert tokenizer.decode(ids) == library.decode(ids) == text


@pytest.mark.slow
def test_tokenizer_from_hugging_face_gives_the_librarys_ids(classic_shakespeare):
    library = library_bpe(classic_shakespeare, 2000)
    tokenizer = tokenizer_from_hugging_face(json.loads(library.to_str()), origin="here")
    assert isinstance(tokenizer, jaxlm.BPETokenizer)
    pieces = classic_shakespeare.splitlines(keepends=True)  # one long string takes 200 bytes a character
    ids = [
        encoding.ids
        for encoding in library.encode_batch(["".join(pieces[i : i + 50]) for i in range(0, len(pieces), 50)])
    ]
    expected = np.concatenate([tokenizer.encode("".join(pieces[i : i + 50])) for i in range(0, len(pieces), 50)])
    assert np.concatenate(ids).tolist() == expected.tolist()
    for text in random_texts(200):
        assert tokenizer.encode(text).tolist() == library.encode(text).ids


def test_load_tokenizer_reads_a_file_of_hugging_face(tmp_path):
    for tokenizer in (BPE, BYTE):
        (tmp_path / "tokenizer.json").write_text(tokenizer_to_hugging_face(tokenizer), "utf-8")
        assert jaxlm.load_tokenizer(tmp_path) == tokenizer


def test_tokenizer_from_hugging_face_accepts_a_file_like_gpt2s():
    library = Tokenizer.from_str(json.dumps(DOCUMENT))
    library.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    document = json.loads(library.to_str())
    document["model"]["vocab"]["<|endoftext|>"] = len(DOCUMENT["model"]["vocab"])
    document["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    del document["pre_tokenizer"]["use_regex"]
    assert tokenizer_from_hugging_face(document, origin="here") == BPE


def other(**steps):
    """Return the document of a library's tokenizer with other steps."""
    library = Tokenizer.from_str(json.dumps(DOCUMENT))
    for name, step in steps.items():
        setattr(library, name, step)
    return json.loads(library.to_str())


def changed(*path, value):
    """Return the document with another value at a path."""
    document = copy.deepcopy(DOCUMENT)
    branch = document
    for name in path[:-1]:
        branch = branch[name]
    branch[path[-1]] = value
    return document


PREFIX = pre_tokenizers.ByteLevel(add_prefix_space=True)
SPLIT = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(use_regex=False)])
PAIR = processors.TemplateProcessing("$A a", special_tokens=[("a", 64)])
VOCAB, MERGES = DOCUMENT["model"]["vocab"], DOCUMENT["model"]["merges"]
REFUSED = {
    "WordPiece": (
        json.loads(Tokenizer(models.WordPiece({"a": 0})).to_str()),
        "its model type is 'WordPiece', not 'BPE'",
    ),
    "a normalizer": (other(normalizer=normalizers.NFC()), "its normalizer is {'type': 'NFC'}"),
    "words": (other(pre_tokenizer=pre_tokenizers.Whitespace()), "its pre_tokenizer type is 'Whitespace'"),
    "another pattern": (other(pre_tokenizer=SPLIT), "its pre_tokenizer type is 'Sequence'"),
    "a space in front": (other(pre_tokenizer=PREFIX), "its pre_tokenizer add_prefix_space is True, not False"),
    "another processor": (other(post_processor=PAIR), "its post_processor type is 'TemplateProcessing'"),
    "dropout": (changed("model", "dropout", value=0.1), "its model dropout is 0.1"),
    "an added token": (
        changed("added_tokens", value=[{"id": 400, "content": "x", "special": False}]),
        r"it has the added token {'id': 400.*, which is not a special one",
    ),
    "a special token first": (
        changed("model", "vocab", value={"x": 0} | {token: index + 1 for token, index in VOCAB.items()}),
        "its ids are not those of the bytes",
    ),
    "ids in another order": (
        changed("model", "vocab", value=VOCAB | {"!": 1, '"': 0}),
        "its ids are not those of the",
    ),
    "a missing token": (changed("model", "merges", value=MERGES[:-1]), "its ids are not those of the bytes"),
    "merges of another type": (
        changed("model", "merges", value=["abc"]),
        "its merges are not pairs of tokens: 'abc'",
    ),
    "merges of numbers": (
        changed("model", "merges", value=[[1, 2]]),
        r"its merges are not pairs of tokens: \[1, 2\]",
    ),
    "a token twice": (
        changed("model", "merges", value=["a b", "a b"]),
        "two of its merges result in the same token",
    ),
    "an unknown part": (changed("model", "merges", value=["ab c"]), "its ids are not those"),
    "another version": (changed("version", value="2.0"), "tokenizers cannot read it: "),
    "another vocab": (changed("model", "vocab", value=[]), "its vocab is not an object"),
}


@pytest.mark.parametrize(("document", "problem"), REFUSED.values(), ids=REFUSED)
def test_tokenizer_from_hugging_face_names_what_differs(document, problem):
    with pytest.raises(
        ValueError, match=rf"^here is a tokenizer of Hugging Face, but {problem}.*; jaxlm reads"
    ) as caught:
        tokenizer_from_hugging_face(document, origin="here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("merges", "problem"),
    [
        ([("b", "c"), ("a", "b"), ("ab", "c")], "its merges do not result in the token 'abc'"),
        ([("a" * 2**n, "a" * 2**n) for n in range(11)], "it has a token of 2,048 bytes, more than 1,000"),
        ([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")], "two of its merges result in the same token"),
    ],
    ids=["a token that is never reached", "a long token", "two ways to a token"],
)
def test_tokenizer_to_hugging_face_refuses_other_ids(merges, problem):
    with pytest.raises(ValueError, match=f"cannot be written as a tokenizer.json: {problem}"):
        tokenizer_to_hugging_face(jaxlm.BPETokenizer(tuple(merges)))


def test_tokenizer_to_hugging_face_refuses_characters():
    with pytest.raises(ValueError, match="a CharTokenizer has no"):
        tokenizer_to_hugging_face(jaxlm.CharTokenizer("ab"))
