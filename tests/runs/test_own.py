"""Runs with a model, an optimizer, a tokenizer and metrics of one's own."""

import shutil
import signal
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import bits, contents, read_json, signal_when, tiny_config

import jaxlm
from jaxlm.runs.load import load_model
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.summary import summarize_run
from jaxlm.runs.train import resume_run, start_run

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class RepeatLM:
    """A model of a user, not a Flax module: the logits of a token after the last one."""

    vocab_size: int = 32  # more than the tokenizer has
    context_length: int = 1
    scale: float = 2.0
    note: Any = field(default=None, compare=False)

    def init(self, key, contexts):
        return {"table": jnp.zeros((self.vocab_size, self.vocab_size))}

    def apply(self, variables, contexts):
        return self.scale * variables["table"][contexts[:, -1]]


@dataclass(frozen=True)
class TupleLM(RepeatLM):
    """A model whose variables cannot be saved."""

    def init(self, key, contexts):
        return {"pair": (jnp.zeros(2), jnp.zeros(3))}


class Letters:
    """A tokenizer of a user, with the three members that runs need."""

    def __init__(self, letters):
        self.letters = letters

    @property
    def vocab_size(self):
        return len(self.letters)

    def encode(self, text):
        return [self.letters.index(letter) for letter in text]

    def decode(self, ids):
        return "".join(self.letters[token] for token in ids)


def largest(model, variables, val_ids):
    return jnp.abs(variables["table"]).max() + len(val_ids)


OWN = {
    "model": RepeatLM(),
    "optimizer": optax.adam(0.1),
    "tokenizer": Letters("abcdefghijklmnopqrstuvwxyz ;\n"),
    "metrics": {"largest": largest, "one": lambda *_: 1},
}


@pytest.fixture(scope="module")
def config(text_folder):
    text = tiny_config(text_folder).text
    return jaxlm.TrainConfig(
        text=text, tokenizer="char", num_steps=12, log_every=5, save_every=4, device="cpu", keep=3
    )


@pytest.fixture(scope="module")
def own_run(config, tmp_path_factory):
    return start_run(config, tmp_path_factory.mktemp("runs") / "own", **OWN)


