"""Probe one accelerator plugin and print the result as JSON.

    python -m jaxlm.devices.probe_program SECONDS [MODULES OF OTHER PLUGINS]

The other plugins are disabled. The operations of a training run are computed on the plugin's device and on the
CPU, and their results are compared. The process ends after SECONDS.
"""

import faulthandler
import json
import logging.handlers
import resource
import sys
import time
from typing import Any

import jax
import jax.extend.backend
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlm.devices.plugins import Plugin, disable_plugins
from jaxlm.devices.probes import RESULT_MARKER, ProbeResult, to_one_line

_TOLERANCE = 1e-3  # relative and absolute; in three steps, another order of float32 additions changes less
_SMALL_MODEL = 10_000  # parameters; a smaller model takes 0.1 ms a step on the CPU, and no accelerator is faster

_VOCAB, _CONTEXT, _BATCH = 27, 3, 32
_SHAPES = {"embedding": (_VOCAB, 32), "hidden": (_CONTEXT * 32, 2048), "bias": (2048,), "logits": (2048, _VOCAB)}
_random = np.random.default_rng(0)
PARAMS = {name: _random.normal(0, 0.1, shape).astype(np.float32) for name, shape in _SHAPES.items()}
TABLE = _random.normal(0, 2, (_VOCAB, _VOCAB)).astype(np.float32)
IDS = _random.integers(0, _VOCAB, 500, np.int32)


def probe() -> ProbeResult:
    """Return the probe result of the platform that JAX finds in addition to the CPU."""
    log = logging.handlers.BufferingHandler(capacity=1000)
    logging.getLogger("jax").addHandler(log)
    platform = None
    try:
        platform = next((name for name in jax.extend.backend.backends() if name != "cpu"), None)
        if platform is None:
            # JAX logs the exceptions that a plugin raises while loading, and continues.
            logged = [str(record.exc_info[1] if record.exc_info else record.getMessage()) for record in log.buffer]
            return ProbeResult(False, None, to_one_line("; JAX logged: ".join(["provides no device", *logged])))
        device, cpu = jax.devices(platform)[0], jax.devices("cpu")[0]
        # By default, some devices multiply float32 with fewer bits, which is not an error.
        with jax.default_matmul_precision("float32"):
            if difference := find_difference(run_checks(device), run_checks(cpu)):
                return ProbeResult(False, platform, difference)
            return compare_speed(platform, _step_seconds(device), _step_seconds(cpu))
    except Exception as error:  # a plugin may raise anything
        return ProbeResult(False, platform, f"raised {type(error).__name__}: {to_one_line(str(error))}")


def run_checks(device: jax.Device) -> dict[str, Any]:
    """Return the values of each check on a device, as NumPy arrays."""
    with jax.default_device(device):
        key = jax.random.key(7)  # outside `jit`, as in a training run
    return jax.device_get(_compute(*jax.device_put((PARAMS, TABLE, IDS, np.int32(3), key), device)))


def find_difference(actual: dict[str, Any], expected: dict[str, Any]) -> str:
    """Describe the first difference between the values of checks; empty if there is none."""
    for name in expected:
        for value, correct in zip(jax.tree.leaves(actual[name]), jax.tree.leaves(expected[name]), strict=True):
            tolerance = _TOLERANCE if np.issubdtype(correct.dtype, np.floating) else 0
            wrong = ~np.isclose(value, correct, rtol=tolerance, atol=tolerance)
            if wrong.any():
                return f"has a wrong {name}: {value[wrong][0]:.6g} instead of the CPU's {correct[wrong][0]:.6g}"
    return ""


def compare_speed(platform: str, seconds: float, cpu_seconds: float) -> ProbeResult:
    """Return the result of a plugin that passed every check, from its and the CPU's seconds per training step.

    On an accelerator, the time of a small step does not depend on the model's size. On the CPU, it is proportional
    to the size. So the accelerator is faster from about the size where both times are equal.
    """
    num_params = sum(map(np.size, PARAMS.values()))
    worthwhile_from = max(round(num_params * seconds / cpu_seconds), _SMALL_MODEL)
    return ProbeResult(True, platform, "computes the CPU's values", seconds, worthwhile_from)


@jax.jit
def _compute(params: Any, table: Array, ids: Array, num_steps: Array, key: Array) -> dict[str, Any]:
    """Return the values of each check by its name, which completes the sentence "has a wrong"."""

    def sample_next(token: Array, key: Array) -> tuple[Array, Array]:
        token = jax.random.categorical(key, table[token]).astype(jnp.int32)
        return token, token

    keys, counts = jax.random.split(key, 4), (ids % 4).astype(jnp.float32).reshape(5, 100)
    return {
        "random number": (jax.random.key_data(keys), jax.random.uniform(keys[0], (100,))),
        # Small integers, which float32 adds exactly in any order. Sampling needs sums that never decrease.
        "running sum": jnp.cumsum(counts, axis=1),
        "top k": lax.top_k(table, 7),
        "embedding gradient": jax.grad(lambda table: jnp.tanh(table[ids[:50]]).sum())(table),
        "training": _train(params, ids, num_steps),
        "sample": lax.scan(sample_next, jnp.int32(0), jax.random.split(keys[1], 20))[1],
    }


@jax.jit
def _train(params: Any, ids: Array, num_steps: Array) -> Any:
    """Train Bengio's network on windows of `ids`; return the parameters and the last loss."""

    def mean_nats(params: Any, windows: Array) -> Array:
        contexts, targets = windows[:, :_CONTEXT], windows[:, _CONTEXT]
        embedded = params["embedding"][contexts].reshape(_BATCH, -1)
        logits = jnp.tanh(embedded @ params["hidden"] + params["bias"][None]) @ params["logits"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1).mean()

    def train_step(step: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
        starts = (step * _BATCH + jnp.arange(_BATCH)) % (len(ids) - _CONTEXT)
        windows = ids[starts[:, None] + jnp.arange(_CONTEXT + 1)[None]]
        loss, gradients = jax.value_and_grad(mean_nats)(carry[0], windows)
        return jax.tree.map(lambda param, gradient: param - 0.1 * gradient, carry[0], gradients), loss

    return lax.fori_loop(0, num_steps, train_step, (params, jnp.float32(0)))


def _step_seconds(device: jax.Device) -> float:
    """Return the seconds per step of the training loop, the best of three runs after compiling."""
    arguments, seconds = jax.device_put((PARAMS, IDS, np.int32(10)), device), []
    for _ in range(4):
        begin = time.perf_counter()
        jax.block_until_ready(_train(*arguments))  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - begin)
    return min(seconds) / 10


if __name__ == "__main__":
    limit, *others = sys.argv[1:]
    faulthandler.dump_traceback_later(float(limit), exit=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash must leave no core file
    disable_plugins(Plugin(other, other, "unknown") for other in others)
    print(f"\n{RESULT_MARKER}{json.dumps(probe()._asdict())}", flush=True)
