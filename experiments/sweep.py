"""Many runs of training as one vmapped program: a learning rate and a key for each."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxlm


def train_sweep(
    model: jaxlm.LanguageModel, ids: Any, *, lrs: Any, keys: Array, batch_size: int, num_steps: int
) -> Any:
    """What `train_lm` makes of each pair of `lrs` [R] and `keys` [R], by one vmapped program: variables [R, ...].

    The runs are spread evenly over as many devices of the default platform as divide them: a CPU can be several.
    """
    devices = jax.devices(jaxlm.resolve_device().platform)
    devices = devices[: num_sharing(len(keys), len(devices))]
    # A mesh of one axis: what is the same for all runs lies on every device, what is a run's on that run's.
    mesh = Mesh(np.array(devices), ("runs",))
    everywhere, by_run = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("runs",)))  # type: ignore[no-untyped-call]
    stream = jax.device_put(jnp.asarray(ids), everywhere)
    lrs, keys = jax.device_put((jnp.asarray(lrs, jnp.float32), keys), by_run)
    return _train_sweep(model, stream, lrs, keys, batch_size, num_steps)


def num_sharing(num_runs: int, num_devices: int) -> int:
    """The largest number of devices, at most `num_devices`, that divides the runs.

    >>> num_sharing(16, 6), num_sharing(7, 4)
    (4, 1)
    """
    return next(count for count in range(num_devices, 0, -1) if num_runs % count == 0)


@functools.partial(jax.jit, static_argnames=("model", "batch_size"))
def _train_sweep(
    model: jaxlm.LanguageModel, ids: Array, lrs: Array, keys: Array, batch_size: int, num_steps: Array
) -> Any:
    def train(lr: Array, key: Array) -> Any:
        def step(index: Array, variables: Any) -> Any:
            contexts, targets = jaxlm.get_batch(
                ids, model.context_length, batch_size, key=jax.random.fold_in(key, index)
            )
            gradients = jax.grad(lambda each: jaxlm.token_nats(model.apply(each, contexts), targets).mean())(
                variables
            )
            return jax.tree.map(lambda param, gradient: param - lr * gradient, variables, gradients)

        return lax.fori_loop(0, num_steps, step, jaxlm.init(model, jax.random.fold_in(key, 2**31 - 1)))

    return jax.vmap(train)(lrs, keys)
