"""A text, a finished run and a saved MLP for the tests of the command."""

from pathlib import Path

import jax
import numpy as np
import pytest
from cli_helpers import TEXT, pipe, shown

import jaxlm
from jaxlm.cli.train import TrainOptions, train_model
from jaxlm.runs.config import TrainConfig


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "hamlet.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="session")
def trained(text, tmp_path_factory):
    """A finished run of a counts bigram: its options, JSON document and printed text."""
    config = TrainConfig(text=text, model="counts", tokenizer="char")
    options = TrainOptions(config, out=tmp_path_factory.mktemp("runs") / "small")
    console = pipe()
    document = train_model(options, console)
    return options, document, shown(console)


@pytest.fixture(scope="session")
def run(trained) -> Path:
    return trained[0].out


@pytest.fixture(scope="session")
def mlp(tmp_path_factory) -> Path:
    """Directory of an MLP with random params and 3 tokens of context."""
    tokenizer = jaxlm.CharTokenizer.train(TEXT)
    model = jaxlm.MLPLanguageModel(tokenizer.vocab_size, 3, 4, 8)
    random, like = np.random.default_rng(0), jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
    variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), like)
    jaxlm.save_model(path := tmp_path_factory.mktemp("models") / "mlp", model, variables, tokenizer)
    return path
