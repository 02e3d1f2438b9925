"""`jaxlm score`."""

import math

import pytest
from cli_helpers import call, evaluate, pipe, shown


def test_score_agrees_with_evaluate(mlp, text):
    console = pipe()
    document = call("score", mlp, text=text, console=console)
    expected = evaluate(mlp, text=text)
    assert document["bits_per_byte"] == pytest.approx(expected["bits_per_byte"], rel=1e-6)
    assert len(document["tokens"]) == expected["num_tokens"]
    assert sum(row["log_prob"] for row in document["tokens"]) == pytest.approx(
        -expected["num_tokens"] * math.log(expected["perplexity"]), rel=1e-5
    )
    content = text.read_text()
    assert "".join(row["token"] for row in document["tokens"]) == content[3:]
    _, head, *rows, total = shown(console).splitlines()
    assert head.split() == ["log-prob", "rank", "entropy", "token"]
    assert [row.split()[-1] for row in rows[:4]] == ["b", "e", "␣", "o"]
    assert total.startswith(f"{text}: {len(rows):,} tokens, ")


def test_score_refuses_a_short_text(mlp, tmp_path):
    (tmp_path / "short.txt").write_text("to")
    with pytest.raises(ValueError, match="at least 4"):
        call("score", mlp, text=tmp_path / "short.txt")
