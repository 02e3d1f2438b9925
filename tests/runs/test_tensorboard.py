"""TensorBoard shows the events of every session once."""

import errno
import importlib.util
import math

import pytest
from event_files import read_events, shown_values

from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.runs.tensorboard import check_tensorboard, open_tensorboard
from jaxlm.training.loop import Record

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="the extra jaxlm[tensorboard] is not installed"
)


def write_session(folder, first_step, steps):
    write = open_tensorboard(folder, first_step)
    for step in steps:
        validation = None if step % 2 else Evaluation(step / 8, math.exp(step / 8), 10)
        write(Record(step, step / 4, validation))


def expected_values(steps):
    return {
        "train/nats_per_token": {step: step / 4 for step in steps},
        "validation/nats_per_token": {step: step / 8 for step in steps if step % 2 == 0},
        "validation/perplexity": {step: pytest.approx(math.exp(step / 8)) for step in steps if step % 2 == 0},
    }


@needs_tensorboard
def test_a_record_becomes_its_values_at_its_step(tmp_path):
    write_session(tmp_path / "tensorboard", 0, range(5))
    assert shown_values(tmp_path / "tensorboard") == expected_values(range(5))


@needs_tensorboard
def test_each_file_starts_with_version_and_session(tmp_path):
    write_session(tmp_path, 0, [])
    write_session(tmp_path, 30, [])
    for path, first_step in zip(sorted(tmp_path.iterdir()), (0, 30), strict=True):
        assert "tfevents" in path.name
        version, start = read_events(path)
        assert (version.file_version, version.step) == ("brain.Event:2", first_step)
        assert (start.session_log.status, start.step) == (1, first_step)  # 1 is START
        assert start.wall_time > 1e9


@needs_tensorboard
def test_a_new_session_discards_later_steps_whatever_the_clock(tmp_path, monkeypatch):
    for number in range(12):
        monkeypatch.setattr("time.time", lambda number=number: 2e9 - 3600 * number)
        write_session(tmp_path, number, [number, number + 1, number + 5])
    assert len(list(tmp_path.iterdir())) == 12
    assert shown_values(tmp_path) == expected_values([*range(13), 16])


@needs_tensorboard
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, file_size_limit):
    with file_size_limit(200), pytest.raises(OSError, match=r"tfevents\.000000'") as raised:
        write_session(tmp_path, 0, range(100))
    assert raised.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert read_events(tmp_path / "events.out.tfevents.000000")  # whole events only


def test_check_tensorboard_names_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"install it: pip install 'jaxlm\[tensorboard\]'"):
        check_tensorboard()
