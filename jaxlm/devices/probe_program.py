"""Tries the one accelerator plugin that JAX may load in this process, and writes a verdict on it as JSON.

    python -m jaxlm.plugin_probe VERDICT.json SECONDS MODULE [MODULES OF OTHER PLUGINS]

A process of its own, for a plugin may abort, hang or crash; after SECONDS it ends, whether or not anybody still
waits. What a run needs is done on the plugin's device and on the CPU, and compared: in small programs, for most of
the time goes into compiling them.
"""

import contextlib
import faulthandler
import json
import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.extend.backend
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlm.devices.plugins import Plugin, disable_plugins
from jaxlm.devices.probe_runner import SMALL_MODEL, ProbeResult, one_line

# Float32 of other products in another order, over three steps of training; a wrong number is far from it.
_TOLERANCE = 1e-3
# An accelerator that takes so many times the CPU's time for the model here is slow by itself, not by its dispatch.
_HOPELESS = 10

_VOCAB, _CONTEXT, _DIM, _HIDDEN, _BATCH = 27, 3, 32, 2048, 32
_IDS = np.random.default_rng(0).integers(0, _VOCAB, 500).astype(np.int32)
_SHAPES = {
    "embedding": (_VOCAB, _DIM),
    "hidden": (_CONTEXT * _DIM, _HIDDEN),
    "bias": (_HIDDEN,),
    "logits": (_HIDDEN, _VOCAB),
}

Check = Callable[[jax.Device], Any]


def probe() -> ProbeResult:
    """The verdict on the platform that JAX finds here beside the CPU."""
    logged: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    logging.getLogger("jax").addHandler(logging.handlers.QueueHandler(logged))
    platform = None
    try:
        platform = next((name for name in jax.extend.backend.backends() if name != "cpu"), None)
        if platform is None:
            # What a plugin raises while it is loaded JAX only logs.
            words = "" if logged.empty() else f": {one_line(_error_of(logged.get().getMessage()))}"
            return ProbeResult(works=False, platform=None, reason=f"starts no device{words}")
        device, cpu = jax.devices(platform)[0], jax.devices("cpu")[0]
        # Some devices multiply float32 with fewer bits by default, and are not wrong.
        with jax.default_matmul_precision("float32"):
            for name, check in CHECKS.items():
                if difference := _difference(_run_on(device, check), _run_on(cpu, check)):
                    return ProbeResult(works=False, platform=platform, reason=f"has a wrong {name}: {difference}")
            seconds, cpu_seconds = _run_on(device, _step_seconds), _run_on(cpu, _step_seconds)
    except Exception as error:  # whatever a plugin raises
        words = str(error).partition(" (you may need to uninstall")[0]  # JAX's advice, of which there is no need
        reason = f"raised {type(error).__name__}: {one_line(words)}"
        return ProbeResult(works=False, platform=platform, reason=reason)
    return _judge(platform, seconds, cpu_seconds)


def _error_of(logged: str) -> str:
    """The error with which a traceback ends: its last line that is not indented, and what follows."""
    lines = logged.splitlines()
    last = max((number for number, line in enumerate(lines) if line.startswith(("  ", "Traceback"))), default=-1)
    return " ".join(lines[last + 1 :])


def _judge(platform: str, seconds: float, cpu_seconds: float) -> ProbeResult:
    """Of a plugin whose values are right, from the seconds of a step of the model here.

    A small step's time on an accelerator is that of its dispatch, whatever the size; on the CPU it grows with the
    weights. So the accelerator pays from about the weights with which the CPU takes as long.
    """
    if seconds > _HOPELESS * cpu_seconds:
        reason = f"gives the CPU's values in {seconds / cpu_seconds:.0f} times its time"
        return ProbeResult(works=True, platform=platform, reason=reason, seconds=seconds)
    num_weights = sum(map(np.prod, _SHAPES.values()))
    worthwhile_from = max(round(num_weights * seconds / cpu_seconds), SMALL_MODEL)
    return ProbeResult(True, platform, "gives the CPU's values", seconds, worthwhile_from)


def _run_on(device: jax.Device, check: Check) -> Any:
    with jax.default_device(device):  # keys are made there too
        return jax.device_get(check(device))


def _random_numbers(device: jax.Device) -> Any:
    @jax.jit
    def draw(seed: Array) -> tuple[Array, Array]:
        keys = jax.random.split(jax.random.key(seed), 4)
        return jax.random.key_data(keys), jax.random.uniform(keys[0], (100,))

    return draw(jax.device_put(np.int32(7), device))


