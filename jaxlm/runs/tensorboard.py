"""Write training records as TensorBoard events, with the extra `jaxlm[tensorboard]`."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxlm.training.state import Record


def check_tensorboard() -> None:
    """Raise a ValueError if tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError("tensorboard requires tensorboardX; install it: pip install 'jaxlm[tensorboard]'")


@contextmanager
def open_tensorboard(folder: Path, first_step: int) -> Iterator[Callable[[Record], None]]:
    """Create an event file in `folder`, and yield a function that writes a record to it.

    TensorBoard then ignores events of earlier files at or after `first_step`.
    """
    from tensorboardX import SummaryWriter

    suffix = f".{len(list(folder.glob('*'))):06}"  # TensorBoard reads files in the order of their names
    with SummaryWriter(str(folder), filename_suffix=suffix, purge_step=first_step, flush_secs=1) as writer:

        def write_record(record: Record) -> None:
            writer.add_scalar("train/nats_per_token", record.train_loss, record.step)
            if record.validation is not None:
                writer.add_scalar("validation/nats_per_token", record.validation.nats_per_token, record.step)
                writer.add_scalar("validation/perplexity", record.validation.perplexity, record.step)

        yield write_record
