"""Make every variant of a stage from its one pure function, and time the variants against each other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from experiments.shared.benchmark import Variant
from experiments.speed.jit.stages import VMAP_WIDTH, Stage
from jaxlm.utils.timing import Measurement, RecompilationError, benchmark_interleaved

# The OpenMP threads of PyTorch spin for up to 0.2 s after its last operation, those of NumPy's BLAS less.
REST_SECONDS, REST_SECONDS_WITH_TORCH = 0.05, 0.25


def make_variants(
    stage: Stage, items: int, device: jax.Device, torch: Any = None
) -> tuple[dict[str, Variant], dict[str, str]]:
    """Return the variants of a stage by name, and the reason for each missing one.

    A call processes `items` items and waits once, at its end, so that dispatch can run ahead; `eager` processes
    one. Each item waits for the previous one even if it does not use its state: a CPU could otherwise run two at
    a time.
    """

    def loop(inputs: Any, state: Any, first: Array, num_items: Array) -> Any:
        return lax.fori_loop(first, first + num_items, lambda i, state: stage.step(inputs, state, i), state)

    def vmapped(inputs: Any, states: Any, first: Array) -> Any:
        return jax.vmap(stage.step, (None, 0, 0))(inputs, states, first + jnp.arange(VMAP_WIDTH))

    def eager(state: Any, i: int) -> Any:
        with jax.disable_jit():
            return stage.step(stage.inputs, state, jnp.int32(i))

    # A call's result is the next call's argument, so its buffers are donated.
    step_program, loop_program, vmap_program = (
        jax.jit(each, donate_argnums=1, keep_unused=True) for each in (stage.step, loop, vmapped)
    )
    inputs, missing = stage.inputs, {}
    variants = {
        "eager": repeat(eager, stage.state),
        "jit": repeat(lambda state, i: step_program(inputs, state, i), stage.state, calls=items),
        "loop": repeat(lambda state, i: loop_program(inputs, state, i, items), stage.state, width=items),
    }
    if stage.no_vmap:
        missing["vmap"] = stage.no_vmap
    else:
        states = jax.tree.map(lambda leaf: jnp.stack([leaf] * VMAP_WIDTH), stage.state)
        calls = max(items // VMAP_WIDTH, 1)
        step = lambda states, i: vmap_program(inputs, states, i)  # noqa: E731
        variants["vmap"] = repeat(step, states, calls=calls, width=VMAP_WIDTH)
    on_cpu = device.platform == "cpu"
    if on_cpu:
        variants["numpy"] = repeat(lambda _, i: stage.numpy(i), None, calls=items)
    if torch is not None:
        torch_step = stage.torch(torch, "cpu" if on_cpu else "cuda")
        wait = None if on_cpu else torch.cuda.synchronize
        variant = repeat(lambda _, i: torch_step(i), None, calls=items, wait=wait)
        without_gradients = variant._replace(call=torch.no_grad()(variant.call))
        variants["torch"] = variant if stage.needs_gradients else without_gradients
    return variants, missing


def repeat(
    step: Callable[[Any, int], Any],
    state: Any,
    *,
    calls: int = 1,
    width: int = 1,
    wait: Callable[[], None] | None = None,
) -> Variant:
    """Return a variant whose call continues where the last one stopped.

    Args:
        step: (state, index of the first item) -> state.
        calls: calls of `step` in one call of the variant.
        width: items that `step` processes.
        wait: called at the end, to wait for another library's device.
    """
    state, first = jax.tree.map(jnp.copy, state), 0

    def call() -> Any:
        nonlocal state, first
        for _ in range(calls):
            state = step(state, first)
            first += width
        if wait is not None:
            wait()
        return state

    return Variant(call, calls * width)


def measure_variants(variants: dict[str, Variant], repeats: int, title: str) -> dict[str, Measurement]:
    """Time one call of each variant, A B A B.

    Raises:
        ValueError: something was compiled while it was timed.
    """
    calls = {name: variant.call for name, variant in variants.items()}
    rest_seconds = REST_SECONDS_WITH_TORCH if "torch" in variants else REST_SECONDS
    try:
        return benchmark_interleaved(calls, repeats=repeats, rest_seconds=rest_seconds, tracing=["eager"])
    except RecompilationError as error:
        raise ValueError(f"{title}: {error}") from None


def measure_ceiling(device: jax.Device, repeats: int, *, quick: bool) -> dict[str, float]:
    """Measure the FLOP/s of a matrix product, and the bytes/s, read and written, of a copy.

    The product is the best of three sizes of square float32 matrices, at JAX's default precision. The copy negates
    a large array in place, so that it touches no page for the first time.
    """
    widths = (256, 512, 1024) if quick else (512, 1024, 2048) if device.platform == "cpu" else (4096, 8192, 16_384)
    product = jax.jit(jnp.matmul)
    negate = jax.jit(jnp.negative, donate_argnums=0)
    num_floats = 2**24 if quick else 2**26 if device.platform == "cpu" else 2**28
    variants = {"copy": repeat(lambda array, _: negate(array), jnp.ones(num_floats))}
    for width in widths:  # the square of this matrix is the matrix itself
        square = jnp.full((width, width), 1 / width)
        variants[str(width)] = repeat(lambda square, _: product(square, square), square)
    measurements = measure_variants(variants, repeats, f"ceiling of {device.platform}")
    return {
        "flops_per_second": max(2 * width**3 / measurements[str(width)].minimum for width in widths),
        "bytes_per_second": 2 * 4 * num_floats / measurements["copy"].minimum,
    }


def analyze_cost(jitted: Any, *arguments: Any) -> dict[str, float | None]:
    """Return the FLOPs and bytes of a call by XLA's cost analysis, None where it gives none."""
    analysis = jitted.lower(*arguments).compile().cost_analysis() or {}
    costs = analysis[0] if isinstance(analysis, list) else analysis  # a list in some versions of JAX
    return {"flops": costs.get("flops"), "bytes": costs.get("bytes accessed")}
