"""Choose the platforms of JAX before it starts, and import it safely."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from jaxlm.cli.exchange import ExportOptions, ImportOptions


def needs_only_cpu(options: Any) -> bool:
    """Return whether the subcommand needs no accelerator: `--device cpu`, or export and import."""
    if isinstance(options, ExportOptions | ImportOptions):
        return True
    device = getattr(getattr(options, "training", options), "device", None)
    return device == "cpu" or (device == "auto" and os.environ.get("JAXLM_DEVICE") == "cpu")


def use_only_cpu() -> None:
    """Make JAX skip all accelerator plugins, unless JAX_PLATFORMS is set."""
    if os.environ.get("JAX_PLATFORMS"):
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # imported to read the options of the run to resume
        import jax

        jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def defer_interrupt() -> Iterator[None]:
    """Delay a KeyboardInterrupt to the end of the block: during `import jax` it would abort the process."""
    received: list[int] = []
    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda signum, frame: received.append(signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received:
        raise KeyboardInterrupt
