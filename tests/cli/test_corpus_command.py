"""`jaxlm corpus`."""

import pytest
from cli_helpers import corpus, pipe, shown


def test_corpus_lists_fetches_and_verifies(tmp_path, monkeypatch, tinyshakespeare):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path))
    path, console = tmp_path / "tinyshakespeare.txt", pipe()
    rows = corpus(console=console)["corpora"]
    assert rows[0] == {"name": "tinyshakespeare", "path": str(path), "bytes": None}
    assert [row["name"] for row in rows] == ["tinyshakespeare", "shakespeare"]
    assert shown(console).startswith(
        f"tinyshakespeare: not cached (jaxlm corpus fetch tinyshakespeare), {path}\nshakespeare:"
    )
    with pytest.raises(FileNotFoundError, match="jaxlm corpus fetch tinyshakespeare"):
        corpus("verify")
    path.write_text(tinyshakespeare, "utf-8")
    console = pipe()
    for action in ("fetch", "verify"):
        corpus(action, "tinyshakespeare", console=console)
    num_bytes = f"{path.stat().st_size:,} bytes"
    assert shown(console) == (
        f"tinyshakespeare: {num_bytes}, {path}\ntinyshakespeare: {num_bytes}, sha256 verified, {path}\n"
    )
    path.write_text("To be")
    with pytest.raises(ValueError, match=r"tinyshakespeare\.txt"):
        corpus("verify", "tinyshakespeare")
    with pytest.raises(ValueError, match="hamlet"):
        corpus("list", "hamlet")
