"""Every file that is not valid JSON of a limited size is a ValueError that names it."""

import functools
import json

import pytest

from jaxlm.utils.json_files import check_version, parse_json, read_json

INVALID = {
    "empty": (b"", "line 1, column 1: .* found the end of the file"),
    "NaN": (
        b'{"a": 1,\n "b": NaN, "c": "NaN"}',
        "line 2, column 7: .* found 'NaN, .*; JSON has no comments, .* NaN",
    ),
    "infinity": (b"[-Infinity]", "line 1, column 2"),
    "a comment": (b'{"a": 1,  // one\n}', "line 1, column 11: .* found '// one"),
    "a trailing comma": (b'{\n "a": [1, 2],\n}', "line [23], column .*; JSON has .* no comma before a closing"),
    "YAML": (b"model: mlp\n", "line 1, column 1: Expecting value, found 'model: mlp"),
    "Python": (b"{'a': True}", "line 1, column 2: .* in double quotes, found \"'a'"),
    "deep lists": (b"[" * 100_000 + b"]" * 100_000, "it is nested too deeply"),
    "an integer of 10,000 digits": (b"1" * 10_000, "Exceeds the limit"),
    "two documents": (b"{} {}", "line 1, column 4: Extra data, found '{}'"),
}


@pytest.mark.parametrize(("content", "reason"), INVALID.values(), ids=INVALID)
def test_read_json_invalid(tmp_path, content, reason):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"file\.json is not valid JSON: {reason}") as error:
        read_json(tmp_path / "file.json")
    assert "damaged" not in str(error.value)


def test_read_json_round_trip(tmp_path):
    document = {"a": [1, 2.5, None, True, "é\ud800"], "": {}}
    (tmp_path / "file.json").write_text(json.dumps(document), "utf-8")
    (tmp_path / "link.json").symlink_to("file.json")
    assert read_json(tmp_path / "file.json") == read_json(tmp_path / "link.json") == document
    (tmp_path / "file.json").write_text(json.dumps(document), "utf-8-sig")
    assert read_json(tmp_path / "file.json") == document
    assert parse_json('{"a": 1}', origin="here") == parse_json(b'{"a": 1}', origin="here") == {"a": 1}
    with pytest.raises(ValueError, match="here is UTF-16BE, not UTF-8"):
        parse_json('{"a":1}'.encode("utf-16-be"), origin="here")


def test_read_json_too_large(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)  # more than fits in memory
    with pytest.raises(ValueError, match="sparse is larger than 16,777,216 bytes"):
        read_json(tmp_path / "sparse")
    with pytest.raises(ValueError, match="here is larger than 16,777,216 bytes"):
        parse_json("1" * (2**24 + 1), origin="here")


NESTED = functools.reduce(lambda inner, _: [inner], range(100_000), 1)


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({"version": 3}, "3"),
        ({"version": 2.0}, r"2\.0"),
        ({"version": "2"}, "'2'"),
        ({}, "None"),
        ([2], "None"),
        ({"version": "x" * 10_000}, r"'x{5,40}\.\.\.x{5,40}'"),
        ({"version": NESTED}, r"[\[\].]{5,40}"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else None,
)
def test_check_version_refuses_another(document, shown):
    with pytest.raises(ValueError, match=rf"^here is not a thing of version 2 \(version: {shown}\); if a later"):
        check_version(document, 2, origin="here", what="thing")
    check_version({"version": 2}, 2, origin="here", what="thing")
