"""Probe one accelerator plugin and print the result as JSON.

    python -m jaxlm.devices.probe_program SECONDS [MODULES OF OTHER PLUGINS]

The other plugins are disabled. Each check runs a small program on the plugin's device and on the CPU, and compares
the results. Together they use the operations of a training run. The process ends after SECONDS.
"""

import contextlib
import faulthandler
import json
import logging.handlers
import sys
import time
from typing import Any

import jax
import jax.extend.backend
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlm.devices.plugins import Plugin, disable_plugins
from jaxlm.devices.probe_runner import RESULT_MARKER, SMALL_MODEL, ProbeResult, to_one_line

_TOLERANCE = 1e-3  # relative and absolute; in three steps, another order of float32 additions changes less
_MAX_SLOWDOWN = 10  # a slower accelerator is limited by computing, not by dispatch

_VOCAB, _CONTEXT, _BATCH = 27, 3, 32
_SHAPES = {"embedding": (_VOCAB, 32), "hidden": (_CONTEXT * 32, 2048), "bias": (2048,), "logits": (2048, _VOCAB)}
_random = np.random.default_rng(0)
_IDS = _random.integers(0, _VOCAB, 500, np.int32)
_PARAMS = {name: _random.normal(0, 0.1, shape).astype(np.float32) for name, shape in _SHAPES.items()}
_TABLE = np.linspace(-1, 1, _VOCAB * 3, dtype=np.float32).reshape(_VOCAB, 3)
_MATRIX = _random.normal(size=(150, 150)).astype(np.float32)
_SCORES = _random.permutation(500).astype(np.float32).reshape(5, 100)
_LOGITS = _random.normal(0, 2, (_VOCAB, _VOCAB)).astype(np.float32)


def probe() -> ProbeResult:
    """Return the probe result of the platform that JAX finds in addition to the CPU."""
    log = logging.handlers.BufferingHandler(capacity=1000)
    logging.getLogger("jax").addHandler(log)
    platform = None
    try:
        platform = next((name for name in jax.extend.backend.backends() if name != "cpu"), None)
        if platform is None:
            # JAX logs the exceptions that a plugin raises while loading, and continues.
            cause = f": {_describe_record(log.buffer[0])}" if log.buffer else ""
            return ProbeResult(False, None, f"provides no device{cause}")
        device, cpu = jax.devices(platform)[0], jax.devices("cpu")[0]
        # By default, some devices multiply float32 with fewer bits, which is not an error.
        with jax.default_matmul_precision("float32"):
            for name in CHECKS:
                if difference := find_difference(run_check(name, device), run_check(name, cpu)):
                    return ProbeResult(False, platform, f"has a wrong {name}: {difference}")
            return compare_speed(platform, _step_seconds(device), _step_seconds(cpu))
    except Exception as error:  # a plugin may raise anything
        message = str(error).partition(" (you may need to uninstall")[0]  # cut JAX's own advice
        return ProbeResult(False, platform, f"raised {type(error).__name__}: {to_one_line(message)}")


def run_check(name: str, device: jax.Device) -> Any:
    """Return the values of a check on a device, as NumPy arrays."""
    function, arguments = _prepare_check(name, device)
    return jax.device_get(function(*arguments))


def find_difference(actual: Any, expected: Any) -> str:
    """Describe the first difference between two pytrees of arrays; empty if there is none."""
    for leaf, expected_leaf in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        here, there = np.asarray(leaf), np.asarray(expected_leaf)
        if (here.shape, here.dtype) != (there.shape, there.dtype):
            return f"{here.dtype}{list(here.shape)} instead of the CPU's {there.dtype}{list(there.shape)}"
        tolerance = _TOLERANCE if np.issubdtype(there.dtype, np.floating) else 0
        wrong = ~np.isclose(here, there, rtol=tolerance, atol=tolerance)
        if wrong.any():
            return f"{here[wrong][0]:.6g} instead of the CPU's {there[wrong][0]:.6g}"
    return ""


