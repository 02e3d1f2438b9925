"""Make every variant of a stage from its one pure function, and measure the machine's ceiling."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from experiments.shared.benchmark import Variant, time_variants
from experiments.speed.jit.stages import Stage

VMAP_WIDTH = 8  # items that `vmap` processes side by side
MAX_VMAP_BYTES = 2**28  # of the vmapped copies of a state


def make_variants(stage: Stage, items: int, others: Mapping[str, Callable[[Any, int], Any]]) -> dict[str, Variant]:
    """Return the variants of a stage by name; no `vmap` if its copies of the state are too large.

    eager: under `disable_jit`. no jit: the step is not compiled, but the functions that it jits itself are. jit:
    one call per item. donated: the same with the state donated, as in loop (`fori_loop`), scan and vmap.

    A call of a variant processes `items` items and waits once, at its end, so that dispatch can run ahead; `eager`
    and `no jit` process one item. Each item waits for the previous one even if it does not use its state: a CPU
    could otherwise run two at a time.

    Args:
        others: functions (None, i) in other libraries that do item i.
    """
    inputs, initial = jax.tree.map(jnp.asarray, (stage.inputs, stage.state))

    def loop(inputs: Any, state: Any, first: Array, num_items: Array) -> Any:
        return lax.fori_loop(first, first + num_items, lambda i, state: stage.step(inputs, state, i), state)

    def scan(inputs: Any, state: Any, first: Array) -> Any:
        indices = first + jnp.arange(items)
        return lax.scan(lambda state, i: (stage.step(inputs, state, i), None), state, indices)[0]

    def vmapped(inputs: Any, states: Any, first: Array) -> Any:
        return jax.vmap(stage.step, (None, 0, 0))(inputs, states, first + jnp.arange(VMAP_WIDTH))

    def no_jit(state: Any, i: int) -> Any:
        return stage.step(inputs, state, jnp.int32(i))

    def eager(state: Any, i: int) -> Any:
        with jax.disable_jit():
            return no_jit(state, i)

    # A call's result is the next call's argument, so its buffers can be donated.
    step_program = jax.jit(stage.step, keep_unused=True)
    donated_program, loop_program, scan_program, vmap_program = (
        jax.jit(each, donate_argnums=1, keep_unused=True) for each in (stage.step, loop, scan, vmapped)
    )
    variants = {
        "eager": repeat(eager, initial)._replace(traces=True),
        "no jit": repeat(no_jit, initial)._replace(traces=True),
        "jit": repeat(lambda state, i: step_program(inputs, state, i), initial, calls=items),
        "donated": repeat(lambda state, i: donated_program(inputs, state, i), initial, calls=items),
        "loop": repeat(lambda state, i: loop_program(inputs, state, i, items), initial, width=items),
        "scan": repeat(lambda state, i: scan_program(inputs, state, i), initial, width=items),
    }
    if VMAP_WIDTH * sum(leaf.nbytes for leaf in jax.tree.leaves(initial)) <= MAX_VMAP_BYTES:
        states = jax.tree.map(lambda leaf: jnp.stack([leaf] * VMAP_WIDTH), initial)
        step = lambda states, i: vmap_program(inputs, states, i)  # noqa: E731
        variants["vmap"] = repeat(step, states, calls=max(items // VMAP_WIDTH, 1), width=VMAP_WIDTH)
    for name, run in others.items():
        variants[name] = repeat(run, None, calls=items)
    return {name: variant._replace(may_fail=True) for name, variant in variants.items()}


def repeat(step: Callable[[Any, int], Any], state: Any, *, calls: int = 1, width: int = 1) -> Variant:
    """Return a variant whose call continues where the last one stopped.

    Args:
        step: (state, index of the first item) -> state.
        calls: calls of `step` in one call of the variant.
        width: items that `step` processes.
    """
    state, first = jax.tree.map(jnp.copy, state), 0

    def call() -> Any:
        nonlocal state, first
        for _ in range(calls):
            state = step(state, first)
            first += width
        return state

    return Variant(call, calls * width)


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
    measured = time_variants(variants, repeats=repeats)
    return {
        "flops_per_second": max(2 * width**3 / measured[str(width)]["minimum_us"] for width in widths) * 1e6,
        "bytes_per_second": 2 * 4 * num_floats / measured["copy"]["minimum_us"] * 1e6,
    }


def analyze_cost(function: Callable[..., Any], *arguments: Any) -> dict[str, float | None]:
    """Return the FLOPs and bytes of a compiled call by XLA's cost analysis, None where it gives none."""
    analysis = jax.jit(function).lower(*arguments).compile().cost_analysis() or {}
    costs = analysis[0] if isinstance(analysis, list) else analysis  # a list in some versions of JAX
    return {"flops": costs.get("flops"), "bytes": costs.get("bytes accessed")}
