"""TensorBoard shows the records of every session once."""

import importlib.util
import math

import pytest
from event_files import shown_values

from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.runs.tensorboard import check_tensorboard, open_tensorboard
from jaxlm.training.state import Record


def test_open_tensorboard_writes_each_record_once(tmp_path, monkeypatch):
    """Both sessions start in the same second."""
    pytest.importorskip("tensorboardX")
    for number, steps in enumerate([range(6), range(4, 9)]):
        monkeypatch.setattr("time.time", lambda: 2e9)
        with open_tensorboard(tmp_path / "tensorboard", steps[0]) as write:
            for step in steps:
                validation = None if step % 2 else Evaluation(step / 8, math.exp(step / 8), 10)
                write(Record(step, number + step / 4, validation))
    losses = {step: (step >= 4) + step / 4 for step in range(9)}
    validated = {step: step / 8 for step in range(0, 9, 2)}
    assert shown_values(tmp_path / "tensorboard") == {
        "train/nats_per_token": losses,
        "validation/nats_per_token": validated,
        "validation/perplexity": {step: pytest.approx(math.exp(nats)) for step, nats in validated.items()},
    }


def test_check_tensorboard_names_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"install it: pip install 'jaxlm\[tensorboard\]'"):
        check_tensorboard()
