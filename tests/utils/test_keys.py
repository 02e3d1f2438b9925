"""Drawing for many steps at once is drawing for one step after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.utils.keys import vmap_over_steps


def four_words(key):
    return jax.random.bits(key, (4,))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_no_bit_differs_from_a_loop(impl, raw):
    with jax.default_prng_impl(impl):
        key = jax.random.PRNGKey(3) if raw else jax.random.key(3)
        steps = jnp.arange(5, 11)
        drawn = jax.jit(lambda key, steps: vmap_over_steps(lambda each: jax.random.bits(each, (4,)), key, steps))(
            key, steps
        )
        looped = [jax.random.bits(jax.random.fold_in(key, step), (4,)) for step in steps]
    np.testing.assert_array_equal(drawn, np.stack(looped))
    assert len(np.unique(drawn)) == drawn.size
