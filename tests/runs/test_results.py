"""What a run says of its models: the figures, and nothing that JSON lacks or that is as long as the text."""

import json
import math

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.runs.config import TrainConfig
from jaxlm.runs.metrics_log import replace_nonfinite
from jaxlm.runs.results import TITLES, describe_dataset, describe_results, metrics_line, model_row
from jaxlm.text.dataset import Dataset
from jaxlm.training.loop import Record

EVALUATION = jaxlm.Evaluation(nats_per_token=2.0, perplexity=math.exp(2.0), num_tokens=99)
TEXT = "a text of its own " * 10
DATA = Dataset(
    jaxlm.Corpus("mine", TEXT, "mine.txt", "CC0-1.0", "0f" * 32),
    jaxlm.CharTokenizer.train(TEXT),
    np.arange(7, dtype=np.int32),
    np.arange(3, dtype=np.int32),
)


def described(model, *, is_trained, bytes_per_token=1.0):
    variables = jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
    return model_row(
        "name",
        "a title",
        model,
        variables,
        EVALUATION,
        bytes_per_token,
        is_trained=is_trained,
        compile_seconds=1.5,
        train_seconds=None,
    )


def test_a_trained_model_is_described_by_its_parameters():
    row = described(jaxlm.MLPLanguageModel(11, 3, 4, 5), is_trained=True, bytes_per_token=2.0)
    assert row == {
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


def test_counts_are_described_by_their_table_and_smoothing():
    row = described(jaxlm.CountsBigramLM(11, smoothing=0.5), is_trained=False)
    assert (row["size"], row["size_unit"], row["smoothing"], row["context_length"]) == (121, "counts", 0.5, 1)


def test_the_results_say_what_was_learnt_from_without_the_text():
    rows = [described(jaxlm.NeuralBigramLM(11, 2), is_trained=True)]
    results = describe_results(DATA, "char", 7, rows, "a ", {"a title": "a text"}, {"platform": "somewhere"})
    assert results == {
        "schema_version": 1,
        "seed": 7,
        "corpus": {"name": "mine", "source": "mine.txt", "license": "CC0-1.0", "sha256": "0f" * 32},
        "tokenizer": {"name": "char", "vocab_size": len(set(TEXT))},
        "tokens": {"train": 7, "validation": 3},
        "validation_bytes_per_token": 1.0,
        "models": rows,
        "prompt": "a ",
        "samples": {"a title": "a text"},
        "platform": "somewhere",
    }
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert TEXT not in json.dumps(describe_dataset(DATA, "char"))


def test_a_record_is_a_line_without_times():
    line = metrics_line("mlp", Record(20, 2.5, EVALUATION))
    assert line == {
        "model": "mlp",
        "step": 20,
        "train_loss": 2.5,
        "val_nats_per_token": 2.0,
        "val_perplexity": math.exp(2.0),
    }
    without = metrics_line("mlp", Record(20, 2.5, None))
    assert without == line | {"val_nats_per_token": None, "val_perplexity": None}


def test_figures_that_are_infinite_are_json_once_they_are_null():
    infinite = EVALUATION._replace(nats_per_token=math.inf, perplexity=math.inf)
    line = metrics_line("counts", Record(0, 2.5, infinite))
    assert json.dumps(replace_nonfinite(line), allow_nan=False).count("null") == 2


def test_every_model_that_can_be_trained_has_a_title():
    choices = TrainConfig.__annotations__["model"].__args__
    assert tuple(TITLES) == choices
