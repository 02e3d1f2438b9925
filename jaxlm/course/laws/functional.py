"""The laws of functional programming, for every pure function of exercises 1 to 6."""

import functools
import random as global_random
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import KeyReuseError

from jaxlm.course.law import TRACE_ERRORS, Comparisons, Implementation, Law, Random
from jaxlm.course.laws.neural import BIGRAM_SHAPES, MLP_SHAPES, N, draw_contexts, draw_params
from jaxlm.course.laws.sampling import look_up
from jaxlm.course.laws.training import draw_batch, table_model

Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function of arrays, and its arguments
TRACER_ADVICE = "this array is a tracer: under jit, NumPy and Python cannot read it; use jnp and .at[]"
V = 5


def pure_calls(exercise: int, course: Implementation, random: Random) -> list[Call]:
    """Return a call of each pure function of an exercise. Keys are made within the call, from two numbers."""
    ids = jnp.asarray(random.integers(0, V, 8), jnp.int32)
    table = jnp.asarray(random.integers(0, 9, (V, V)), jnp.int32)
    logits = jnp.asarray(random.normal(size=(4, V)), jnp.float32)
    params = {"table": logits[:, :4]}
    seed = jnp.asarray(random.integers(0, 2**31, 2), jnp.uint32)
    key = jax.random.wrap_key_data
    mlp, contexts = draw_params(random, MLP_SHAPES), draw_contexts(random, 3, N)
    predict = look_up(np.eye(V))
    match exercise:
        case 1:
            return [
                (lambda ids: course.windows(ids, 2), (ids,)),
                (lambda ids, seed: course.get_batch(ids, 2, 4, key=key(seed)), (ids, seed)),
            ]
        case 2:
            return [(course.fit, (table, ids)), (lambda table: course.log_probs(table, 0.5), (table,))]
        case 3:
            return [
                (lambda seed: course.init_bigram(V, 2, key=key(seed)), (seed,)),
                (lambda seed: course.init_mlp(V, N, 2, 4, key=key(seed)), (seed,)),
                (course.bigram_logits, (draw_params(random, BIGRAM_SHAPES), contexts[:, :1])),
                (course.mlp_logits, (mlp, contexts)),
            ]
        case 4:
            return [
                (course.token_nats, (logits[:2, :4], ids[:2] % 4)),
                (lambda ids, seed: course.sample(predict, ids[:, None], 4, key=key(seed)), (ids[:2], seed)),
            ]
        case 5:
            batch = draw_batch(jax.random.key(int(random.integers(1000))))
            return [
                (lambda params, *batch: course.train_step(table_model, params, batch, 0.5), (params, *batch)),
                (
                    lambda params, first, seed: course.train(
                        table_model, draw_batch, params, first, 4, 0.5, key=key(seed)
                    ),
                    (params, jnp.zeros((), jnp.int32), seed),
                ),
            ]
        case _:
            return [(course.unseen_pairs, (table, ids))]


def same_arguments_same_result(calls: list[Call], others: list[Call]) -> Comparisons:
    """The same arguments give the same result: no clock, file or global random numbers are read."""
    for function, arguments in calls:
        yield function(*arguments), function(*arguments)


def no_global_random_numbers(calls: list[Call], others: list[Call]) -> Comparisons:
    """No function seeds or draws global random numbers, neither NumPy's nor Python's."""
    for function, arguments in calls:
        before = str((np.random.get_state(), global_random.getstate()))  # noqa: NPY002
        jax.eval_shape(function, *arguments)
        is_same = before == str((np.random.get_state(), global_random.getstate()))  # noqa: NPY002
        yield "no global numbers", "no global numbers" if is_same else "global numbers were drawn or seeded"


def arguments_do_not_change(calls: list[Call], others: list[Call]) -> Comparisons:
    """A function leaves its arguments as they were: arrays, also as NumPy views, and dicts of parameters."""
    for function, arguments in calls:
        before = jax.tree.map(np.array, arguments)
        function(*arguments)
        yield before, arguments


def jit_changes_nothing(calls: list[Call], others: list[Call]) -> Comparisons:
    """A function gives the same result under `jax.jit`."""
    for function, arguments in calls:
        try:
            yield function(*arguments), jax.jit(function)(*arguments)
        except TRACE_ERRORS as error:
            raise TypeError(TRACER_ADVICE).with_traceback(error.__traceback__) from None


def vmap_is_a_loop(calls: list[Call], others: list[Call]) -> Comparisons:
    """`jax.vmap(f)(xs)[i]` is `f(xs[i])`."""
    for (function, arguments), (_, more) in zip(calls, others, strict=True):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), arguments, more)
        results, compiled = jax.jit(jax.vmap(function))(*stacked), jax.jit(function)
        for index, each in enumerate((arguments, more)):
            yield compiled(*each), jax.tree.map(lambda leaf, index=index: np.array(leaf)[index], results)


def keys_are_used_once(calls: list[Call], others: list[Call]) -> Comparisons:
    """No key is used twice: `split` it, or `fold_in` a number, to get new ones."""
    for function, arguments in calls:
        actual = "each key once"
        try:
            with jax.debug_key_reuse(True):
                jax.eval_shape(jax.jit(function), *arguments)
        except KeyReuseError:
            actual = "a key twice"
        yield "each key once", actual


def tracers_do_not_leak(calls: list[Call], others: list[Call]) -> Comparisons:
    """Nothing is stored outside of a function: no array of a trace outlives it."""
    for function, arguments in calls:
        with jax.checking_leaks():
            jax.eval_shape(function, *arguments)
        yield "no leak", "no leak"


def loops_are_not_unrolled(course: Implementation, random: Random, *, exercise: int) -> Comparisons:
    """The program does not grow with the number of steps: one `lax.scan`, not a Python loop."""

    def size(num_steps: int) -> int:
        def run(seed: Any) -> Any:
            key, params = jax.random.wrap_key_data(seed), {"table": jnp.zeros((4, 4))}
            if exercise == 4:
                return course.sample(look_up(np.eye(V)), jnp.array([[0]]), num_steps, key=key)
            return course.train(table_model, draw_batch, params, 0, num_steps, 0.5, key=key)

        return str(jax.make_jaxpr(run)(jnp.zeros(2, jnp.uint32))).count("\n")

    short, long = size(4), size(8)
    expected = f"{short} lines for 4 steps and for more"
    unrolled = f"{short} lines for 4 steps, {long} for more: a Python loop was unrolled"
    yield expected, expected if short == long else unrolled


def _make_law(check: Callable[[list[Call], list[Call]], Comparisons], exercise: int) -> Law:
    def run(course: Implementation, random: Random) -> Comparisons:
        return check(pure_calls(exercise, course, random), pure_calls(exercise, course, random))

    return Law(check.__name__, exercise, (check.__doc__ or "").strip(), run)


CHECKS = (
    same_arguments_same_result,
    no_global_random_numbers,
    arguments_do_not_change,
    jit_changes_nothing,
    vmap_is_a_loop,
    keys_are_used_once,
    tracers_do_not_leak,
)
LAWS = (
    *(_make_law(check, exercise) for exercise in range(1, 7) for check in CHECKS),
    *(
        Law(
            "loops_are_not_unrolled",
            exercise,
            loops_are_not_unrolled.__doc__ or "",
            functools.partial(loops_are_not_unrolled, exercise=exercise),
        )
        for exercise in (4, 5)
    ),
)
