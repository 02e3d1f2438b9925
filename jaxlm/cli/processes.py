"""Train on several devices and in several processes: options of `jaxlm train`."""

import atexit
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxlm.utils.processes import find_free_port, run_together

if TYPE_CHECKING:
    from jax.sharding import Mesh

_WAIT_SECONDS = 300
_LOST = 69  # exit code if another process has ended (EX_UNAVAILABLE)
_LAST_SECONDS = 1  # by which process 0 ends last after an error, because JAX aborts the others when it ends


@dataclass(frozen=True)
class ProcessOptions:
    """Devices and processes that share each batch."""

    # Number of devices of each process that share each batch. The CPU can count as any number.
    devices: int | None = None
    # Number of local processes to start, which share the CPU. For several accelerators, use --devices.
    processes: int | None = None
    # Take part in a job of SLURM, Open MPI, Kubernetes or Cloud TPU, with the same command in each process. auto
    # takes part if srun or mpirun started several processes.
    distributed: Literal["auto", "yes", "no"] = "auto"
    coordinator: str | None = None  # HOST:PORT of process 0, to start the processes by hand.
    num_processes: int | None = None  # Number of processes, with --coordinator.
    process_id: int | None = None  # Number of this process from 0, with --coordinator.

    def __post_init__(self) -> None:
        """Check the ranges, and that only one way to find the processes is chosen."""
        for name in ("devices", "processes", "num_processes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        by_hand = [self.coordinator, self.num_processes, self.process_id]
        if any(value is not None for value in by_hand) and None in by_hand:
            raise ValueError("coordinator, num_processes and process_id belong together; pass all three or none")
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdecimal():
            raise ValueError(f"coordinator must be HOST:PORT, got {self.coordinator}")
        if self.process_id is not None and not 0 <= self.process_id < (self.num_processes or 1):
            raise ValueError(f"process_id must be in [0, {self.num_processes}), got {self.process_id}")
        choices = self.processes is not None, self.distributed == "yes", self.coordinator is not None
        if sum(choices) > 1:
            raise ValueError("processes, distributed=yes and coordinator exclude each other; choose one")


def run_local_processes(words: Sequence[str], num_processes: int) -> None:
    """Run `jaxlm WORDS` in several local processes. Raise SystemExit if one of them fails."""
    command = [sys.executable, "-m", "jaxlm", *_drop_option(words, "--processes")]
    command += ["--coordinator", f"127.0.0.1:{find_free_port()}", "--num-processes", str(num_processes)]
    commands = [[*command, "--process-id", str(number)] for number in range(num_processes)]
    with tempfile.TemporaryFile() as document:
        try:
            code = run_together(commands, stdout=document if "--json" in words else None)
        except ChildProcessError as error:
            raise ChildProcessError(f"{error}; jaxlm train --resume continues the run") from None
        document.seek(0)
        text = document.read().decode()
        if code and not text and "--json" in words:
            text = json.dumps({"error": "process 0 was ended before it could print a result"}, indent=2) + "\n"
        print(text, end="", flush=True)
    if code:
        sys.exit(code)


@contextmanager
def connected(options: ProcessOptions) -> Iterator[None]:
    """Within the block, this process is connected to the others, if there are any."""
    if options.devices is not None:  # before JAX starts; other platforms ignore it
        flag = f"--xla_force_host_platform_device_count={options.devices}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    if (where := _describe_processes(options)) is None:
        yield
        return
    import jax

    from jaxlm.devices.distributed import initialize

    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # JAX's gloo prints lines on standard output
    print(f"waiting at most {_WAIT_SECONDS} s for {where}", file=sys.stderr)  # then JAX aborts the process
    initialize(options.coordinator, options.num_processes, options.process_id, timeout_seconds=_WAIT_SECONDS)
    try:
        yield
    except BaseException as error:
        is_lost = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error)
        code = _LOST if is_lost else 130 if isinstance(error, KeyboardInterrupt) else 2
        atexit.register(_end_at_once, code)
        if is_lost:
            reason = str(error).partition("\n")[0][:200]
            raise ConnectionError(f"lost another process of the run ({reason}); it prints the reason") from error
        raise
    jax.distributed.shutdown()  # type: ignore[no-untyped-call]


def _describe_processes(options: ProcessOptions) -> str | None:
    """Describe the processes that train together with this one. Return None if it trains alone."""
    from jaxlm.devices.distributed import count_launched_processes

    num_launched = count_launched_processes() if options.distributed == "auto" else 1
    if options.coordinator is not None:
        return f"all of {options.num_processes} processes at {options.coordinator}"
    if options.distributed == "yes":
        return "all processes of this job"
    if num_launched > 1:
        return f"the {num_launched} processes that the launcher started; --distributed no trains in each alone"
    return None


def make_mesh(options: ProcessOptions, device: str) -> "Mesh | None":
    """Return the devices that share each batch, or None for the device of a single process.

    Raises a ValueError if a process has too few.
    """
    import jax
    import numpy as np
    from jax.sharding import Mesh

    from jaxlm.devices.selection import resolve_device

    # A process that trains alone must not call `process_count`, which starts all plugins, also those that crash.
    if options.devices is None and (_describe_processes(options) is None or jax.process_count() == 1):
        return None
    platform = resolve_device(device).platform
    chosen = []
    for process in range(jax.process_count()):
        local = [each for each in jax.devices(platform) if each.process_index == process]
        if options.devices is not None and len(local) < options.devices:
            raise ValueError(
                f"devices must be at most {len(local)} on this machine's {platform}, got {options.devices}"
            )
        chosen += local[: options.devices]
    return Mesh(np.array(chosen), ("data",))


def _end_at_once(code: int) -> None:
    """End this process while the others run. `jax.distributed.shutdown` would wait for them, and then abort."""
    import jax

    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(_LAST_SECONDS)
    os._exit(code)


def _drop_option(words: Sequence[str], name: str) -> list[str]:
    """Return the words without an option and its value."""
    kept, skip = [], False
    for word in words:
        if not skip and not (word == name or word.startswith(f"{name}=")):
            kept.append(word)
        skip = word == name
    return kept
