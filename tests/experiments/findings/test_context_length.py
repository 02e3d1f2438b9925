"""Sizes by closed forms, perplexities by the library alone, and the artefacts."""

import dataclasses
import io
import json

import jax
import pytest
from rich.console import Console

import jaxlm
from experiments.findings import context_length
from experiments.findings.context_length import ContextConfig, in_units, run_context_length, table_bytes, wall
from experiments.shared.experiment import Output
from jaxlm.runs.manifest import read_manifest

TEXT = "the cat sat on the mat. a rat sat on a hat: the cat sat on the rat!\n" * 40


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Bytes instead of merges, two steps, two contexts."""
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    options = context_length.training_options(ContextConfig(quick=True))
    small = dataclasses.replace(options, vocab_size=256, num_steps=2, embedding_dim=2, hidden_dim=3)
    monkeypatch.setattr(context_length, "training_options", lambda config: small)
    return ContextConfig(text=tmp_path / "text.txt", longest=2, output=Output(tmp_path / "run"))


@pytest.mark.slow
def test_the_artefacts(config):
    path = run_context_length(config, Console(file=(told := io.StringIO()), width=200))
    assert read_manifest(path)["state"] == "done"
    assert (path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (path / "table.txt").read_text("utf-8") in told.getvalue()
    results = json.loads((path / "results.json").read_text("utf-8"))
    assert [row["context_length"] for row in results["counts"]] == [0, 1, 2]
    assert [row["context_length"] for row in results["mlp"]] == [1, 2]
    ids = jaxlm.BPETokenizer.train(TEXT, 256).encode(TEXT)
    train_ids, val_ids = jaxlm.split_ids(ids)
    for row in results["counts"]:
        length = row["context_length"]
        model = jaxlm.CountsNgramLM(256, length)
        variables = model.fit(jaxlm.init(model, jax.random.key(0)), train_ids)
        assert row["perplexity"] == pytest.approx(jaxlm.perplexity(model, variables, val_ids), rel=1e-5)
        windows = {
            tuple(train_ids[begin : begin + length + 1].tolist()) for begin in range(len(train_ids) - length)
        }
        assert row["num_ngrams"] == len(windows)
        assert row["table_bytes"] == 8 * 256 ** (length + 1)
    for row in results["mlp"]:
        hidden_weights = row["context_length"] * 2 * 3 + 3
        assert row["num_parameters"] == 256 * 2 + hidden_weights + 3 * 256 + 256
        assert row["bytes"] == 4 * row["num_parameters"]


def test_a_table_grows_by_the_vocabulary_and_the_wall_is_where_it_no_longer_fits():
    assert table_bytes(4096, 1) == 134_217_728
    assert table_bytes(27, 3) == 27**4 * 8
    for vocab_size, memory, longest in [(10, 8_000, 2), (10, 7_999, 1), (10, 80, 0), (10, 79, -1)]:
        assert wall(vocab_size, memory) == longest


@pytest.mark.parametrize(
    ("num_bytes", "words"), [(5, "5 B"), (5_832, "5.8 kB"), (134_217_728, "134 MB"), (17.2e9, "17.2 GB")]
)
def test_bytes_in_words(num_bytes, words):
    assert in_units(num_bytes) == words


def test_the_recipe_is_the_file_s_unless_told_otherwise():
    options = context_length.training_options(ContextConfig(seed=4))
    assert (options.num_steps, options.weight_decay, options.vocab_size, options.seed) == (8000, 1e-4, 4096, 4)
    assert context_length.training_options(ContextConfig(steps=9)).num_steps == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"longest": 0}, "--longest must be at least 1, got 0"),
        ({"memory_gib": 0.0}, r"--memory-gib must be above 0 .*, got 0\.0"),
        ({"memory_gib": float("nan")}, "--memory-gib must be above 0 .*, got nan"),
        ({"steps": 0}, "--num-steps must lie in 1"),
    ],
    ids=str,
)
def test_wrong_options_are_named_and_nothing_is_written(tmp_path, options, message):
    config = ContextConfig(output=Output(tmp_path / "run"), **options)
    with pytest.raises(ValueError, match=message):
        run_context_length(config, Console(quiet=True))
    assert not (tmp_path / "run").exists()
