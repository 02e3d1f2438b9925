"""`jaxlm encode`."""

import numpy as np
import pytest
from cli_helpers import TEXT, pipe, shown

import jaxlm
from jaxlm.cli.encode import EncodeOptions, encode_paths


def test_encode_writes_tokens_and_reports(text, tmp_path):
    console = pipe()
    out = tmp_path / "tokens"
    document = encode_paths(EncodeOptions((text,), out=out, tokenizer="bpe", vocab_size=260), console)
    tokenizer = jaxlm.BPETokenizer.train(TEXT, 260)
    stream = jaxlm.open_tokens(out)
    assert np.asarray(stream).tolist() == tokenizer.encode(TEXT).tolist()
    assert document == {"out": str(out), "tokens": len(stream), "vocab_size": 260, "dtype": "uint16"}
    assert shown(console).startswith(
        f"{out}: {len(stream):,} tokens, vocabulary of 260, uint16; to train on them: "
    )


def test_encode_uses_a_saved_tokenizer(text, tmp_path):
    jaxlm.ByteTokenizer().save(tmp_path / "byte.json")
    encode_paths(EncodeOptions((text,), out=tmp_path / "tokens", tokenizer=tmp_path / "byte.json"), pipe())
    assert bytes(np.asarray(jaxlm.open_tokens(tmp_path / "tokens")).tolist()).decode() == TEXT


def test_encode_names_a_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt names no file; give"):
        encode_paths(EncodeOptions((tmp_path / "none.txt",), out=tmp_path / "tokens"), pipe())
    assert not (tmp_path / "tokens").exists()