def compare_speed(platform: str, seconds: float, cpu_seconds: float) -> ProbeResult:
    """Return the result of a plugin that passed every check, from its and the CPU's seconds per training step.

    On an accelerator, the time of a small step does not depend on the model's size. On the CPU, it is proportional
    to the size. So the accelerator is faster from about the size where both times are equal.
    """
    if seconds > _MAX_SLOWDOWN * cpu_seconds:
        reason = f"computes the CPU's values, {seconds / cpu_seconds:.0f} times slower"
        return ProbeResult(True, platform, reason, seconds)
    num_weights = sum(map(np.size, _PARAMS.values()))
    worthwhile_from = max(round(num_weights * seconds / cpu_seconds), SMALL_MODEL)
    return ProbeResult(True, platform, "computes the CPU's values", seconds, worthwhile_from)


def _prepare_check(name: str, device: jax.Device) -> tuple[Any, tuple[Any, ...]]:
    function, *arguments = CHECKS[name]
    with jax.default_device(device):
        key = jax.random.key(7)  # outside `jit`, as in a training run
    return jax.jit(function), jax.device_put((*arguments, key), device)


def _describe_record(record: logging.LogRecord) -> str:
    error = record.exc_info and record.exc_info[1]
    return to_one_line(f"{type(error).__name__}: {error}" if error else record.getMessage())


def _random_numbers(key: Array) -> tuple[Array, Array]:
    keys = jax.random.split(key, 4)
    return jax.random.key_data(keys), jax.random.uniform(keys[0], (100,))


def _sample(logits: Array, key: Array) -> Array:
    def sample_next(token: Array, key: Array) -> tuple[Array, Array]:
        token = jax.random.categorical(key, logits[token]).astype(jnp.int32)
        return token, token

    return lax.scan(sample_next, jnp.int32(0), jax.random.split(key, 20))[1]


def _train(params: Any, ids: Array, num_steps: Array, key: Array) -> Any:
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


# Name -> a function to run on both devices, and its arguments except the last, which is a random key.
CHECKS: dict[str, tuple[Any, ...]] = {
    "random number": (_random_numbers,),
    "matrix product": (lambda matrix, key: matrix @ matrix, _MATRIX),
    "gather": (lambda table, ids, key: table[ids], _TABLE, _IDS[:50]),
    "scatter-add": (lambda ids, key: jnp.zeros(_VOCAB, jnp.int32).at[ids].add(1), _IDS),
    # Small integers, which float32 adds exactly in any order. Sampling needs sums that never decrease.
    "running sum": (lambda ids, key: jnp.cumsum(ids, axis=1), _IDS.reshape(5, 100).astype(np.float32) % 4),
    "top k": (lambda scores, key: lax.top_k(scores, 7), _SCORES),
    "embedding gradient": (jax.grad(lambda table, ids, key: jnp.tanh(table[ids]).sum()), _TABLE, _IDS[:50]),
    "training": (_train, _PARAMS, _IDS, np.int32(3)),
    "sample": (_sample, _LOGITS),
}


def _step_seconds(device: jax.Device) -> float:
    """Return the seconds per step of the training loop, the best of three runs."""
    train, (params, ids, _, key) = _prepare_check("training", device)
    num_steps, seconds = jax.device_put(np.int32(10), device), []
    for _ in range(3):
        begin = time.perf_counter()
        jax.block_until_ready(train(params, ids, num_steps, key))  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - begin)
    return min(seconds) / 10


if __name__ == "__main__":
    limit, *others = sys.argv[1:]
    faulthandler.dump_traceback_later(float(limit), exit=True)
    with contextlib.suppress(ImportError, ValueError, OSError):  # a crash must leave no core file
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    disable_plugins(Plugin(other, other, "unknown") for other in others)
    print(f"\n{RESULT_MARKER}{json.dumps(probe()._asdict())}", flush=True)
