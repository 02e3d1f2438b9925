"""`jaxlm corpus`."""

import pytest
from cli_helpers import corpus, pipe, shown


def test_corpus_lists_and_fetches(tmp_path, monkeypatch, tinyshakespeare):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path))
    path, console = tmp_path / "tinyshakespeare.txt", pipe()
    rows = corpus(console=console)["corpora"]
    assert rows[0] == {"name": "tinyshakespeare", "path": str(path), "bytes": None}
    assert [row["name"] for row in rows] == ["tinyshakespeare", "shakespeare"]
    assert shown(console).startswith(
        f"tinyshakespeare: not cached (jaxlm corpus fetch tinyshakespeare), {path}\nshakespeare:"
    )
    path.write_text(tinyshakespeare, "utf-8")
    console = pipe()
    corpus("fetch", "tinyshakespeare", console=console)
    assert shown(console) == f"tinyshakespeare: {path.stat().st_size:,} bytes, {path}\n"
    with pytest.raises(ValueError, match="hamlet"):
        corpus("list", "hamlet")
