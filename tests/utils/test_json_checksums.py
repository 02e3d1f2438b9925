"""Any change to a document with checksums is an error."""

import functools
import hashlib
import json

import pytest

from jaxlm.utils.json_files import add_checksum, parse_json, sha256_of, verify_checksum


def verify(content):
    """Parse a document as the readers do, and verify it."""
    return verify_checksum(parse_json(content, origin="here"), origin="here")


def test_add_checksum_round_trip():
    document = {"version": 1, "b": [1.5, None], "a": {"x": "é"}}
    content = add_checksum(document)
    assert verify(content) == document
    canonical = b'{"a":{"x":"\\u00e9"},"b":[1.5,null],"version":1}'
    assert json.loads(content)["sha256"] == hashlib.sha256(canonical).hexdigest() == sha256_of(canonical)


def test_verify_checksum_covers_every_bit():
    document = {"version": 1, "a": [0.1, "text", None], "b": {"c": True}}
    content = add_checksum(document).encode()
    harmless = 0
    for position in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            try:
                assert verify(bytes(changed)) == document
                harmless += 1  # a space that became another white space
            except ValueError:
                pass
    assert harmless < content.count(b" ") + content.count(b"\n")


DEEP = functools.reduce(lambda inner, _: [inner], range(5000), [])


@pytest.mark.parametrize(
    "change",
    [{"a": True}, {"b": 0}, {"sha256": "0" * 64}, {"a": float("inf")}, {"a": DEEP}],
)
def test_verify_checksum_mismatch(change):
    document = json.loads(add_checksum({"version": 1, "a": 1}))
    with pytest.raises(ValueError, match="here is damaged: checksum mismatch"):
        verify_checksum(document | change, origin="here")


@pytest.mark.parametrize("document", [None, [], {"a": 1}, {"sha256": 1}])
def test_verify_checksum_missing(document):
    with pytest.raises(ValueError, match="here is damaged: its sha256 is missing"):
        verify_checksum(document, origin="here")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a" * 2**24], ids=["NaN", "infinity", "too long"])
def test_add_checksum_refuses_what_cannot_be_read(value):
    with pytest.raises(ValueError, match=r"JSON compliant|more than 16,777,216"):
        add_checksum({"a": value})
