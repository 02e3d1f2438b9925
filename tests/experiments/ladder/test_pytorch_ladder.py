"""The PyTorch ladder does the work of the ladder: equal counts, and networks that learn."""

import pytest

from experiments.ladder.pytorch_ladder import PyTorchLadderOptions, prepare
from experiments.ladder.rungs import fit_baselines, load_text

TEXT = "the cat sat on the mat. a rat sat on a hat: the cat sat on the rat!\n" * 20


def test_pytorch_ladder_does_the_work_of_the_ladder(run, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "text.txt").write_text(TEXT)
    options = {"text": tmp_path / "text.txt", "tokenizer": "char", "num_tokens": 5, "quick": True}
    options = PyTorchLadderOptions(**options, bigram_embedding_dim=16, out=tmp_path / "run")
    _, results, output = run(prepare, options)
    data = load_text(options, "char", min_tokens=8)
    counts, *networks = results["models"]
    assert counts["perplexity"] == pytest.approx(fit_baselines(data)[2].evaluation.perplexity, rel=1e-5)
    assert [row["title"] for row in networks] == ["neural bigram", "MLP"]
    for row in networks:
        assert 1 < row["perplexity"] < 0.9 * data.tokenizer.vocab_size  # a new network is uniform
    assert all(row["seconds"] > 0 for row in results["models"])
    assert results["device"]["platform"] == "cpu"
    assert "all models" in output
