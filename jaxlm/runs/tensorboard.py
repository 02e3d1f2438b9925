"""Write training records as TensorBoard events, with the extra `jaxlm[tensorboard]`."""

import importlib.util
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxlm.runs.metrics_log import append_bytes
from jaxlm.training.loop import Record


def check_tensorboard() -> None:
    """Raise a ValueError if tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError("--tensorboard requires tensorboardX; install it: pip install 'jaxlm[tensorboard]'")


def open_tensorboard(folder: Path, first_step: int) -> Callable[[Record], None]:
    """Create an event file in `folder`, and return a function that writes a record to it.

    TensorBoard ignores the events of earlier files from `first_step` on.
    """
    # Not tensorboardX.SummaryWriter, which waits for its writer thread forever if the disk is full, nor its
    # RecordWriter, which then leaves part of an event and does not name the file.
    import tensorboardX

    events = tensorboardX.proto.event_pb2
    folder.mkdir(parents=True, exist_ok=True)
    # Numbered, because TensorBoard reads files in the order of their names.
    path = folder / f"events.out.tfevents.{len(list(folder.iterdir())):06}"

    def write_event(step: int, **content: Any) -> None:
        event = events.Event(wall_time=time.time(), step=step, **content)
        append_bytes(path, _frame(event.SerializeToString()))

    def write_scalar(step: int, name: str, value: float) -> None:
        write_event(step, summary=tensorboardX.summary.scalar(name, value))

    def write_record(record: Record) -> None:
        write_scalar(record.step, "train/nats_per_token", record.train_loss)
        if record.validation is not None:
            write_scalar(record.step, "validation/nats_per_token", record.validation.nats_per_token)
            write_scalar(record.step, "validation/perplexity", record.validation.perplexity)

    write_event(first_step, file_version="brain.Event:2")
    write_event(first_step, session_log=events.SessionLog(status=events.SessionLog.START))
    return write_record


def _frame(data: bytes) -> bytes:
    """Return a TFRecord: the length and the data, each followed by its masked CRC32C."""
    from tensorboardX import record_writer

    length = struct.pack("<Q", len(data))
    return b"".join(part + struct.pack("<I", record_writer.masked_crc32c(part)) for part in (length, data))
