"""makemore's windows, counts and losses, by its own convention in a loop."""

import math
import random
from collections import Counter
from functools import partial

import numpy as np
import pytest

import jaxlm
from experiments.findings.makemore_names import (
    MakemoreNamesOptions,
    count_names,
    measure,
    nats_per_token,
    parse_names,
    sample_names,
    split_names,
)

NAMES = ["ada", "bcb", "abba", "cab", "a", "dad", "bab", "cad"] * 4
TOKENIZER = jaxlm.CharTokenizer.train(".abcd")


def makemore_windows(names, context_length):
    """Yield context and target as the lectures build them: dots, shifted by each letter and the end."""
    for name in names:
        context = "." * context_length
        for letter in name + ".":
            yield context, letter
            context = context[1:] + letter


@pytest.mark.parametrize(("context_length", "k"), [(1, 1.0), (3, 0.1)])
def test_only_windows_of_makemore_count(context_length, k):
    model = jaxlm.CountsNgramLM(5, context_length, jaxlm.AddK(k))
    variables = count_names(model, NAMES, TOKENIZER)
    windows = Counter(makemore_windows(NAMES, context_length))
    ngrams, counts = model.ngrams_of(variables)
    found = {TOKENIZER.decode(ngram): count for ngram, count in zip(ngrams, counts, strict=True)}
    assert found == {context + letter: count for (context, letter), count in windows.items()}
    totals = Counter(context for context, _ in makemore_windows(NAMES, context_length))
    names = ["abca", "d"]
    nats = [
        -math.log((windows[context, letter] + k) / (totals[context] + 5 * k))
        for context, letter in makemore_windows(names, context_length)
    ]
    assert len(nats) == 7
    assert nats_per_token(model, variables, names, TOKENIZER) == pytest.approx(np.mean(nats), rel=1e-6)


def test_split_names_is_makemores():
    names = [str(number) for number in range(30)]
    shuffled = list(names)
    random.seed(42)
    random.shuffle(shuffled)
    assert split_names(names) == (shuffled[:24], shuffled[24:27])


@pytest.mark.slow
def test_sample_names_end_at_the_mark():
    """In names of one letter, only the end follows a letter."""
    model = jaxlm.CountsNgramLM(5, 2, jaxlm.AddK(1e-6))
    samples = sample_names(model, count_names(model, ["a", "b"], TOKENIZER), TOKENIZER, seed=0)
    assert set(samples) <= {"a", "b"}
    assert len(samples) == 4


def test_4_gram_loss_on_makemores_split(names):
    """2.1018 is the result of a loop over the names with makemore's convention."""
    train, validation = split_names(parse_names(names))
    tokenizer = jaxlm.CharTokenizer.train("." + names.replace("\n", ""))
    model = jaxlm.CountsNgramLM(27, 3, jaxlm.AddK(0.1))
    nats = nats_per_token(model, count_names(model, train, tokenizer), validation, tokenizer)
    assert nats == pytest.approx(2.1018, abs=5e-4)


@pytest.mark.stress
def test_measure_evaluates_counts_and_mlps(run_measure):
    results, table = run_measure(partial(measure, MakemoreNamesOptions(steps=5, quick=True), NAMES))
    assert [row["evaluated_on"] for row in results["counts"]] == ["all names"] * 2 + ["validation"] * 6
    mlp = results["mlp"]
    first, second = mlp["validation_nats"]
    # The mean of two numbers, and Student's 12.7062 for one degree of freedom times half their distance.
    half = 12.7062 * abs(first - second) / 2
    mean = (first + second) / 2
    assert mlp["interval_95_percent"] == pytest.approx([mean - half, mean + half], rel=1e-5)
    assert f"{mean:.4f}" in table
