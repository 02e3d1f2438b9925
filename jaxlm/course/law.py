"""A law is a property of every correct implementation. Check one, and find the smallest input that breaks it."""

import itertools
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Function = Callable[..., Any]
TRACE_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
NOT_JUDGED = "not judged: needs jit"
_LIBRARIES = {"builtins", "numpy", "jax", "jaxlib", "matplotlib"}  # whose types a result may have
MAX_COMPARISONS = 200  # of one law, so that a law of a student ends


class Implementation(NamedTuple):
    """The functions of all exercises. Whatever has these functions can be judged."""

    windows: Function
    get_batch: Function
    fit: Function
    log_probs: Function
    init_bigram: Function
    bigram_logits: Function
    init_mlp: Function
    mlp_logits: Function
    token_nats: Function
    perplexity: Function
    sample: Function
    train_step: Function
    train: Function
    repeated_ngrams: Function
    unseen_pairs: Function
    made_up_words: Function
    record_curves: Function
    plot_curves: Function


Random = np.random.Generator
Comparisons = Iterator[tuple[Any, Any]]  # expected and actual values, from the smallest input to the largest
Check = Callable[[Implementation, Random], Comparisons]


class Law(NamedTuple):
    """A property of an exercise's functions. The sentence states it for the student."""

    name: str
    exercise: int
    sentence: str
    check: Check


class Failure(NamedTuple):
    """The first comparison of a law that fails: the calls that lead to it, and both values."""

    calls: str
    expected: str
    actual: str


def make_laws(exercise: int, *checks: Check) -> tuple[Law, ...]:
    """Return a law for each check, with its name and its docstring as the sentence."""
    return tuple(Law(check.__name__, exercise, (check.__doc__ or "").strip(), check) for check in checks)


def find_failure(check: Check, course: Implementation, seed: int = 0) -> Failure | None:
    """Return the first failure of a check, or None if the law holds.

    A function that is not written yet, an exception and a check without comparisons are failures too. If a
    function cannot be traced, the law is not judged: only `jit_changes_nothing` is about that.
    """
    calls: list[str] = []
    unfinished: list[str] = []
    functions = course._asdict().items()
    recorded = Implementation(*(_record(function, name, calls, unfinished) for name, function in functions))
    shown, number = "", 0
    try:
        comparisons = check(recorded, np.random.default_rng(seed))
        for expected, actual in itertools.islice(comparisons, MAX_COMPARISONS):
            number += 1
            shown = "; ".join(calls) or shown
            calls.clear()
            if unfinished:
                break
            if not is_equal(expected, actual):
                return Failure(shown, show(expected), show(actual))
    except (Exception, SystemExit) as error:
        if not unfinished:
            if isinstance(error, TRACE_ERRORS):
                return Failure("", "a function that can be traced", NOT_JUDGED + _line_of(error))
            return Failure("; ".join(calls[-1:]) or shown, "no exception", describe_error(error))
    if unfinished:
        return Failure("", f"the function {unfinished[0]}", "not written yet")
    return None if number else Failure("", "at least one comparison", "none")


def _record(function: Function, name: str, calls: list[str], unfinished: list[str]) -> Function:
    """Wrap `function`: append its calls outside of a trace to `calls`, and its unwritten name to `unfinished`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            shown = [show(value, 16) for value in args] + [f"{key}={show(value)}" for key, value in kwargs.items()]
            calls.append(f"{name}({', '.join(shown)})")
        try:
            result = function(*args, **kwargs)
            for leaf in jax.tree.leaves(result):  # whose own `==` could agree with everything
                if type(leaf).__module__.partition(".")[0] not in _LIBRARIES:
                    raise TypeError(
                        f"a result must consist of arrays, numbers and strings, got {type(leaf).__name__}"
                    )
            return result
        except NotImplementedError as error:
            frames = _frames_of_exercises(error)
            # The innermost one: the function may call one that is not written.
            unfinished.append(frames[-1].name if frames else name)
            raise

    return call


def describe_error(error: BaseException) -> str:
    """Return the exception, and the last line of an exercise that it passed through."""
    message = (str(error).strip() or "without a message").splitlines()[0]
    return f"{type(error).__name__}: {message[:200]}{_line_of(error)}"


def _line_of(error: BaseException) -> str:
    """Return the last line of an exercise that an exception passed through, in parentheses, or ""."""
    frames = _frames_of_exercises(error)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _frames_of_exercises(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of a traceback that are in the file of an exercise."""
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    return [frame for frame in frames if frame.filename.startswith("ex")]


