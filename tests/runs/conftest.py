"""One run of each kind, shared by the tests of this folder."""

import shutil
import signal

import pytest
from session_helpers import EXTENSIBLE, outcome
from tiny_runs import signal_when, tiny_config

from jaxlm.runs.config import TrainConfig
from jaxlm.runs.train import start_run


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """The directory of the text of `tiny_config`."""
    return tmp_path_factory.mktemp("text")


@pytest.fixture(scope="session")
def finished_run(text_folder, tmp_path_factory):
    """A finished run; do not modify it."""
    return start_run(tiny_config(text_folder), tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="session")
def stopped_run(text_folder, tmp_path_factory):
    """A run that was stopped after step 6; do not modify it."""
    path = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.raises(KeyboardInterrupt, match=f"^SIGINT; resume with: jaxlm train --resume {path}$"):
        start_run(tiny_config(text_folder), path, console=signal_when("step 5/", signal.SIGINT))
    return path


@pytest.fixture
def finished(finished_run, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(finished_run, tmp_path / "finished")


@pytest.fixture
def stopped(stopped_run, tmp_path):
    """A copy of a stopped run, with checkpoints after steps 4 and 6."""
    return shutil.copytree(stopped_run, tmp_path / "stopped")


@pytest.fixture(scope="session")
def session_outcome(text_folder, tmp_path_factory):
    """The outcome of an uninterrupted training."""
    run = tmp_path_factory.mktemp("session") / "run"
    return outcome(run, tiny_config(text_folder))


@pytest.fixture
def config(text_folder):
    return tiny_config(text_folder)


@pytest.fixture(scope="session")
def extended_outcomes(text_folder, tmp_path_factory):
    """The outcome of 20 steps from the start, per `log_every`."""
    outcomes = {}
    for log_every in (5, 11):
        run = tmp_path_factory.mktemp("session") / "run"
        config = tiny_config(text_folder, num_steps=20, log_every=log_every, **EXTENSIBLE)
        outcomes[log_every] = outcome(run, config)
    return outcomes


@pytest.fixture(scope="session")
def counts_run(text_folder, tmp_path_factory):
    text = tiny_config(text_folder).text
    config = TrainConfig(model="counts", text=text, tokenizer="char", device="cpu")
    return start_run(config, tmp_path_factory.mktemp("runs") / "counts")
