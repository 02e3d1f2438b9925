from pathlib import Path

import pytest
from cli_helpers import SMALL, TEXT, pipe, shown

from jaxlm.cli.train import TrainOptions, train_model
from jaxlm.runs.config import TrainConfig


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "hamlet.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="session")
def trained(text, tmp_path_factory):
    """A small finished run: its options, JSON document and printed text."""
    options = TrainOptions(TrainConfig(text=text, **SMALL), out=tmp_path_factory.mktemp("runs") / "small")
    console = pipe()
    document = train_model(options, console)
    return options, document, shown(console)


@pytest.fixture(scope="session")
def run(trained) -> Path:
    return trained[0].out
