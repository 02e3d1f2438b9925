"""Exercise 1: context windows and targets.

A language model predicts a token from the N tokens before it. So a stream of T token ids is a data set of
examples: each window of N tokens is a context, and the token after it is the target.

    ids = [5, 3, 8, 2], N = 2:    context [5, 3], target 8
                                  context [3, 8], target 2

Array indexing in JAX does all of this without a loop: `ids[positions]` has the shape of `positions`.

Questions. Write each answer after its `>`.

1. How many windows do T tokens have? What happens if T is N or less?
   > T - N, because the last window must leave one token for its target. With N tokens or less, there is none.
2. `get_batch` takes a key. What would be lost if it took its randomness from a global generator?
   > The batch would depend on what else drew numbers before, so a step could not be repeated, resumed or vmapped.
3. Two neighbouring windows share N - 1 tokens. Why is a text split by position, and windows are cut afterwards?
   > If windows were dealt out at random, almost all tokens of a validation window would be in training windows.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def windows(ids: Array, context_length: int) -> tuple[Array, Array]:
    """Return all contexts of `ids` [T], in order, int32 [T - N, N], and the token that follows each, [T - N].

    >>> contexts, targets = windows(jnp.array([5, 3, 8, 2]), 2)
    >>> contexts.tolist(), targets.tolist()
    ([[5, 3], [3, 8]], [8, 2])
    """
    starts = jnp.arange(len(ids) - context_length)
    rows = ids[starts[:, None] + jnp.arange(context_length + 1)[None, :]]  # [T - N, N + 1]
    return rows[:, :-1], rows[:, -1]


def get_batch(ids: Array, context_length: int, batch_size: int, *, key: Array) -> tuple[Array, Array]:
    """Return B random windows of `ids` [T]: contexts [B, N] and targets [B].

    All T - N windows are equally likely, also one that is already in the batch. The batch depends on `key` alone.
    """
    starts = jax.random.randint(key, (batch_size,), 0, len(ids) - context_length)
    rows = ids[starts[:, None] + jnp.arange(context_length + 1)[None, :]]  # [B, N + 1]
    return rows[:, :-1], rows[:, -1]


def own_law(course: Any, random: Any) -> Iterator[tuple[Any, Any]]:
    """Each target but the last is the last token of the next context.

    Write a law of your own: state a property of `windows` or `get_batch` in this docstring, and yield pairs of an
    expected and an actual value. `course.windows` is the function under test, and `random` a NumPy generator. The
    law must hold for a correct solution, and catch at least 3 of our wrong ones. Numbers, strings, arrays, lists,
    tuples and dicts can be compared, floats with a tolerance; of a set, yield `sorted(...)`.

    How many windows are there, which of them can a batch hold, and which tokens do two neighbouring windows share?
    """
    for length in (4, 9):
        contexts, targets = course.windows(jnp.asarray(random.integers(0, 9, length)), 2)
        yield contexts[1:, -1], targets[:-1]
        yield length - 2, len(targets)
