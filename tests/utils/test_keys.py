"""Keys of both kinds are accepted, and keys of many steps are drawn as in a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.utils.keys import check_key, vmap_over_steps


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


@pytest.mark.parametrize("key", [jax.random.key(3), jax.random.PRNGKey(3), np.array([0, 3], np.uint32)], ids=str)
def test_check_key_returns_a_typed_key(key):
    np.testing.assert_array_equal(jax.random.key_data(check_key(key)), [0, 3])
    assert jnp.issubdtype(check_key(key).dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("key", [0, None, "0", 1.5, jnp.uint32(3), jax.random.split(jax.random.key(0))], ids=str)
def test_check_key_names_the_remedy(key):
    with pytest.raises(TypeError, match=r"key must be a random key such as jax.random.key\(0\), got"):
        check_key(key)
