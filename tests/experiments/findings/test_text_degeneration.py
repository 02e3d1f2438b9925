"""Each failure is counted as a loop counts it, and its standard error is Cochran's."""

import math
from functools import partial

import numpy as np
import pytest

import jaxlm
from experiments.findings.text_degeneration import (
    Plan,
    TrainingText,
    count_failures,
    estimate_share,
    longest_loop,
    measure,
    summarize_training_text,
)
from experiments.shared.training import fit_counts
from jaxlm.text.dataset import load_dataset

TEXT = "the cat sat on the mat. a rat sat on a hat: don't ask the cat!\n" * 60
BYTES = jaxlm.ByteTokenizer()
EMPTY = TrainingText(np.zeros((256, 256), np.int32), frozenset(), frozenset())


@pytest.mark.parametrize("text", ["abcdabcdxabcd", "aaaaaaaaa", "abcdefgh"])
def test_repeated_4grams_match_a_loop(text):
    grams = [text[start : start + 4] for start in range(len(text) - 3)]
    repeated = sum(gram in grams[:position] for position, gram in enumerate(grams))
    assert count_failures(BYTES.encode(text), EMPTY, BYTES)["repeated_4grams"] == (repeated, len(grams))


@pytest.mark.parametrize("text", ["abcdefgabc", "xyaaaz", "xabcabcabz", "aabbbbcdcdcd", "abcdefghabcdefgh"])
def test_longest_loop_matches_brute_force(text):
    found = [
        end - start
        for start in range(len(text))
        for end in range(start + 2, len(text) + 1)
        for period in range(1, (end - start) // 2 + 1)
        if text[start : end - period] == text[start + period : end]
    ]
    assert longest_loop(BYTES.encode(text)) == max(found, default=0)


def test_failures_compare_with_the_training_text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    data = load_dataset("", tmp_path / "text.txt", "byte")
    training_text, text = summarize_training_text(data), BYTES.decode(data.train_ids)
    own = count_failures(BYTES.encode(text[100:200]), training_text, BYTES)
    assert own["copied_8grams"] == (93, 93)
    assert own["unseen_pairs"] == (0, 99)
    assert own["unknown_words"][0] == 0
    other = "hat zzz the catt sat on the"  # inner words zzz and catt are unknown
    found = count_failures(BYTES.encode(other), training_text, BYTES)
    assert found["unknown_words"] == (2, 5)
    pairs = [other[position : position + 2] for position in range(len(other) - 1)]
    assert found["unseen_pairs"] == (sum(pair not in text for pair in pairs), len(pairs))
    grams = [other[position : position + 8] for position in range(len(other) - 7)]
    copied = sum(gram in text for gram in grams)
    assert 0 < copied < len(grams)
    assert found["copied_8grams"] == (copied, len(grams))
    assert found["longest_loop"] == (3, len(other))  # zzz


def test_estimate_share_and_standard_error():
    # Streams of equal length: the mean of their shares and its usual standard error.
    shares = np.array([0.1, 0.4, 0.4, 0.7])
    found = estimate_share([(round(share * 10), 10) for share in shares])
    assert found["share"] == pytest.approx(shares.mean())
    assert found["standard_error"] == pytest.approx(shares.std(ddof=1) / 2)
    # Streams of unequal length: every position has equal weight.
    assert estimate_share([(1, 1), (0, 9)])["share"] == pytest.approx(0.1)
    assert math.isnan(estimate_share([(0, 0)] * 2)["share"])


@pytest.mark.slow
def test_measure_compares_a_model_with_real_text(run_measure, tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"{TEXT[: 20 + i % 40]} {i}\n" for i in range(300)))
    data = load_dataset("", tmp_path / "text.txt", "char")
    # All pairs of unsmoothed counts are in the training text.
    bigram = jaxlm.CountsBigramLM(data.tokenizer.vocab_size, smoothing=0)
    models = [("bigram", bigram, fit_counts(bigram, data.train_ids))]
    results, table = run_measure(partial(measure, Plan(3, 30, (0.0, 1.0)), models, data, 0))
    real, greedy, sampled = results["rows"]
    assert [row["temperature"] for row in results["rows"]] == [None, 0, 1]
    assert greedy["unseen_pairs"]["share"] == sampled["unseen_pairs"]["share"] == 0
    assert greedy["longest_loop"]["share"] > sampled["longest_loop"]["share"]
    for row in results["rows"]:
        share = row["repeated_4grams"]
        assert f"{100 * share['share']:.1f} ({100 * share['standard_error']:.1f})" in table
    assert "--- bigram, temperature 1\n" in table
    assert real["first_stream"][:30] in table
