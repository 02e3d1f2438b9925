"""Sizes by closed forms and by counting."""

from dataclasses import replace
from functools import partial

import pytest

from experiments.findings.context_length import ContextLengthOptions, dense_bytes, longest_dense_context, measure
from experiments.shared.recipes import read_recipe
from jaxlm.text.dataset import load_dataset

TEXT = "the cat sat on the mat. a rat sat on a hat: the cat sat on the rat!\n" * 10


@pytest.mark.slow
def test_measure_reports_perplexity_and_memory(run_measure, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    options = ContextLengthOptions(longest=1, quick=True)
    config = replace(read_recipe("minute", quick_steps=2), vocab_size=256, embedding_dim=2, hidden_dim=3)
    data = load_dataset("", tmp_path / "text.txt", "bpe", vocab_size=256)
    results, table = run_measure(partial(measure, options, config, data))
    assert [row["context_length"] for row in results["rows"]] == [0, 1]
    train_ids = data.train_ids.tolist()
    for length, row in enumerate(results["rows"]):
        ngrams = {tuple(train_ids[begin : begin + length + 1]) for begin in range(len(train_ids) - length)}
        assert row["counts"]["num_ngrams"] == len(ngrams)
        assert row["dense_megabytes"] == 8 * 256 ** (length + 1) / 1e6
    assert results["rows"][0]["mlp"] is None
    mlp = results["rows"][1]["mlp"]
    assert mlp["num_parameters"] == 256 * 2 + (2 * 3 + 3) + 3 * 256 + 256
    assert mlp["megabytes"] == 4 * mlp["num_parameters"] / 1e6
    assert "16 GiB: 5 with V = 27, 4 with V = 65, 2 with V = 384, 1 with V = 4096, 0 with V = 50257\n" in table


def test_longest_dense_context_is_the_last_that_fits():
    assert dense_bytes(27, 3) == 27**4 * 8
    for vocab_size, memory, longest in [(10, 8_000, 2), (10, 7_999, 1), (10, 80, 0), (10, 79, -1)]:
        assert longest_dense_context(vocab_size, memory) == longest
