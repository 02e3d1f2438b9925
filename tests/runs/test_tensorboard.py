"""TensorBoard reads the events of every session in order, and nothing of what was trained anew."""

import errno
import importlib.util
import io
import math
import struct
from pathlib import Path

import pytest

from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.runs.tensorboard import check_tensorboard, open_tensorboard
from jaxlm.training.loop import Record

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="the extra jaxlm[tensorboard] is not installed"
)


def record(step):
    validation = None if step % 2 else Evaluation(step / 8, math.exp(step / 8), 10)
    return Record(step, step / 4, validation)


def write_session(folder, first_step, steps):
    with open_tensorboard(folder, first_step) as write:
        for step in steps:
            write(record(step))


def crc32c(data):
    """The checksum bit by bit (Castagnoli's polynomial, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def checked(data, checksum):
    """`data`, once it is known to have the checksum of a TFRecord: rotated by 15 bits, and a constant added."""
    crc = crc32c(data)
    assert struct.unpack("<I", checksum) == ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32,)
    return data


def read_events(path):
    """The events of a file, read by its format alone."""
    from tensorboardX.proto.event_pb2 import Event

    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", checked(content[:8], content[8:12]))
        events.append(Event.FromString(checked(content[12 : 12 + length], content[12 + length : 16 + length])))
        content = content[16 + length :]
    return events


def shown(folder):
    """Tag -> step -> value, as TensorBoard shows it: a session that starts voids what was from its step on."""
    values = {}
    for path in sorted(folder.iterdir()):
        for event in read_events(path):
            if event.HasField("session_log"):
                values = {
                    tag: {step: each for step, each in steps.items() if step < event.step}
                    for tag, steps in values.items()
                }
            for value in event.summary.value:
                values.setdefault(value.tag, {})[event.step] = value.simple_value
    return values


def expected(steps):
    return {
        "train/nats_per_token": {step: step / 4 for step in steps},
        "validation/nats_per_token": {step: step / 8 for step in steps if step % 2 == 0},
        "validation/perplexity": {step: pytest.approx(math.exp(step / 8)) for step in steps if step % 2 == 0},
    }


@needs_tensorboard
def test_a_record_is_its_values_at_its_step(tmp_path):
    write_session(tmp_path / "tensorboard", 0, range(5))
    assert shown(tmp_path / "tensorboard") == expected(range(5))


@needs_tensorboard
def test_every_file_begins_as_tensorboard_wants_it(tmp_path):
    write_session(tmp_path, 0, [])
    write_session(tmp_path, 30, [])
    for path, first_step in zip(sorted(tmp_path.iterdir()), (0, 30), strict=True):
        assert "tfevents" in path.name
        version, start = read_events(path)
        assert (version.file_version, version.step) == ("brain.Event:2", first_step)
        assert (start.session_log.status, start.step) == (1, first_step)  # START
        assert start.wall_time > 1e9


@needs_tensorboard
def test_what_an_earlier_session_wrote_from_its_step_on_is_void(tmp_path):
    write_session(tmp_path, 0, range(7))
    write_session(tmp_path, 3, [3, 5])
    assert shown(tmp_path) == expected([0, 1, 2, 3, 5])


@needs_tensorboard
def test_sessions_are_in_order_whatever_the_clock_says(tmp_path, monkeypatch):
    """A dozen of them, each an hour before the last."""
    for number in range(12):
        monkeypatch.setattr("time.time", lambda number=number: 2e9 - 3600 * number)
        write_session(tmp_path, number, [number, number + 1])
    assert len(list(tmp_path.iterdir())) == 12
    assert shown(tmp_path) == expected(range(13))


@needs_tensorboard
def test_events_are_on_the_disk_as_soon_as_they_are_written(tmp_path):
    """A process that is killed loses none."""
    with open_tensorboard(tmp_path, 0) as write:
        write(record(0))
        assert shown(tmp_path) == expected([0])


@needs_tensorboard
def test_a_disk_that_is_full_is_an_error_that_names_the_file(tmp_path):
    """And no wait without end, for a queue that nobody empties."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full, which no byte fits on")
    (tmp_path / "events.out.tfevents.000001").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*tfevents\.000001'") as raised:
        write_session(tmp_path, 0, range(100))
    assert raised.value.errno == errno.ENOSPC


@needs_tensorboard
def test_a_part_of_an_event_is_an_error_too(tmp_path, monkeypatch):
    class FullFile(io.FileIO):
        def write(self, data):
            return super().write(data[:7])

    monkeypatch.setattr(Path, "open", lambda path, mode, buffering: FullFile(path, mode))
    with pytest.raises(OSError, match=r"No space left on device: '.*tfevents\.000000'"):
        write_session(tmp_path, 0, [])


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'jaxlm\[tensorboard\]'"):
        check_tensorboard()


@needs_tensorboard
def test_with_the_extra_there_is_no_error():
    check_tensorboard()
