"""What a run works with is what its options say, and "auto" hears how large the model is."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console
from tiny_runs import tiny_config

import jaxlm
from jaxlm.devices.selection import Choice
from jaxlm.runs import setup as jobs
from jaxlm.runs.setup import abstract_state, prepare_training, train_key


@pytest.mark.parametrize(
    ("options", "wanted", "size"),
    [
        ({}, lambda v: jaxlm.MLPLanguageModel(v, 2, 2, 4), lambda v: v * 2 + (2 * 2 + 1) * 4 + (4 + 1) * v),
        (
            {"model": "bigram", "context_length": None, "hidden_dim": None},
            lambda v: jaxlm.NeuralBigramLM(v, 2),
            lambda v: v * 2 + (2 + 1) * v,
        ),
        (
            {
                "model": "counts",
                "context_length": None,
                "hidden_dim": None,
                "embedding_dim": None,
                "smoothing": 0.5,
            },
            lambda v: jaxlm.CountsBigramLM(v, smoothing=0.5),
            lambda v: v * v,
        ),
    ],
    ids=["mlp", "bigram", "counts"],
)
def test_a_job_is_what_its_options_say(options, wanted, size, tmp_path, monkeypatch):
    cpu, asked = jax.devices("cpu")[0], []
    monkeypatch.setattr(
        jobs,
        "choose_device",
        lambda device, num_weights: asked.append((device, num_weights)) or Choice(cpu, "why"),
    )
    told = io.StringIO()
    job = prepare_training(tiny_config(tmp_path, **options), None, Console(file=told, width=200))
    vocab_size = job.data.tokenizer.vocab_size
    assert job.model == wanted(vocab_size)
    assert asked == [("cpu", size(vocab_size))]
    assert (job.optimizer is None) == (options.get("model") == "counts")
    assert job.device == cpu
    assert "device: cpu:0 (cpu): why" in told.getvalue()


def test_keys_follow_from_the_seed_and_the_model(tmp_path):
    keys = [
        np.asarray(jax.random.key_data(train_key(tiny_config(tmp_path, **options)))).tolist()
        for options in ({}, {"seed": 1}, {"model": "bigram", "context_length": None, "hidden_dim": None})
    ]
    assert len({tuple(key) for key in keys}) == 3


def test_a_fresh_state_has_the_shapes_of_training(tmp_path):
    job = prepare_training(tiny_config(tmp_path), None, Console(quiet=True))
    state = abstract_state(job.model, job.optimizer, job.config)
    made = jaxlm.init(job.model, jax.random.key(0))["params"]
    assert jax.tree.map(lambda leaf: leaf.shape, state.params) == jax.tree.map(lambda leaf: leaf.shape, made)
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def test_a_model_that_no_machine_holds_is_refused(tmp_path):
    """XLA would end the process."""
    options = {"embedding_dim": 2**31 - 1, "hidden_dim": 2**31 - 1}
    with pytest.raises(ValueError, match=r"the model would have [0-9,]+ weights, more than 1,099,511,627,776"):
        prepare_training(tiny_config(tmp_path, **options), None, Console(quiet=True))
