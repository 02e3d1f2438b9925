"""Connect the processes of one training run with JAX's distributed runtime."""

import inspect
import os
from typing import Any

import jax

HEARTBEAT_SECONDS = 20  # after which the others notice that a process has died


def count_launched_processes() -> int:
    """Return how many processes SLURM's `srun` or Open MPI's `mpirun` started, with this one; 1 without either."""
    counts = map(os.environ.get, ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return max([1, *(int(count) for count in counts if count and count.isdecimal())])


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_seconds: int = 300,
) -> None:
    """Connect this process to the others. Call it before JAX starts a device; `jax.distributed.shutdown` ends it.

    Without arguments, JAX detects them in the environment of SLURM, Open MPI, Kubernetes or Cloud TPU.

    Args:
        coordinator: HOST:PORT at which process 0 listens.
        timeout_seconds: how long to wait for the other processes. Then JAX aborts the process.

    Raises:
        ValueError: no arguments, and the environment does not have them.
    """
    if jax.__version_info__ < (0, 6):  # the default since then
        jax.config.update("jax_cpu_collectives_implementation", "gloo")  # type: ignore[no-untyped-call]
    options: Any = {"heartbeat_timeout_seconds": HEARTBEAT_SECONDS, "shutdown_timeout_seconds": HEARTBEAT_SECONDS}
    supported = inspect.signature(jax.distributed.initialize).parameters.keys()  # not in the oldest versions
    options = {name: value for name, value in options.items() if name in supported}
    if coordinator is not None and coordinator.startswith("127."):
        options["coordinator_bind_address"] = coordinator  # JAX would listen on all interfaces
    options["initialization_timeout"] = timeout_seconds
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, **options)
    except ValueError as error:
        if coordinator is not None:
            raise
        found = "found no job of SLURM, Open MPI, Kubernetes or Cloud TPU"
        remedy = "pass coordinator, num_processes and process_id"
        raise ValueError(f"{found} ({error}); {remedy}") from None
