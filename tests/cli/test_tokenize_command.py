"""`jaxlm tokenize`."""

import numpy as np
import pytest
from cli_helpers import TEXT, pipe, shown, tokenize

import jaxlm


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_tokenize_trains_reports_and_saves(kind, text, tmp_path):
    console = pipe()
    out = tmp_path / "tokenizer.json"
    vocab_size = 260 if kind == "bpe" else None
    document = tokenize(text, tokenizer=kind, vocab_size=vocab_size, encode="to be", out=out, console=console)
    tokenizer = jaxlm.load_tokenizer(out)
    ids = tokenizer.encode(TEXT)
    assert (document["vocab_size"], document["tokens"]) == (tokenizer.vocab_size, len(ids))
    assert document["bytes_per_token"] == len(TEXT) / len(ids)
    assert document["unused"] == tokenizer.vocab_size - len(set(ids.tolist()))
    assert "".join(each["token"] for each in document["encoded"]) == "to be"
    best = document["frequent"][0]
    assert best["count"] == np.bincount(ids).max() == (ids == best["id"]).sum()
    lines = shown(console).splitlines()
    assert lines[0].startswith(f"{text}: 2,400 characters, {len(ids):,} tokens")
    assert [line.split(":")[0] for line in lines[1:]] == ["frequent", "encoded"]
    for saved in (out, tmp_path):
        assert tokenize(text, tokenizer=saved) == document | {"encoded": None, "out": None}


def test_tokenize_refuses_and_writes_nothing(text, run, tmp_path):
    console, out = pipe(), tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match="£"):
        tokenize(text, tokenizer="char", encode="£", out=out, console=console)
    assert shown(console) == ""
    assert not out.exists()
    with pytest.raises(FileExistsError, match=r"hamlet\.txt exists; choose another --out"):
        tokenize(text, tokenizer="byte", out=text)
    for tokenizer in ("byte", run):
        with pytest.raises(ValueError, match="300 does not apply to"):
            tokenize(text, vocab_size=300, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="256"):
        tokenize(text, vocab_size=0)
