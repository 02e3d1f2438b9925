"""One process of `data_parallel`: time its steps alone, the all-reduce, and the steps of all processes together.

Usage: data_parallel_process.py NUM_PROCESSES PROCESS_ID PORT BATCH_SIZE NUM_STEPS REPEATS OUT
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh

import jaxlm
from experiments.shared.synthetic import zipf_ids
from jaxlm.devices.distributed import initialize
from jaxlm.devices.mesh import partition, put, shard_map, sharding_of
from jaxlm.models.interface import num_init_params

MODEL = jaxlm.MLPLanguageModel(4096, 3, 32, 64)


def time_call(call: Callable[[], Any], repeats: int) -> float:
    """Return the median seconds of a call, after one that compiles."""
    samples = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(call())  # type: ignore[no-untyped-call]
        samples.append(time.perf_counter() - start)
    return median(samples[1:])


def make_step(batch_size: int, num_steps: int, **options: Any) -> Callable[[], Any]:
    """Return a function that trains for `num_steps` steps."""
    ids, key = zipf_ids(MODEL.vocab_size, 100_000), jax.random.key(0)
    options |= {"batch_size": batch_size, "num_steps": num_steps, "log_every": num_steps}
    return lambda: jaxlm.train_lm(MODEL, ids, key=key, **options)[0]


def make_all_reduce(mesh: Mesh, num_floats: int, times: int) -> Callable[[], Any]:
    """Return a function that averages an array over the devices many times in a row."""
    (axis,) = mesh.axis_names

    @jax.jit
    def all_reduce(array: Any) -> Any:
        def repeat(array: Any) -> Any:
            return lax.fori_loop(0, times, lambda _, each: lax.pmean(each, axis), array)  # type: ignore[no-untyped-call]

        return shard_map(repeat, mesh, partition(), partition())(array)

    array = put(np.ones(num_floats, np.float32), sharding_of(mesh))
    return lambda: all_reduce(array)


def main(num_processes: int, process_id: int, port: int, batch_size: int, num_steps: int, repeats: int) -> Any:
    """Return the milliseconds of each part."""
    if num_processes > 1:
        initialize(f"127.0.0.1:{port}", num_processes, process_id)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    num_floats = num_init_params(MODEL)
    calls = {
        "alone": (make_step(batch_size // num_processes, num_steps, device=jax.local_devices()[0]), num_steps),
        "all_reduce": (make_all_reduce(mesh, num_floats, 20), 20),
        "together": (make_step(batch_size, num_steps, mesh=mesh), num_steps),
        "grad_shards": (make_step(batch_size, num_steps, mesh=mesh, grad_shards=4), num_steps),
    }
    times = {name: 1e3 * time_call(call, repeats) / count for name, (call, count) in calls.items()}
    if num_processes > 1:
        jax.distributed.shutdown()  # type: ignore[no-untyped-call]
    return times | {"gradient_bytes": 4 * num_floats}


if __name__ == "__main__":
    measured = main(*map(int, sys.argv[1:7]))
    if int(sys.argv[2]) == 0:
        Path(sys.argv[7]).write_text(json.dumps(measured), "utf-8")
