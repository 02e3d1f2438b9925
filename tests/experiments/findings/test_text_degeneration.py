"""Each share by hand and by another way of counting, its error by Cochran, and the artefacts are there."""

import json
import math

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.findings import text_degeneration as failure_modes
from experiments.findings.text_degeneration import (
    MEASURES,
    FailureConfig,
    Known,
    copied_ngrams,
    known_of,
    looped_tokens,
    repeated_ngrams,
    run_failure_modes,
    share_of,
    unknown_words,
    unseen_pairs,
    words_of,
)
from experiments.shared.experiment import Output
from jaxlm.runs.manifest import read_manifest
from jaxlm.text.dataset import load_dataset

QUIET = Console(quiet=True)
TEXT = "the cat sat on the mat. a rat sat on a hat: don't ask the cat!\n" * 60
BYTES = jaxlm.ByteTokenizer()
NOTHING = Known(np.zeros((256, 256), np.int32), frozenset(), frozenset())


def ids(text):
    return BYTES.encode(text)


@pytest.mark.parametrize("text", ["abcdabcdxabcd", "aaaaaaa", "abcdefgh", "abcabcabcab"])
def test_repeated_ngrams_by_a_loop(text):
    grams = [text[start : start + 4] for start in range(len(text) - 3)]
    repeated = sum(gram in grams[:place] for place, gram in enumerate(grams))
    assert repeated_ngrams(ids(text), NOTHING, BYTES) == (repeated, len(grams))


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("abcdef", 0),
        ("xyaaaz", 3),
        ("abab", 4),
        ("xabcabcabz", 8),  # two rounds of abc, and two letters of a third
        ("abcdefgabc", 0),  # not one right after the other
        ("aabbbbcdcdcd", 6),
        ("".join(map(chr, range(33, 93))) * 2, 120),  # a long one, of 60 letters
    ],
)
def test_the_longest_loop(text, longest):
    assert looped_tokens(ids(text), NOTHING, BYTES) == (longest, len(text))
    # Any period of at most half the text, by brute force.
    found = [
        end - start
        for start in range(len(text))
        for end in range(start + 2, len(text) + 1)
        for period in range(1, (end - start) // 2 + 1)
        if text[start : end - period] == text[start + period : end]
    ]
    assert max(found, default=0) == longest


def test_what_the_training_text_holds(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    data = load_dataset("", tmp_path / "text.txt", "byte")
    known = known_of(data)
    train_text = BYTES.decode(data.train_ids)
    own = BYTES.encode(train_text[100:200])
    assert copied_ngrams(own, known, BYTES) == (93, 93)
    assert unseen_pairs(own, known, BYTES) == (0, 99)
    assert unknown_words(own, known, BYTES).failed == 0
    other = "hat zzz the catt sat on the"  # of its inner words zzz and catt
    assert unknown_words(ids(other), known, BYTES) == (2, 5)
    pairs = [other[place : place + 2] for place in range(len(other) - 1)]
    assert unseen_pairs(ids(other), known, BYTES) == (sum(pair not in train_text for pair in pairs), len(pairs))
    grams = [other[place : place + 8] for place in range(len(other) - 7)]
    copied = sum(gram in train_text for gram in grams)
    assert 0 < copied < len(grams)
    assert copied_ngrams(ids(other), known, BYTES) == (copied, len(grams))


def test_words():
    assert words_of("I'll go, said naïve Tom-- 3 'times'") == ["I'll", "go", "said", "naïve", "Tom", "times"]


def test_the_share_and_its_error():
    # Streams of one length: the mean of their shares, and its usual standard error.
    shares = np.array([0.1, 0.4, 0.4, 0.7])
    found = share_of([failure_modes.Counted(round(share * 10), 10) for share in shares])
    assert found["share"] == pytest.approx(shares.mean())
    assert found["standard_error"] == pytest.approx(shares.std(ddof=1) / 2)
    # Of other lengths, places count, not streams.
    assert share_of([failure_modes.Counted(1, 1), failure_modes.Counted(0, 9)])["share"] == pytest.approx(0.1)
    assert math.isnan(share_of([failure_modes.Counted(0, 0)] * 2)["share"])


def two_writers(ladder, plan, data, console):
    """The unigram, and counts of pairs without smoothing: no pair of theirs is unseen."""
    bigram = jaxlm.CountsBigramLM(data.tokenizer.vocab_size, smoothing=0)
    yield "bigram", bigram, bigram.fit(jaxlm.init(bigram, jax.random.key(0)), data.train_ids)


@pytest.mark.slow
def test_the_artefacts(tmp_path, monkeypatch):
    monkeypatch.setattr(failure_modes, "writers", two_writers)
    (tmp_path / "text.txt").write_text("".join(f"{TEXT[: 20 + i % 40]} {i}\n" for i in range(700)))
    config = FailureConfig(
        text=tmp_path / "text.txt", num_streams=3, num_tokens=30, output=Output(tmp_path / "run"), quick=True
    )
    out = run_failure_modes(config, QUIET)
    assert read_manifest(out)["state"] == "done"
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert [(row["model"], row["temperature"]) for row in results["rows"]] == [
        ("real text", None),
        ("bigram", 0.0),
        ("bigram", 1.0),
    ]
    for row in results["rows"]:
        assert all(0 <= row[name]["share"] <= 1 for name in MEASURES)
        assert row["first_stream"].startswith(row["begins"])
    real, greedy, drawn = results["rows"]
    assert greedy["unseen_pairs"]["share"] == drawn["unseen_pairs"]["share"] == 0
    assert greedy["longest_loop"]["share"] > drawn["longest_loop"]["share"]
    table = (out / "table.txt").read_text("utf-8")
    assert "--- bigram, temperature 1\n" in table
    assert real["begins"] in table
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_streams": 1}, "--num-streams must be at least 2, got 1"),
        ({"num_tokens": 15}, "--num-tokens must be at least 16, got 15"),
        ({"seed": -1}, r"--seed must lie in 0\.\.4294967295, got -1"),
        ({"num_streams": 10**6}, "fewer --num-streams or --num-tokens"),
    ],
)
def test_what_is_refused_writes_nothing(options, message, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(ValueError, match=message):
        run_failure_modes(
            FailureConfig(text=tmp_path / "text.txt", output=Output(tmp_path / "run"), **options), QUIET
        )
    assert not (tmp_path / "run").exists()
