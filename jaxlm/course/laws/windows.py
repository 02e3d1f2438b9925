"""The laws of exercise 1: windows and batches."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.course.law import Comparisons, Implementation, Random, make_laws, outcome


def every_window_once(course: Implementation, random: Random) -> Comparisons:
    """`windows` returns every context of the stream once, in order, the first and the last one too."""
    for length in (3, 6):
        ids = random.integers(0, 9, length)
        contexts, _ = course.windows(jnp.asarray(ids), 2)
        yield [ids[start : start + 2] for start in range(length - 2)], contexts


def target_follows(course: Implementation, random: Random) -> Comparisons:
    """The target of a window is the token that follows it."""
    for length in (3, 6):
        ids = random.integers(0, 9, length)
        yield ids[2:], course.windows(jnp.asarray(ids), 2)[1]


def windows_are_int32(course: Implementation, random: Random) -> Comparisons:
    """`windows` returns two JAX arrays, both int32."""
    pair = course.windows(jnp.asarray(random.integers(0, 9, 4), jnp.int32), 2)
    kinds = [str(array.dtype) if isinstance(array, jax.Array) else type(array).__name__ for array in pair]
    yield ["int32", "int32"], kinds


def short_streams(course: Implementation, random: Random) -> Comparisons:
    """N + 1 tokens hold one window; N tokens or less hold none, or are an error."""
    ids = jnp.asarray(random.integers(0, 9, 3))
    yield 1, len(course.windows(ids, 2)[1])
    for length in (2, 1):
        is_error = outcome(course.windows, ids[:length], 2) == "an error"
        yield 0, 0 if is_error else len(course.windows(ids[:length], 2)[1])


def batch_shapes(course: Implementation, random: Random) -> Comparisons:
    """A batch has contexts [B, N] and targets [B], both int32."""
    ids = jnp.asarray(random.integers(0, 9, 6), jnp.int32)
    for context_length in (1, 3):
        contexts, targets = course.get_batch(ids, context_length, 4, key=jax.random.key(0))
        yield ((4, context_length), (4,)), (contexts.shape, targets.shape)
        yield ("int32", "int32"), (str(contexts.dtype), str(targets.dtype))


def batch_holds_windows(course: Implementation, random: Random) -> Comparisons:
    """Each row of a batch is a window of the stream with the target that follows it, never past the end."""
    for seed in range(3):
        ids = random.permutation(5)
        contexts, targets = course.get_batch(jnp.asarray(ids), 2, 64, key=jax.random.key(seed))
        rows = np.column_stack([np.asarray(contexts), np.asarray(targets)]).tolist()
        windows = [ids[start : start + 3].tolist() for start in range(3)]
        yield [], [row for row in rows if row not in windows][:1]


def batch_reaches_every_window(course: Implementation, random: Random) -> Comparisons:
    """A batch can hold every window of the stream, the first and the last one too."""
    contexts, _ = course.get_batch(jnp.arange(6), 2, 256, key=jax.random.key(int(random.integers(1000))))
    yield [0, 1, 2, 3], sorted({*contexts[:, 0].tolist()})


def key_decides_the_batch(course: Implementation, random: Random) -> Comparisons:
    """The batch depends on the key: the same key draws it again, another key draws another one."""
    for seed in random.integers(1000, size=2).tolist():
        first, again, other = (
            course.get_batch(jnp.arange(50), 1, 16, key=jax.random.key(number))[1]
            for number in (seed, seed, seed + 1)
        )
        yield first, again
        yield "another batch", "the same batch" if (first == other).all() else "another batch"


LAWS = make_laws(
    1,
    every_window_once,
    target_follows,
    windows_are_int32,
    short_streams,
    batch_shapes,
    batch_holds_windows,
    batch_reaches_every_window,
    key_decides_the_batch,
)
