import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.utils.keys import vmap_over_steps


def draw(key):
    return jax.random.bits(key, (4,))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg", "raw threefry2x32", "raw rbg"])
def test_vmap_over_steps_has_the_bits_of_a_loop(impl):
    new_key, impl = jax.random.PRNGKey if "raw" in impl else jax.random.key, impl.split()[-1]
    with jax.default_prng_impl(impl):
        key, steps = new_key(3), jnp.arange(5, 11)
        drawn = jax.jit(lambda key, steps: vmap_over_steps(draw, key, steps))(key, steps)
        looped = [draw(jax.random.fold_in(key, step)) for step in steps]
    np.testing.assert_array_equal(drawn, np.stack(looped))
    assert len(np.unique(drawn)) == drawn.size