def _product(device: jax.Device) -> Any:
    square = jax.device_put(np.random.default_rng(1).normal(size=(150, 150)).astype(np.float32), device)
    return jax.jit(jnp.matmul)(square, square)


def _gather(device: jax.Device) -> Any:
    table, rows = jax.device_put((np.arange(81, dtype=np.float32).reshape(27, 3), _IDS[:50]), device)
    return jax.jit(lambda table, rows: table[rows])(table, rows)


def _scatter_add(device: jax.Device) -> Any:
    rows = jax.device_put(_IDS, device)
    return jax.jit(lambda rows: jnp.zeros(_VOCAB, jnp.int32).at[rows].add(1))(rows)


def _running_sum(device: jax.Device) -> Any:
    """Of whole numbers, which float32 adds exactly in any order: sampling needs the sum to grow."""
    weights = np.random.default_rng(4).integers(0, 4, (5, 300)).astype(np.float32)
    return jax.jit(lambda weights: jnp.cumsum(weights, axis=1))(jax.device_put(weights, device))


def _top_k(device: jax.Device) -> Any:
    scores = np.random.default_rng(5).permutation(500).astype(np.float32).reshape(5, 100)
    return jax.jit(lambda scores: lax.top_k(scores, 7))(jax.device_put(scores, device))


def _embedding_gradient(device: jax.Device) -> Any:
    table, rows = jax.device_put((np.linspace(-1, 1, 81, dtype=np.float32).reshape(27, 3), _IDS[:50]), device)
    return jax.jit(jax.grad(lambda table, rows: jnp.tanh(table[rows]).sum()))(table, rows)


def _training(device: jax.Device) -> Any:
    return _train(*_start(device), jax.device_put(np.int32(3), device))


def _sample(device: jax.Device) -> Any:
    table = np.random.default_rng(3).normal(0, 2, (_VOCAB, _VOCAB)).astype(np.float32)

    @jax.jit
    def draw(table: Array, key: Array) -> Array:
        def draw_next(token: Array, key: Array) -> tuple[Array, Array]:
            token = jax.random.categorical(key, table[token]).astype(jnp.int32)
            return token, token

        return lax.scan(draw_next, jnp.int32(0), jax.random.split(key, 20))[1]

    return draw(jax.device_put(table, device), jax.random.key(3))  # a key made by itself, as a run's is


CHECKS: dict[str, Check] = {
    "random number": _random_numbers,
    "matrix product": _product,
    "gather": _gather,
    "scatter-add": _scatter_add,
    "running sum": _running_sum,
    "top k": _top_k,
    "gradient of an embedding": _embedding_gradient,
    "training": _training,
    "sample": _sample,
}


def _start(device: jax.Device) -> tuple[Any, Array]:
    random = np.random.default_rng(2)
    params = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in _SHAPES.items()}
    return jax.device_put((params, _IDS), device)


@jax.jit
def _train(params: Any, ids: Array, num_steps: Array) -> Any:
    """Gradient descent of Bengio's network on windows of `ids`, in one loop: the params and the last loss."""

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


def _difference(found: Any, wanted: Any) -> str:
    """Where two trees of arrays first differ; empty where they do not."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        here, there = np.asarray(one), np.asarray(other)
        if (here.shape, here.dtype) != (there.shape, there.dtype):
            return f"{here.dtype}{list(here.shape)} for the CPU's {there.dtype}{list(there.shape)}"
        tolerance = _TOLERANCE if np.issubdtype(there.dtype, np.floating) else 0
        wrong = np.argwhere(~np.isclose(here, there, rtol=tolerance, atol=tolerance))
        if len(wrong):
            place = tuple(wrong[0])
            return f"{here[place]:.6g} for the CPU's {there[place]:.6g}"
    return ""


def _step_seconds(device: jax.Device) -> float:
    """Of a step inside the loop that `_training` compiled."""
    start, num_steps, seconds = _start(device), 10, []
    for _ in range(3):
        begin = time.perf_counter()
        jax.block_until_ready(_train(*start, jax.device_put(np.int32(num_steps), device)))  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - begin)
    return min(seconds) / num_steps


if __name__ == "__main__":
    answer, limit, _, *others = sys.argv[1:]
    faulthandler.dump_traceback_later(float(limit), exit=True)
    with contextlib.suppress(ImportError, ValueError, OSError):  # a crash leaves no core where the user works
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    disable_plugins(Plugin(other, other, "unknown") for other in others)
    Path(answer).write_text(json.dumps(probe()._asdict()))
