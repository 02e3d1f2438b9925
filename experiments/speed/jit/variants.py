"""From a stage's one pure function, every way to run it; and how these are timed, side by side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from experiments.speed.jit.stages import COPIES, Stage
from jaxlm.utils.timing import Measurement, RecompilationError, benchmark_interleaved

# PyTorch's OpenMP threads spin for up to 0.2 s after its last operation; those of NumPy's BLAS for less.
REST_SECONDS, REST_SECONDS_WITH_TORCH = 0.05, 0.25


class Way(NamedTuple):
    """A call to time, and how many items it does."""

    call: Callable[[], Any]
    items: int


def make_ways(
    stage: Stage, items: int, device: jax.Device, torch: Any = None
) -> tuple[dict[str, Way], dict[str, str]]:
    """Every way to do the stage's items, and why any other makes no sense for it.

    A call does `items` items and waits once, at its end, so that dispatch may run ahead; `eager` does one. Each
    item waits for the one before, also where it does not use its state: a CPU would else do two at a time.
    """

    def loop(inputs: Any, state: Any, first: Array, num_items: Array) -> Any:
        return lax.fori_loop(first, first + num_items, lambda i, state: stage.step(inputs, state, i), state)

    def side_by_side(inputs: Any, states: Any, first: Array) -> Any:
        return jax.vmap(stage.step, (None, 0, 0))(inputs, states, first + jnp.arange(COPIES))

    def eager(state: Any, i: int) -> Any:
        with jax.disable_jit():
            return stage.step(stage.inputs, state, jnp.int32(i))

    # What a call returns is the next one's argument: its buffers are donated.
    jitted, looped, vmapped = (
        jax.jit(each, donate_argnums=1, keep_unused=True) for each in (stage.step, loop, side_by_side)
    )
    inputs, calls = stage.inputs, max(items // COPIES, 1)
    missing = {}
    ways = {
        "eager": repeated(eager, stage.state),
        "jit": repeated(lambda state, i: jitted(inputs, state, i), stage.state, calls=items),
        "loop": repeated(lambda state, i: looped(inputs, state, i, items), stage.state, width=items),
    }
    if stage.no_vmap:
        missing["vmap"] = stage.no_vmap
    else:
        states = jax.tree.map(lambda leaf: jnp.stack([leaf] * COPIES), stage.state)
        ways["vmap"] = repeated(lambda states, i: vmapped(inputs, states, i), states, calls=calls, width=COPIES)
    if stage.numpy is None:
        missing["numpy"] = "the stage has none"
    elif device.platform == "cpu":
        ways["numpy"] = repeated(without_state(stage.numpy), None, calls=items)
    if stage.torch is None:
        missing["torch"] = "the stage has none"
    elif torch is not None:
        on_cpu = device.platform == "cpu"
        torch_step = without_state(stage.torch(torch, "cpu" if on_cpu else "cuda"))
        ways["torch"] = repeated(torch_step, None, calls=items, wait=None if on_cpu else torch.cuda.synchronize)
    return ways, missing


def repeated(
    step: Callable[[Any, int], Any],
    state: Any,
    *,
    calls: int = 1,
    width: int = 1,
    wait: Callable[[], None] | None = None,
) -> Way:
    """A way that goes on where it was: `calls` calls of `step(state, i)`, each of `width` items; then it waits."""
    state, first = jax.tree.map(jnp.copy, state), 0

    def call() -> Any:
        nonlocal state, first
        for _ in range(calls):
            state = step(state, first)
            first += width
        if wait is not None:
            wait()
        return state

    return Way(call, calls * width)


def without_state(step: Callable[[int], Any]) -> Callable[[Any, int], Any]:
    """A step that keeps its own state."""
    return lambda state, i: step(i)


def measure(ways: dict[str, Way], repeats: int, title: str) -> dict[str, Measurement]:
    """Seconds of a call, by way; raises ValueError where something was compiled meanwhile."""
    calls = {name: way.call for name, way in ways.items()}
    rest_seconds = REST_SECONDS_WITH_TORCH if "torch" in ways else REST_SECONDS
    try:
        return benchmark_interleaved(calls, repeats=repeats, rest_seconds=rest_seconds, tracing=["eager"])
    except RecompilationError as error:
        raise ValueError(f"{title}: {error}") from None


def measure_ceiling(device: jax.Device, repeats: int, *, quick: bool) -> dict[str, float]:
    """What this machine can do at best: FLOP/s of a matrix product, bytes/s of a copy (those read and written).

    The product is the best of three sizes of float32 squares, at the precision that JAX takes by default. The copy
    negates a large array in place, so that no page is touched for the first time.
    """
    widths = (256, 512, 1024) if quick else (512, 1024, 2048) if device.platform == "cpu" else (4096, 8192, 16_384)
    product = jax.jit(jnp.matmul)
    negate = jax.jit(jnp.negative, donate_argnums=0)
    num_floats = 2**24 if quick else 2**26 if device.platform == "cpu" else 2**28
    ways = {"copy": repeated(lambda array, _: negate(array), jnp.ones(num_floats))}
    for width in widths:  # this square times itself is itself
        ways[str(width)] = repeated(lambda square, _: product(square, square), jnp.full((width, width), 1 / width))
    figures = measure(ways, repeats, f"the ceiling of {device.platform}")
    return {
        "flops_per_second": max(2 * width**3 / figures[str(width)].minimum for width in widths),
        "bytes_per_second": 2 * 4 * num_floats / figures["copy"].minimum,
    }


def cost_analysis(jitted: Any, *arguments: Any) -> dict[str, float | None]:
    """FLOPs and bytes of a call, as XLA counts them in the compiled program; None where it does not say."""
    analysis = jitted.lower(*arguments).compile().cost_analysis() or {}
    counted = analysis[0] if isinstance(analysis, list) else analysis  # one for each program in some releases
    return {"flops": counted.get("flops"), "bytes": counted.get("bytes accessed")}
