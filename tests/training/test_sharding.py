"""The mean over a batch in parts, and training, evaluation and counting on several devices and processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny_training import MLP, train_lm

from jaxlm.training.sharding import average_over_batch

PROGRAM = Path(__file__).with_name("data_parallel.py")
MESH = Mesh(np.array(jax.devices()[:1]), ("data",))


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_program(num_processes, num_devices, grad_shards):
    """Return the result of `data_parallel.py`, which all processes must agree on."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={num_devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    port = free_port()
    commands = [
        [sys.executable, PROGRAM, str(num_processes), str(process), str(port), str(grad_shards)]
        for process in range(num_processes)
    ]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for command in commands]
    try:
        outputs = [process.communicate(timeout=100)[0].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    # gloo prints lines, too.
    results = [json.loads(output[output.index("{") :]) for output in outputs]
    assert all(result == results[0] for result in results)
    assert (results[0].pop("processes"), results[0].pop("devices")) == (num_processes, num_processes * num_devices)
    return results[0]


@pytest.fixture(scope="module")
def on_one_device():
    return run_program(1, 1, grad_shards=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_processes", "num_devices"), [(1, 4), (2, 1), pytest.param(4, 1, marks=pytest.mark.stress)]
)
def test_grad_shards_give_the_same_bits_on_any_devices(on_one_device, num_processes, num_devices):
    assert run_program(num_processes, num_devices, grad_shards=4) == on_one_device


@pytest.mark.slow
def test_plain_data_parallel_differs_by_rounding():
    one, both = run_program(1, 1, grad_shards=0), run_program(1, 2, grad_shards=0)
    np.testing.assert_allclose(both["train_losses"], one["train_losses"], rtol=1e-5)
    np.testing.assert_allclose(both["val_perplexities"], one["val_perplexities"], rtol=1e-5)
    np.testing.assert_allclose(both["line_search_losses"], one["line_search_losses"], rtol=1e-3)
    assert both["counts"] == one["counts"]


@pytest.mark.parametrize("grad_shards", [None, 1, 2, 8])
def test_average_over_batch_is_the_mean(grad_shards):
    rows = np.arange(16.0, dtype=np.float32).reshape(8, 2)
    mean = average_over_batch(
        lambda part, key: part.mean(axis=0), jnp.asarray(rows), key=jax.random.key(0), grad_shards=grad_shards
    )
    np.testing.assert_array_equal(mean, rows.mean(axis=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grad_shards": 0}, "grad_shards must be at least 1, got 0"),
        ({"grad_shards": 3, "batch_size": 32}, "batch_size must be a multiple of grad_shards=3, got 32; use 33"),
        ({"mesh": MESH, "device": "cpu"}, "device cpu and mesh exclude each other"),
        ({"mesh": Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("x", "y"))}, "mesh must have one axis"),
    ],
)
def test_train_lm_rejects_a_sharding(options, message):
    with pytest.raises(ValueError, match=message):
        train_lm(MLP, **options)
