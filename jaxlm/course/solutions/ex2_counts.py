"""Exercise 2: the counts bigram.

The simplest language model counts. `table[v, w]` is how often token w followed token v. Dividing a row by its sum
gives the probabilities of the next token, and adding k to each count first gives unseen pairs a chance:

    P(w | v) = (table[v, w] + k) / (sum of row v + k V)

Training is one scatter-add: `table.at[rows, columns].add(1)` returns a new array and adds once per repeated index.
Tables with addition are a monoid: zeros change nothing, the order of additions does not matter. So a text can be
counted in pieces, on many machines, or again tomorrow.

Questions. Write each answer after its `>`.

1. A text is cut into a and b. Which pair is missing in counts(a) + counts(b), and how do you get it back?
   > The pair across the cut. Begin b with the last token of a.
2. With k = 0, what is the perplexity of a text that has one unseen pair, and why?
   > Infinite: the pair has probability 0, so its nats are infinite, and so is the mean.
3. V = 4096 and the text has 300,000 pairs. Why is k = 1 a bad choice?
   > k adds V = 4096 imaginary pairs to each row, far more than most have seen, so all rows are nearly uniform.
"""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax import Array


def fit(table: Array, ids: Array) -> Array:
    """Return `table`, int32 [V, V], with the pairs of `ids` [T] added. T ids make T - 1 pairs.

    It also runs under `jax.jit`, where NumPy cannot read arrays: use `jnp`. `table` itself does not change.

    >>> fit(jnp.zeros((2, 2), jnp.int32), jnp.array([0, 1, 1, 0, 1])).tolist()
    [[0, 2], [1, 1]]
    """
    return table.at[ids[:-1], ids[1:]].add(1)


def log_probs(table: Array, smoothing: float) -> Array:
    """Return log P(w | v) with add-k smoothing, float32 [V, V].

    With `smoothing` 0, a pair that was never seen has -inf, and so has a row that was never seen. Nothing is NaN.
    """
    counts = table + smoothing
    totals = counts.sum(axis=1, keepdims=True)
    return jnp.log(counts) - jnp.log(jnp.where(totals > 0, totals, 1))


def own_law(course: Any, random: Any) -> Iterator[tuple[Any, Any]]:
    """A text read backwards has the transposed table.

    Write a law of your own for `fit` or `log_probs`, as in exercise 1. It must hold for a correct solution, and
    catch at least 3 of our wrong ones. How do the tables of two texts relate, or the rows of one table?
    """
    zeros = jnp.zeros((4, 4), jnp.int32)
    for length in (3, 12):
        ids = jnp.asarray(random.integers(0, 4, length))
        table = course.fit(course.fit(zeros, ids), ids)
        yield table.T, course.fit(course.fit(zeros, ids[::-1]), ids[::-1])
        yield 2 * (length - 1), table.sum()