@pytest.fixture(scope="module")
def stopped_own_run(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "stopped"
    hint = r"resume_run\('.*', model=..., optimizer=..., tokenizer=..., metrics=...\)"
    with pytest.raises(KeyboardInterrupt, match=hint):
        start_run(config, path, console=signal_when("step 5/", signal.SIGINT), **OWN)
    return path


def test_an_own_run_has_results_table_and_page(own_run, config):
    lines = read_metrics(own_run / "metrics.jsonl")
    assert [line["step"] for line in lines] == [0, 5, 10, 11]
    variables = load_model(own_run, model=RepeatLM())[1]
    (row,) = read_json(own_run / "results.json")["models"]
    num_val = read_json(own_run / "results.json")["tokens"]["validation"]
    expected = {"largest": pytest.approx(np.abs(variables["table"]).max() + num_val), "one": 1.0}
    assert row["metrics"] == {name: lines[-1][name] for name in expected}
    assert row["metrics"] == expected
    assert (row["name"], row["title"], lines[0]["model"]) == ("RepeatLM", "RepeatLM", "RepeatLM")
    assert summarize_run(own_run)["model"] == read_manifest(own_run)["model"] == "RepeatLM"
    assert "RepeatLM" in (own_run / "report.html").read_text()
    sample = (own_run / "samples.txt").read_text().splitlines()[1:]
    assert len("\n".join(sample)) == 1 + 100  # of known tokens only, because all were decoded
    assert row["perplexity"] < 20  # the optimizer trained it


def test_a_stopped_own_run_resumes_with_equal_bits(stopped_own_run, own_run, tmp_path):
    run = shutil.copytree(stopped_own_run, tmp_path / "run")
    assert summarize_run(run)["model"] == "RepeatLM"
    resume_run(run, **OWN)
    assert (run / "metrics.jsonl").read_bytes() == (own_run / "metrics.jsonl").read_bytes()
    assert (run / "samples.txt").read_bytes() == (own_run / "samples.txt").read_bytes()
    for checkpoint in ("final", "last", "best", 8):
        pair = [load_model(each, checkpoint, model=RepeatLM()) for each in (run, own_run)]
        assert bits(pair[0].variables) == bits(pair[1].variables)
        assert pair[0].tokenizer is None


CHANGES = [
    ({"model": None}, r'started with model \{.*"RepeatLM".*, not null; pass the same: .*, model=...\)'),
    ({"model": RepeatLM(scale=3.0)}, r'started with model \{.*"scale": 2\.0.*, not \{.*"scale": 3\.0'),
    ({"optimizer": None}, r"started with optimizer .*; pass the same: resume_run\(path, optimizer=...\)"),
    ({"optimizer": optax.sgd(0.1, 0.9)}, "does not match the model and the optimizer"),
    ({"tokenizer": None}, 'started with tokenizer "Letters", not null; pass the same'),
    ({"tokenizer": Letters("zabcdefghijklmnopqrstuvwxy ;\n")}, "trained with a different tokenizer: sha256"),
    ({"metrics": None}, r'started with metrics \["largest", "one"\], not null; pass the same'),
    ({"metrics": {"other": largest}}, r'not \["other"\]; pass the same'),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=lambda value: str(value)[:20])
def test_a_missing_or_different_argument_is_refused_by_name(change, message, stopped_own_run, caplog):
    before = contents(stopped_own_run)
    with pytest.raises(ValueError, match=f"{message}|has no usable checkpoint") as error:
        resume_run(stopped_own_run, **OWN | change)
    assert str(error.value).startswith(str(stopped_own_run))
    assert contents(stopped_own_run) == before


def test_load_model_asks_for_the_model_of_a_run(own_run, stopped_own_run, finished_run):
    for run in (own_run, stopped_own_run):
        with pytest.raises(ValueError, match=r"pass the same: load_model\(path, model=...\)"):
            load_model(run)
        with pytest.raises(ValueError, match=r"not \{.*RepeatLM"):
            load_model(run, model=RepeatLM(scale=1.0))
    with pytest.raises(ValueError, match=r'was started with model null, not \{.*"RepeatLM".*; remove it'):
        load_model(finished_run, model=RepeatLM())


def test_an_argument_that_a_run_was_started_without_is_refused(stopped):
    with pytest.raises(ValueError, match=r'was started with metrics null, not \["one"\]; remove it'):
        resume_run(stopped, metrics={"one": lambda *_: 1})


@pytest.mark.parametrize(
    ("options", "own", "message"),
    [
        ({"hidden_dim": 8}, {"model": RepeatLM()}, "hidden_dim 8 does not apply to model own; remove it"),
        ({}, {"model": RepeatLM(vocab_size=5)}, "vocab_size of the tokenizer, got 5, less than the 16"),
        ({}, {"metrics": {"step": largest}}, "'step' has the name of a field"),
        ({}, {"model": TupleLM()}, "must be nested dicts of arrays, none empty"),
    ],
)
def test_start_run_refuses_arguments_that_do_not_fit(options, own, message, config, tmp_path):
    config = jaxlm.TrainConfig(text=config.text, tokenizer="char", device="cpu", **options)
    with pytest.raises((ValueError, TypeError), match=message):
        start_run(config, tmp_path / "run", **own)
    assert not (tmp_path / "run").exists()


def test_a_library_tokenizer_and_a_counted_model_are_saved(config, tmp_path):
    model, tokenizer = jaxlm.CountsNgramLM(256, 2), jaxlm.ByteTokenizer()
    run = start_run(config, tmp_path / "run", model=model, tokenizer=tokenizer)
    saved = load_model(run)
    assert (saved.model, saved.tokenizer) == (model, tokenizer)
    data_ids = tokenizer.encode(config.text.read_text())
    train_ids = jaxlm.split_ids(data_ids)[0]
    assert bits(saved.variables) == bits(model.fit(jaxlm.init(model, jax.random.key(0)), train_ids))
    resume_run(run)  # which makes the model from the manifest, as `load_model` does
