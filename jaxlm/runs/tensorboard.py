"""Records as TensorBoard events, in the words of tensorboardX: the extra `jaxlm[tensorboard]`."""

import errno
import importlib.util
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxlm.training.loop import Record


def check_tensorboard() -> None:
    """Raises a ValueError, with the remedy, where events cannot be written."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            "--tensorboard needs tensorboardX, which is not installed: pip install 'jaxlm[tensorboard]'"
        )


@contextmanager
def open_tensorboard(folder: Path, first_step: int) -> Iterator[Callable[[Record], None]]:
    """A function that writes a record to `folder`; what an earlier session wrote from `first_step` on is void.

    Raises:
        OSError: an event cannot be written; the message names the file.
    """
    # Not its SummaryWriter: that writes in a thread, and where the disk is full it waits for that thread for ever.
    import tensorboardX

    events = tensorboardX.proto.event_pb2
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files in the order of their names: those of sessions, whatever the clock says.
    path = folder / f"events.out.tfevents.{len(list(folder.iterdir())):06}"
    with path.open("ab", buffering=0) as file:  # a process that is killed leaves all its events

        def write_event(step: int, **content: Any) -> None:
            data = _framed(events.Event(wall_time=time.time(), step=step, **content).SerializeToString())
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                error.filename = str(path)
                raise

        def write(record: Record) -> None:
            values = {"train/nats_per_token": record.train_loss}
            if record.validation is not None:
                values["validation/nats_per_token"] = record.validation.nats_per_token
                values["validation/perplexity"] = record.validation.perplexity
            for name, value in values.items():
                write_event(record.step, summary=tensorboardX.summary.scalar(name, value))

        write_event(first_step, file_version="brain.Event:2")
        write_event(first_step, session_log=events.SessionLog(status=events.SessionLog.START))
        yield write


def _framed(data: bytes) -> bytes:
    """A record of a TFRecord file: its length and its bytes, each followed by a checksum."""
    from tensorboardX import record_writer

    length = struct.pack("<Q", len(data))
    return b"".join(part + struct.pack("<I", record_writer.masked_crc32c(part)) for part in (length, data))
