"""All tokenizers are judged on the same bytes, every one of them once; the artefacts are there."""

import itertools
import json
import math
import re
from collections import Counter

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.findings import vocabulary_size as vocabulary
from experiments.findings.vocabulary_size import (
    Plan,
    VocabularyConfig,
    best_order,
    run_vocabulary,
    score,
    split_at_line,
    tokenizers,
)
from experiments.shared.experiment import Output
from jaxlm.runs.manifest import read_manifest

TEXT = "".join(f"the cat sat on mat {i % 7}, and a naïve rat saw {i % 5} hats\n" for i in range(200))
QUIET = Console(quiet=True)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, "utf-8")
    return path


def test_the_text_is_cut_before_a_line_and_nothing_is_lost():
    train_text, val_text = split_at_line(TEXT)
    assert train_text + val_text == TEXT
    assert train_text.endswith("\n")
    # At most one line more than a tenth.
    assert len(TEXT) / 10 <= len(val_text) <= len(TEXT) / 10 + 60
    assert split_at_line("abcdefg\nhi\nj") == ("abcdefg\n", "hi\nj")


def test_the_tokenizers_by_size():
    train_text, val_text = split_at_line(TEXT)
    made = dict(tokenizers(Plan((256, 270), 2, 1), TEXT, train_text))
    assert {name: tokenizer.vocab_size for name, tokenizer in made.items()} == {
        "char": len(set(TEXT)),
        "byte": 256,
        "bpe 256": 256,
        "bpe 270": 270,
    }
    for tokenizer in made.values():
        assert tokenizer.decode_bytes(tokenizer.encode(val_text)) == val_text.encode()
    # BPE has seen the training text alone.
    assert made["bpe 270"] == jaxlm.BPETokenizer.train(train_text, 270)


def test_every_token_is_scored_once_whatever_the_context():
    before, ids = np.array([0, 1, 2, 0, 1]), np.array([2, 0, 0, 1])
    for context_length in (0, 1, 3):
        model = jaxlm.CountsNgramLM(3, context_length, jaxlm.AddK(0.5))
        variables = model.fit(jaxlm.init(model, jax.random.key(0)), before)
        windows = Counter(itertools.pairwise([*before])) if context_length == 1 else None
        evaluation = score(model, variables, before, ids)
        assert evaluation.num_tokens == len(ids)
        if windows is not None:
            contexts = Counter([*before[:-1]])
            probabilities = [
                (windows[pair] + 0.5) / (contexts[pair[0]] + 1.5) for pair in itertools.pairwise([1, *ids])
            ]
            assert evaluation.nats_per_token == pytest.approx(-np.mean(np.log(probabilities)), rel=1e-5)


@pytest.mark.slow
def test_the_order_is_that_of_the_source():
    # Nine times in ten the next is the sum of the last two: one of them does not tell it, three tell no more.
    rng = np.random.default_rng(0)
    ids = [0, 1]
    for drawn in rng.integers(0, 3, 3000):
        ids.append(drawn if rng.random() < 0.15 else (ids[-1] + ids[-2]) % 3)
    assert best_order(3, np.array(ids), 2) == 2
    assert best_order(3, np.array(ids), 6) == 3
    # Independent tokens: no context helps.
    assert best_order(3, rng.integers(0, 3, 2000), 6) == 2


@pytest.mark.slow
def test_the_artefacts_and_what_the_figures_must_be(text, tmp_path, monkeypatch):
    plan = Plan((256,), max_order=2, num_steps=2)
    out = tmp_path / "run"
    monkeypatch.setattr(vocabulary, "Plan", lambda *args, **options: plan)
    run_vocabulary(VocabularyConfig(text=text, output=Output(out)), QUIET)
    assert read_manifest(out)["state"] == "done"
    results = json.loads((out / "results.json").read_text("utf-8"))
    val_bytes = len(split_at_line(TEXT)[1].encode())
    assert results["val_bytes"] == val_bytes
    by_name = {row["tokenizer"]: row["models"] for row in results["rows"]}
    for row in results["rows"]:
        for model in row["models"].values():
            bits = model["nats_per_token"] / math.log(2) * row["val_tokens"] / val_bytes
            assert model["bits_per_byte"] == pytest.approx(bits, rel=1e-9)
        assert row["models"]["uniform"]["perplexity"] == pytest.approx(row["vocab_size"], rel=1e-5)
    assert by_name["byte"]["uniform"]["bits_per_byte"] == pytest.approx(8, rel=1e-5)
    # BPE without a merge is the bytes in another order.
    for title in ("counts bigram, best k", "modified Kneser-Ney"):
        assert by_name["bpe 256"][title]["perplexity"] == pytest.approx(by_name["byte"][title]["perplexity"])
    assert re.search(r"^bpe 256 +256 ", (out / "table.txt").read_text("utf-8"), re.MULTILINE)
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        ({"seed": 2**32}, TEXT, "--seed must lie in 0..4294967295, got 4294967296"),
        ({}, "one line\n" * 19, "has 19 line ends; the experiment needs 20: use a longer text"),
    ],
)
def test_what_is_refused_writes_nothing(options, content, message, text, tmp_path):
    text.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message):
        run_vocabulary(VocabularyConfig(text=text, output=Output(tmp_path / "run"), **options), QUIET)
    assert not (tmp_path / "run").exists()
