"""Exercise 5: train.

A training step is a pure function: parameters and a batch go in, new parameters and the loss come out. Its
gradient is `jax.value_and_grad(loss)(params)`, a pytree like the parameters, so SGD is one `jax.tree.map`:

    new = old - lr * gradient

Step i trains on `draw(jax.random.fold_in(key, i))` and on nothing else random. So training 100 steps gives the
same bits as 60 steps, a pause, and 40 more. The loop is a `lax.scan`: compiled once, not unrolled.

`model` is a function such as your `mlp_logits`, from params and contexts to logits. `draw` is a function from a
key to a batch, such as your `get_batch` with its other arguments filled in.

Questions. Write each answer after its `>`.

1. PyTorch needs `optimizer.zero_grad()`. Why does nothing like it exist here?
   > The gradient is a return value, new in each step. There is no place where an old one could stay.
2. The counts bigram is not trained by gradient descent. What is its optimum called, and how is it found?
   > Maximum likelihood: the relative frequencies. One pass of counting finds it.
3. All three models predict the same validation tokens. Which one wins on your text, and why may the counts win?
   Answer after the notebook.
   > The MLP on a natural text, as it reads more tokens. With few tokens, or too few steps, the counts are better.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlm.course.solutions.ex4_sampling import token_nats

Params = dict[str, Array]
Batch = tuple[Array, Array]  # contexts [B, N] and targets [B]
Model = Callable[[Params, Array], Array]  # from params and contexts [B, N] to logits [B, V]


def train_step(model: Model, params: Params, batch: Batch, lr: float) -> tuple[Params, Array]:
    """Take one SGD step on the mean nats of a batch. Return the new parameters, and the loss before the step."""

    def mean_nats(params: Params) -> Array:
        contexts, targets = batch
        return token_nats(model(params, contexts), targets).mean()

    loss, gradients = jax.value_and_grad(mean_nats)(params)
    return jax.tree.map(lambda param, gradient: param - lr * gradient, params, gradients), loss


def train(
    model: Model,
    draw: Callable[[Array], Batch],
    params: Params,
    first: int,
    num_steps: int,
    lr: float,
    *,
    key: Array,
) -> tuple[Params, Array]:
    """Take the steps first, first + 1, ..., first + num_steps - 1. Return parameters and losses [num_steps].

    Step i trains on `draw(fold_in(key, i))`. Use one `lax.scan` over the numbers of the steps. `first` may be
    traced under `jit`, so write `first + jnp.arange(num_steps)`; `num_steps` is static.
    """

    def step(params: Params, number: Array) -> tuple[Params, Array]:
        return train_step(model, params, draw(jax.random.fold_in(key, number)), lr)

    return lax.scan(step, params, first + jnp.arange(num_steps))


def own_law(course: Any, random: Any) -> Iterator[tuple[Any, Any]]:
    """One step on equal logits lowers the target's logit by what the others share, and training repeats steps.

    Write a law of your own for `train_step` or `train`. It must hold for a correct solution, and catch at least
    3 of our wrong ones. A model whose logits are its parameters has a gradient that you can write down.
    """
    batch = jnp.zeros((1, 1), int), jnp.zeros(1, int)
    key, params = jax.random.key(0), {"table": jnp.zeros((1, 4))}

    def model(params: Params, contexts: Array) -> Array:
        return params["table"][contexts[:, 0]]

    for lr in (1.0, float(random.uniform(0, 1))):
        after, loss = course.train_step(model, params, batch, lr)
        yield [[0.75 * lr, -0.25 * lr, -0.25 * lr, -0.25 * lr]], after["table"]
        yield jnp.log(4.0), loss
        twice, _ = course.train_step(model, after, batch, lr)
        yield twice, course.train(model, lambda key: batch, params, 0, 2, lr, key=key)[0]