def is_equal(expected: Any, actual: Any) -> bool:
    """Return whether two trees are equal: integers and strings exactly, floats up to rounding.

    A list, a tuple and an array with the same content are equal. Raise a TypeError if `expected` has other values.
    """
    expected, actual = _as_arrays(expected), _as_arrays(actual)
    if type(expected) is not type(actual):
        return False
    if isinstance(expected, dict):
        return expected.keys() == actual.keys() and all(is_equal(expected[key], actual[key]) for key in expected)
    if isinstance(expected, tuple):
        return len(expected) == len(actual) and all(map(is_equal, expected, actual))
    if expected.dtype.kind == "O":
        name, is_set = type(expected.flat[0]).__name__, isinstance(expected.flat[0], set | frozenset)
        remedy = "sorted(...)" if is_set else "numbers, strings, arrays, lists, tuples and dicts"
        raise TypeError(f"{name}s cannot be compared; use {remedy}")
    if expected.shape != actual.shape or actual.dtype.kind == "O":
        return False
    if "f" in expected.dtype.kind + actual.dtype.kind and "U" not in expected.dtype.kind + actual.dtype.kind:
        return bool(np.allclose(expected, actual, rtol=1e-4, atol=1e-5))
    return bool((expected == actual).all())


def _as_arrays(tree: Any) -> Any:
    """Return a tree of dicts, tuples and NumPy arrays, so that NumPy, not the value, decides on equality."""
    if isinstance(tree, dict):
        return {str(key): _as_arrays(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        items = tuple(map(_as_arrays, tree))
        kinds = {
            (item.shape, "number" if item.dtype.kind in "biuf" else item.dtype.kind)
            if isinstance(item, np.ndarray)
            else None
            for item in items
        }
        return items if len(kinds) > 1 or None in kinds else np.array(items)
    return np.array(tree)


def show(value: Any, max_size: int = 64) -> str:
    """Return a value in one short line: of an array with more than `max_size` elements its type and shape.

    Floats are longer, so half as many are shown. A list with items of several shapes is shown as a tuple.
    """
    if isinstance(value, list):
        value = _as_arrays(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {show(item, max_size)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(show(item, max_size) for item in value) + ")"
    if callable(value):
        return getattr(value, "__name__", "a function").replace("<lambda>", "a function")
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"key {jax.random.key_data(value).tolist()}"
    if isinstance(value, float):
        return repr(float(f"{value:.6g}"))
    if isinstance(value, str | int):
        return repr(value)
    array = np.array(value)
    if array.size > (max_size // 2 if array.dtype.kind == "f" else max_size):
        return f"{array.dtype}{list(array.shape)}"
    return " ".join(np.array2string(array, precision=4, separator=", ").split())


def outcome(function: Function, *args: Any, error: type[Exception] = Exception) -> str:
    """Return the name of the exception that a call raises, or "no error". Any subclass of `error` has its name."""
    try:
        function(*args)
    except error:
        return "an error" if error is Exception else error.__name__
    except Exception as other:
        return type(other).__name__
    return "no error"


def snap(actual: Any, expected: Any, tolerance: float) -> Any:
    """Return `actual`, with `expected` in each place where they differ by at most `tolerance`."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return np.where(abs(actual - expected) <= tolerance, expected, actual)
