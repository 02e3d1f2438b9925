"""The encoding that an error names gives the right text; a code page that cannot be detected is not guessed."""

import re

import pytest

from jaxlm.utils.text_encoding import decode_text

WESTERN = "Grüße aus München \u2013 „schön“, créée à l\u2019été, ¿qué? ¡Año!\n"
RUSSIAN = "Привет, мир\n"
JAPANESE = "日本語のテキストです。\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("text", ["plain", WESTERN, RUSSIAN, JAPANESE, "👩\u200d💻", "\x00", "a\x00b", ""])
def test_decode_text_is_the_text_without_a_mark(text, encoding):
    assert decode_text(text.encode(encoding), origin="x") == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *[(WESTERN, name) for name in ("cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")],
        *[(RUSSIAN, name) for name in ("utf-16-le", "utf-16-be", "utf-32-le")],
        *[(JAPANESE, name) for name in ("utf-16-le", "utf-16-be", "utf-32-be")],
        ("plain ASCII", "utf-16-le"),
        ("Привет", "utf-16-be"),  # has neither NUL nor space, and is valid UTF-8
        ("caf\xe9 noir", "latin-1"),
    ],
)
def test_decode_text_names_an_encoding_that_gives_the_text(text, encoding):
    content = text.encode(encoding)
    with pytest.raises(
        ValueError, match=r"^my\.txt is \S+, not UTF-8; .*`iconv -f \S+ -t UTF-8 OLD > NEW`$"
    ) as error:
        decode_text(content, origin="my.txt")
    assert content.decode(re.search("iconv -f (\\S+)", str(error.value))[1]) == text


@pytest.mark.parametrize(
    "content",
    [
        *[WESTERN.encode(name, "ignore") for name in ("cp850", "mac-roman")],
        "zażółć gęślą jaźń".encode("cp1250"),
        RUSSIAN.encode("cp1251"),
        RUSSIAN.encode("koi8-r"),
        *[JAPANESE.encode(name) for name in ("shift-jis", "euc-jp")],
        WESTERN.encode() + b"\xe9",  # damaged UTF-8
        "Élan".encode() + b" caf\xe9",
        "\U0001f600".encode()[:3],
        b"ok\xed\xa0\x80",
    ],
)
def test_decode_text_guesses_no_encoding(content):
    with pytest.raises(
        ValueError, match=r"^x is not UTF-8: .*; find its encoding, .*`iconv -f ENCODING -t UTF-8 OLD > NEW`$"
    ):
        decode_text(content, origin="x")


@pytest.mark.parametrize(
    "content",
    [(WESTERN * 9).encode()[:-41], (JAPANESE * 9).encode()[:-2], (RUSSIAN * 9).encode() + b"\xff"],
    ids=["cut within a character", "cut", "another byte"],
)
def test_decode_text_of_damaged_utf8_says_how_to_repair_it(content):
    with pytest.raises(
        ValueError, match=r"x is not UTF-8: byte 0x.. at offset \d+; repair it, or drop such bytes"
    ):
        decode_text(content, origin="x")


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"PK\3\4\x14\0\xff", "zip"), (b"%PDF-1.4\n%\xe2\xe3", "PDF"), (b"\x1f\x8b\x08\0", "gzip")],
)
def test_decode_text_names_the_type_of_a_file(content, kind):
    with pytest.raises(ValueError, match=f"x is a {kind} file, not UTF-8 text"):
        decode_text(content, origin="x")
