"""The laws of exercise 2: counting is a monoid, and smoothed counts are probabilities."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlm.course.law import Comparisons, Implementation, Random, make_laws, outcome

V = 4


def draw_ids(random: Random, length: int) -> Any:
    return jnp.asarray(random.integers(0, V, length), jnp.int32)


def count(course: Implementation, ids: Any) -> Any:
    return course.fit(jnp.zeros((V, V), jnp.int32), ids)


def every_pair_is_counted(course: Implementation, random: Random) -> Comparisons:
    """`table[v, w]` is how often w follows v, counted once for each time it occurs."""
    for length in (2, 6):
        ids, expected = draw_ids(random, length), np.zeros((V, V), int)
        for first, second in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
            expected[first, second] += 1
        yield expected, count(course, ids)
    yield "int32", str(count(course, ids).dtype)


def t_tokens_make_t_minus_1_pairs(course: Implementation, random: Random) -> Comparisons:
    """T tokens add T - 1 to the sum of the table; one token adds nothing, so fitting it is the identity."""
    table = jnp.asarray(random.integers(0, 5, (V, V)), jnp.int32)
    yield table, course.fit(table, jnp.array([1]))
    for length in (2, 6):
        yield length - 1, count(course, draw_ids(random, length)).sum()


def fit_adds(course: Implementation, random: Random) -> Comparisons:
    """`fit` adds to the table and does not replace it: fit(fit(0, a), b) = fit(0, a) + fit(0, b)."""
    for length in (2, 6):
        first, second = draw_ids(random, length), draw_ids(random, length)
        yield count(course, first) + count(course, second), course.fit(count(course, first), second)


def order_of_texts_does_not_matter(course: Implementation, random: Random) -> Comparisons:
    """The order in which texts are counted does not matter."""
    for length in (2, 6):
        first, second = draw_ids(random, length), draw_ids(random, length)
        yield course.fit(count(course, second), first), course.fit(count(course, first), second)


def pieces_share_a_token(course: Implementation, random: Random) -> Comparisons:
    """counts(a + b) = counts(a) + counts(last token of a, then b): the pair across the cut counts too."""
    for length in (3, 6):
        ids, cut = draw_ids(random, length), length // 2
        yield count(course, ids), count(course, ids[:cut]) + count(course, ids[cut - 1 :])


def renaming_permutes_the_table(course: Implementation, random: Random) -> Comparisons:
    """Renaming the tokens permutes the rows and the columns of the table, and changes nothing else."""
    for length in (2, 6):
        ids, names = draw_ids(random, length), random.permutation(V)
        renamed = count(course, jnp.asarray(names, jnp.int32)[ids])
        yield count(course, ids), np.asarray(renamed)[names][:, names]


def unknown_ids_do_not_count(course: Implementation, random: Random) -> Comparisons:
    """An id of V or more adds to no cell of the table, or is an error."""
    for ids in ([0, V], [0, V + 2, 1], [1, 0, V + 1]):
        stream = jnp.array(ids, jnp.int32)
        expected = int(ids[1] < V)
        is_error = outcome(count, course, stream) == "an error"
        yield expected, expected if is_error else count(course, stream).sum()


def smoothing_adds_k(course: Implementation, random: Random) -> Comparisons:
    """P(w | v) = (table[v, w] + k) / (sum of row v + k V), returned as logarithms."""
    for high, k in ((2, 1.0), (9, 0.5), (99, 0.01)):
        table = random.integers(0, high, (V, V))
        expected = np.log((table + k) / (table.sum(axis=1, keepdims=True) + k * V))
        yield expected, course.log_probs(jnp.asarray(table, jnp.int32), k)


def rows_are_probabilities(course: Implementation, random: Random) -> Comparisons:
    """The probabilities of each row add up to 1; a row without counts is uniform."""
    yield np.full((V, V), 1 / V), jnp.exp(course.log_probs(jnp.zeros((V, V), jnp.int32), 0.5))
    for k in (1.0, 0.01, 100.0):
        table = jnp.asarray(random.integers(0, 9, (V, V)), jnp.int32)
        yield np.ones(V), jnp.exp(course.log_probs(table, k)).sum(axis=1)


def unseen_is_minus_infinity(course: Implementation, random: Random) -> Comparisons:
    """With smoothing 0, an unseen pair has log-probability -inf, also in a row never seen, and nothing is NaN."""
    yield np.full((V, V), -np.inf), course.log_probs(jnp.zeros((V, V), jnp.int32), 0.0)
    table = np.diag(random.integers(1, 9, V))
    yield np.where(table, 0, -np.inf), course.log_probs(jnp.asarray(table, jnp.int32), 0.0)


LAWS = make_laws(
    2,
    every_pair_is_counted,
    t_tokens_make_t_minus_1_pairs,
    fit_adds,
    order_of_texts_does_not_matter,
    pieces_share_a_token,
    renaming_permutes_the_table,
    unknown_ids_do_not_count,
    smoothing_adds_k,
    rows_are_probabilities,
    unseen_is_minus_infinity,
)
