"""What differs between the versions of JAX that the package runs on: 0.5.0 to the newest.

`scripts/test-lines` runs the tests under them.
"""

from typing import Any

import jax


def device_put(tree: Any, device: jax.Device) -> Any:
    """`jax.device_put` of a tree that may hold no array, as the variables of a model without any.

    JAX 0.5.0 ends such a call with an IndexError where `jax_debug_key_reuse` is on.
    """
    return jax.device_put(tree, device) if jax.tree.leaves(tree) else tree
