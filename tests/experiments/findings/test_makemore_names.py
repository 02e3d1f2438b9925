"""makemore's windows, counts and losses, by its own convention written out in three lines."""

import io
import json
import math
import random
from collections import Counter

import numpy as np
import pytest
from rich.console import Console

import jaxlm
from experiments.findings.makemore_names import (
    NamesConfig,
    counted,
    made_up,
    makemore_split,
    names_of,
    nats_per_token,
    run_names,
    stream_of,
)
from experiments.shared.experiment import Output

FEW = ["ada", "bcb", "abba", "cab", "a", "dad", "bab", "cad"] * 4
TOKENIZER = jaxlm.CharTokenizer.train(".abcd")


def makemore_windows(names, context_length):
    """As the lectures build them: a context of dots, rolled on over each name's letters and its end."""
    for name in names:
        context = "." * context_length
        for letter in name + ".":
            yield context, letter
            context = context[1:] + letter


@pytest.mark.parametrize("context_length", [1, 2, 3])
@pytest.mark.parametrize("k", [0.1, 1.0])
def test_only_the_windows_of_makemore_are_counted_and_scored(context_length, k):
    model = jaxlm.CountsNgramLM(5, context_length, jaxlm.AddK(k))
    variables = counted(model, FEW, TOKENIZER)
    seen = Counter(makemore_windows(FEW, context_length))
    ngrams, counts = model.ngrams_of(variables)
    held = {TOKENIZER.decode(ngram): count for ngram, count in zip(ngrams, counts, strict=True)}
    assert held == {context + letter: count for (context, letter), count in seen.items()}
    totals = Counter(context for context, _ in makemore_windows(FEW, context_length))
    scored = ["abca", "d"]
    nats = [
        -math.log((seen[context, letter] + k) / (totals[context] + 5 * k))
        for context, letter in makemore_windows(scored, context_length)
    ]
    assert len(nats) == 7
    assert nats_per_token(model, variables, scored, TOKENIZER) == pytest.approx(np.mean(nats), rel=1e-6)


def test_the_stream_has_as_many_marks_before_a_name_as_the_model_sees():
    ids = stream_of(["ab", "c"], TOKENIZER, 3)
    assert ids.tolist() == [0, 0, 0, 1, 2, 0, 0, 0, 3, 0]


def test_the_split_is_makemores():
    names = [str(number) for number in range(30)]
    shuffled = list(names)
    random.seed(42)
    random.shuffle(shuffled)
    assert makemore_split(names) == (shuffled[:24], shuffled[24:27], shuffled[27:])


def test_made_up_names_end_at_their_mark():
    """After a name of one letter only its end was ever seen."""
    model = jaxlm.CountsNgramLM(5, 2, jaxlm.AddK(1e-6))
    names = made_up(model, counted(model, ["a", "b"], TOKENIZER), TOKENIZER, seed=0)
    assert set(names) <= {"a", "b"}
    assert len(names) == 4


@pytest.mark.parametrize(("k", "nats"), [(0.0, 2.4540), (1.0, 2.4546)])
def test_the_published_bigram(names, k, nats):
    every, tokenizer = names_of(names), jaxlm.CharTokenizer.train("." + names.replace("\n", ""))
    model = jaxlm.CountsNgramLM(27, 1, jaxlm.AddK(k))
    variables = counted(model, every, tokenizer)
    assert model.ngrams_of(variables)[1].sum() == 228_146
    assert nats_per_token(model, variables, every, tokenizer) == pytest.approx(nats, abs=5e-5)


def test_the_4_gram_on_makemores_split(names):
    """2.1018 is what its convention gives by counting in a loop over the names."""
    train, validation, _ = makemore_split(names_of(names))
    tokenizer = jaxlm.CharTokenizer.train("." + names.replace("\n", ""))
    model = jaxlm.CountsNgramLM(27, 3, jaxlm.AddK(0.1))
    nats = nats_per_token(model, counted(model, train, tokenizer), validation, tokenizer)
    assert nats == pytest.approx(2.1018, abs=5e-4)


@pytest.mark.slow
def test_the_artefacts(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(FEW), "utf-8")
    config = NamesConfig(text=tmp_path / "names.txt", steps=5, quick=True, output=Output(out=tmp_path / "run"))
    out = run_names(config, Console(file=(told := io.StringIO()), width=200))
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert len(results["counts"]) == 8
    nats = results["mlp"]["validation_nats"]
    # Two numbers: the mean, give or take Student's 12.7062 for one degree of freedom times half their distance.
    half = 12.7062 * abs(nats[0] - nats[1]) / 2
    assert results["mlp"]["interval_95_percent"] == pytest.approx(
        [np.mean(nats) - half, np.mean(nats) + half], rel=1e-5
    )
    assert results["mlp"]["steps"] == [1, 2, 3, 4, 5]
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "table.txt").read_text("utf-8") in told.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": None}, "--text FILE is needed: a file of names, one a line"),
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"num_seeds": 1}, "--num-seeds must be at least 2, got 1"),
        ({"seed": -1}, "--seed must lie in 0..2\\*\\*32 - 1, got -1"),
    ],
)
def test_bad_options_are_refused_with_nothing_written(tmp_path, options, message):
    (tmp_path / "names.txt").write_text("\n".join(FEW), "utf-8")
    config = NamesConfig(**{"text": tmp_path / "names.txt", "output": Output(out=tmp_path / "run")} | options)
    with pytest.raises(ValueError, match=message):
        run_names(config, Console(quiet=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"), [("ada\nbob", "--text has 2 names"), ("a.b\n" * 20, "the name 'a.b'")]
)
def test_a_file_that_holds_no_names_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        names_of(text)
