"""The options of `jaxlm train` that start and number processes."""

from unittest.mock import Mock

import jax
import pytest

from jaxlm.cli.processes import ProcessOptions, connected, make_mesh


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "processes must be at least 1, got 0"),
        ({"process_id": 1}, "belong together"),
        ({"processes": 2, "distributed": "yes"}, "exclude each other"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, "coordinator must be HOST:PORT, got host"),
        ({"coordinator": "host:1", "num_processes": 2, "process_id": 2}, r"process_id must be in \[0, 2\), got 2"),
    ],
)
def test_process_options_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        ProcessOptions(**options)


@pytest.mark.parametrize(("distributed", "num_tasks"), [("no", "2"), ("auto", "1"), ("auto", "")])
def test_connected_trains_alone(distributed, num_tasks, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", num_tasks)
    with connected(ProcessOptions(distributed=distributed)):
        assert jax.process_count() == 1
    # Of these two functions, each starts all plugins, also those that crash.
    for name in "process_count", "devices":
        monkeypatch.setattr(jax, name, Mock(side_effect=AssertionError))
    assert make_mesh(ProcessOptions(distributed=distributed), "auto") is None
