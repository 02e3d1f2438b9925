"""The advice of an error gives the right text; a code page, which cannot be detected, is not claimed."""

import re

import pytest

from jaxlm.utils.text_encoding import decode_text

WESTERN = "Grüße aus München \u2013 „schön“, créée à l\u2019été, ¿qué? ¡Año!\n"
RUSSIAN = "Привет, мир\n"
JAPANESE = "一日本語のテキスト一です。\n"  # the first character has a zero byte in UTF-16


# No space, no line end.
CHINESE = "人人生而自由、在尊严和权利上一律平等。他们赋有理性和良心、并应以兄弟关系的精神相对待。"
THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระ\n" * 9


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("text", ["plain", WESTERN, RUSSIAN, JAPANESE, "👩\u200d💻", "\x00", "a\x00b", ""])
def test_decode_text_is_the_text_without_a_mark(text, encoding):
    assert decode_text(text.encode(encoding), origin="x") == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *[(WESTERN, name) for name in ("cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")],
        *[(RUSSIAN, name) for name in ("utf-16-le", "utf-16-be", "utf-32-le")],
        *[(JAPANESE * 20, name) for name in ("utf-16-le", "utf-16-be", "utf-32-be")],
        *[(THAI, name) for name in ("utf-16-le", "utf-16-be")],  # valid UTF-8 with few zero bytes
        *[
            (text, name)
            for text in (CHINESE, JAPANESE.strip())
            for name in ("utf-16-le", "utf-16-be", "utf-32-le")
        ],
        ("plain ASCII", "utf-16-le"),
        ("mark", "utf-16"),
        ("caf\xe9 noir", "latin-1"),
    ],
)
def test_decode_text_advice_gives_the_text(text, encoding):
    content = text.encode(encoding)
    with pytest.raises(ValueError, match=r"^my\.txt is .*`iconv -f \S+ -t UTF-8 OLD > NEW`$") as error:
        decode_text(content, origin="my.txt")
    name = re.search("iconv -f (\\S+)", str(error.value))[1]
    assert decode_text(content.decode(name).encode(), origin="new") == text
    assert (f"is {name}, not UTF-8" in str(error.value)) == ("utf" in encoding)


@pytest.mark.parametrize(
    "content",
    [
        RUSSIAN.encode("cp1251"),
        *[JAPANESE.encode(name) for name in ("shift-jis", "euc-jp")],
        *[JAPANESE.strip().encode(name) for name in ("shift-jis", "euc-jp")],
        CHINESE.encode("gb18030"),
        "naïveté".encode("cp1252"),  # whose pairs of bytes are Chinese in UTF-16
        "Élan".encode() + b" caf\xe9",
        "\U0001f600".encode()[:3],
        b"ok\xed\xa0\x80",
    ],
)
def test_decode_text_claims_no_code_page(content):
    with pytest.raises(ValueError, match=r"^x is not UTF-8: byte 0x.. at offset \d+; .* if it is WINDOWS-1252, "):
        decode_text(content, origin="x")


@pytest.mark.parametrize(
    "content",
    [(WESTERN * 9).encode()[:-41], (JAPANESE * 9).encode()[:-2], (RUSSIAN * 9).encode() + b"\xff"],
    ids=["cut within a character", "cut", "another byte"],
)
def test_decode_text_of_damaged_utf8_says_how_to_repair_it(content):
    with pytest.raises(ValueError, match=r"^x is not UTF-8: byte 0x.. at offset \d+; repair it, or drop such"):
        decode_text(content, origin="x")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\3\4\x14\0\xff", "zip file"),
        (b"%PDF-1.4\n%\xe2\xe3", "PDF file"),
        (b"\x1f\x8b\x08\0", "gzip file"),
        (b"a.txt".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0") + b"text " * 9999, "tar file"),
        (b"\n\x0e\n\5<unk>\x15\0\0\0\0\x18\2\n\t\n\2\xe2\x96\x81\x15\0\0\x80\xbf", "SentencePiece model"),
    ],
)
def test_decode_text_names_the_type_of_a_file(content, kind):
    with pytest.raises(ValueError, match=f"x is a {kind}, not UTF-8 text"):
        decode_text(content, origin="x")


def test_decode_text_names_utf_16_cut_within_a_character():
    with pytest.raises(ValueError, match=r"^x is UTF-16LE, not UTF-8"):
        decode_text("hello world\n".encode("utf-16")[:-1], origin="x")


def test_decode_text_accepts_a_zero_byte_per_line():
    assert decode_text((b"a" * 24 + b"\0\n") * 9, origin="x").count("\0") == 9
