"""The figures of a run as JSON."""

import json
import math

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.runs.manifest import describe_environment
from jaxlm.runs.results import describe_dataset, describe_results, model_row
from jaxlm.text.dataset import Dataset

EVALUATION = jaxlm.Evaluation(nats_per_token=2.0, perplexity=math.exp(2.0), num_tokens=99)
TEXT = "a text of its own " * 10
DATA = Dataset(
    jaxlm.Corpus("mine", TEXT, "mine.txt", "CC0-1.0", "0f" * 32),
    jaxlm.CharTokenizer.train(TEXT),
    np.arange(7, dtype=np.int32),
    np.arange(3, dtype=np.int32),
)


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


def test_describe_results_omits_the_text():
    rows = [make_row(jaxlm.NeuralBigramLM(11, 2))]
    results = describe_results(DATA, "char", 7, rows, "a ", {"a title": "a text"}, jax.devices("cpu")[0])
    environment = describe_environment(jax.devices("cpu")[0])
    assert results == environment | {
        "schema_version": 1,
        "seed": 7,
        "corpus": {"name": "mine", "source": "mine.txt", "license": "CC0-1.0", "sha256": "0f" * 32},
        "tokenizer": {"name": "char", "vocab_size": len(set(TEXT))},
        "tokens": {"train": 7, "validation": 3},
        "validation_bytes_per_token": 1.0,
        "models": rows,
        "prompt": "a ",
        "samples": {"a title": "a text"},
    }
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert results.items() >= describe_dataset(DATA, "char").items()
