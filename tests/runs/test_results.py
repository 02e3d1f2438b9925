"""The figures of a run as JSON."""

import math

import jax
import pytest

import jaxlm
from jaxlm.runs.results import model_row

EVALUATION = jaxlm.Evaluation(nats_per_token=2.0, perplexity=math.exp(2.0), num_tokens=99)


def make_row(model):
    variables = jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
    seconds = {"compile_seconds": 1.5, "train_seconds": None}
    return model_row("name", "a title", model, variables, EVALUATION, 2.0, **seconds)


def test_model_row_of_a_trained_model():
    assert make_row(jaxlm.MLPLanguageModel(11, 3, 4, 5)) == {
        "name": "name",
        "title": "a title",
        "context_length": 3,
        "size": 11 * 4 + (3 * 4 * 5 + 5) + (5 * 11 + 11),
        "size_unit": "parameters",
        "nats_per_token": 2.0,
        "perplexity": math.exp(2.0),
        "bits_per_byte": pytest.approx(1 / math.log(2)),
        "num_tokens": 99,
        "compile_seconds": 1.5,
        "train_seconds": None,
    }


def test_model_row_of_counts():
    row = make_row(jaxlm.CountsBigramLM(11, smoothing=0.5))
    assert (row["size"], row["size_unit"], row["smoothing"], row["context_length"]) == (121, "counts", 0.5, 1)
