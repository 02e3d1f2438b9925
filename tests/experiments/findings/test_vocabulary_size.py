"""Every tokenizer is evaluated on the same bytes, each of them once."""

import itertools
import math
import re
from collections import Counter
from functools import partial

import numpy as np
import pytest

import jaxlm
from experiments.findings.vocabulary_size import (
    Plan,
    evaluate_after,
    measure,
    select_order,
    split_at_line,
    train_tokenizers,
)
from experiments.shared.training import fit_counts

TEXT = "".join(f"the cat sat on mat {i % 7}, and a naïve rat saw {i % 5} hats\n" for i in range(200))


def test_split_at_line_loses_nothing():
    train_text, val_text = split_at_line(TEXT)
    assert train_text + val_text == TEXT
    assert train_text.endswith("\n")
    assert len(TEXT) / 10 <= len(val_text) <= len(TEXT) / 10 + 60  # at most one more line
    assert split_at_line("abcdefg\nhi\nj") == ("abcdefg\n", "hi\nj")


def test_train_tokenizers_by_vocabulary_size():
    train_text, val_text = split_at_line(TEXT)
    trained = dict(train_tokenizers(Plan((256, 270), 2, 1), TEXT, train_text))
    sizes = {name: tokenizer.vocab_size for name, tokenizer in trained.items()}
    assert sizes == {"char": len(set(TEXT)), "byte": 256, "bpe 256": 256, "bpe 270": 270}
    for tokenizer in trained.values():
        assert tokenizer.decode_bytes(tokenizer.encode(val_text)) == val_text.encode()
    assert trained["bpe 270"] == jaxlm.BPETokenizer.train(train_text, 270)  # not on the validation text


@pytest.mark.parametrize("context_length", [0, 1, 3])
def test_evaluate_after_counts_every_token_once(context_length):
    before, ids = np.array([0, 1, 2, 0, 1]), np.array([2, 0, 0, 1])
    model = jaxlm.CountsNgramLM(3, context_length, jaxlm.AddK(0.5))
    evaluation = evaluate_after(before, ids, model, fit_counts(model, before))
    assert evaluation.num_tokens == len(ids)
    if context_length == 1:
        pairs, contexts = Counter(itertools.pairwise(before.tolist())), Counter(before[:-1].tolist())
        probabilities = [
            (pairs[a, b] + 0.5) / (contexts[a] + 1.5) for a, b in itertools.pairwise([1, *ids.tolist()])
        ]
        assert evaluation.nats_per_token == pytest.approx(-np.mean(np.log(probabilities)), rel=1e-5)


@pytest.mark.slow
def test_select_order_finds_that_of_the_source():
    # The next token is mostly the sum of the last two: one of them alone does not help, a third adds nothing.
    rng = np.random.default_rng(0)
    ids = [0, 1]
    for token in rng.integers(0, 3, 3000):
        ids.append(token if rng.random() < 0.15 else (ids[-1] + ids[-2]) % 3)
    assert select_order(3, np.array(ids), 2) == 2
    assert select_order(3, np.array(ids), 6) == 3
    assert select_order(3, rng.integers(0, 3, 2000), 6) == 2  # independent tokens


@pytest.mark.stress
def test_measure_gives_comparable_bits_per_byte(run_measure, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    plan = Plan((256,), max_order=2, num_steps=2)
    results, table = run_measure(partial(measure, 0, plan, jaxlm.read_text(tmp_path / "text.txt")))
    val_bytes = len(split_at_line(TEXT)[1].encode())
    assert results["val_bytes"] == val_bytes
    for row in results["rows"]:
        for model in row["models"].values():
            bits = model["nats_per_token"] / math.log(2) * row["val_tokens"] / val_bytes
            assert model["bits_per_byte"] == pytest.approx(bits, rel=1e-9)
        assert row["models"]["uniform"]["perplexity"] == pytest.approx(row["vocab_size"], rel=1e-5)
    by_name = {row["tokenizer"]: row["models"] for row in results["rows"]}
    assert by_name["byte"]["uniform"]["bits_per_byte"] == pytest.approx(8, rel=1e-5)
    # BPE without merges has the bytes in another order.
    for title in ("counts bigram, best k", "modified Kneser-Ney"):
        assert by_name["bpe 256"][title]["perplexity"] == pytest.approx(by_name["byte"][title]["perplexity"])
    assert re.search(r"^bpe 256 +256 ", table, re.MULTILINE)
