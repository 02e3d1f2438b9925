"""Three correct implementations keep every law, and each wrong one breaks the law that names its fault."""

import ast
import dataclasses
from collections import Counter
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from course_behaviors import BEHAVIORS
from course_implementations import load_jaxlm, load_reference

from jaxlm.course.exercises import EXERCISES
from jaxlm.course.implementations import load_solutions
from jaxlm.course.law import find_failure, is_equal, make_laws, show
from jaxlm.course.laws import LAWS
from jaxlm.course.wrong import load_wrong, read_wrong

NUMBERS = {name: number for number, name in enumerate(EXERCISES, 1)}
FAULTS = [(name, wrong) for name in EXERCISES for wrong in read_wrong(name)]
TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _as_a_student_runs_it():
    """The judge runs without the strict flags of `conftest.py`."""
    with jax.debug_key_reuse(False), jax.numpy_rank_promotion("allow"):
        yield


def law_named(exercise, name):
    return next(law for law in LAWS if (law.exercise, law.name) == (exercise, name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "load", [pytest.param(load_solutions, marks=pytest.mark.stress), load_reference, load_jaxlm]
)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{law.exercise}-{law.name}")
def test_correct_implementation_keeps_the_law(law, load):
    assert find_failure(law.check, load()) is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wrong"), FAULTS, ids=[f"{name}-{wrong.fault}" for name, wrong in FAULTS])
def test_wrong_implementation_breaks_its_law(name, wrong):
    failure = find_failure(
        law_named(NUMBERS[name], wrong.caught_by).check, load_wrong(name, wrong, load_solutions())
    )
    assert failure is not None
    assert failure.expected != failure.actual
    assert "not judged" not in failure.actual


@pytest.mark.slow
@pytest.mark.parametrize("name", EXERCISES)
def test_own_law_of_the_solution_catches_three_faults(name):
    own_law = import_module(f"jaxlm.course.solutions.{name}").own_law
    for load in (load_solutions, load_jaxlm):
        assert find_failure(own_law, load()) is None
    caught = [
        wrong for wrong in read_wrong(name) if find_failure(own_law, load_wrong(name, wrong, load_solutions()))
    ]
    assert len(caught) >= 3


def test_each_exercise_has_enough_wrong_implementations():
    counts = Counter(name for name, _ in FAULTS)
    assert min(counts[name] for name in EXERCISES) >= 4
    assert len(FAULTS) >= 40


def test_laws_have_sentences_and_distinct_names():
    assert all(law.sentence.endswith(".") for law in LAWS)
    assert max(Counter((law.exercise, law.name) for law in LAWS).values()) == 1


def test_every_behavior_of_the_course_has_a_law():
    marked = [
        f"{path.stem.removeprefix('test_')}.{node.name.removeprefix('test_')}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and "pytest.mark.course" in map(ast.unparse, node.decorator_list)
    ]
    assert sorted(BEHAVIORS) == sorted(marked)
    assert len(marked) == 48
    assert {law for laws in BEHAVIORS.values() for law in laws} <= {(law.exercise, law.name) for law in LAWS}


def stub(*args, **kwargs):
    raise NotImplementedError


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"{law.exercise}-{law.name}")
def test_stubs_keep_no_law(law):
    course = load_solutions()
    failure = find_failure(law.check, type(course)(*[stub] * len(course)))
    assert failure.actual == "not written yet"


def test_failure_shows_the_smallest_input():
    def doubled(course, random):
        """A token is repeated."""
        for number in range(5):
            yield number, course.windows(number)

    failure = find_failure(doubled, load_solutions()._replace(windows=lambda number: min(number, 2)))
    assert failure == ("windows(3)", "3", "2")
    assert make_laws(1, doubled)[0][:3] == ("doubled", 1, "A token is repeated.")


def test_check_without_a_comparison_fails():
    assert find_failure(lambda course, random: iter(()), load_solutions()).actual == "none"


def test_exception_is_a_failure_with_its_message():
    def leave(course, random):
        yield 0, course.windows([1])

    def exit_at_once(ids):
        raise SystemExit(0)

    failure = find_failure(leave, load_solutions()._replace(windows=exit_at_once))
    assert failure == ("windows([1])", "no exception", "SystemExit: 0")


def test_function_of_numpy_fails_under_jit_only():
    def fit(table, ids):
        return jnp.asarray(np.asarray(table)).at[ids[:-1], ids[1:]].add(1)

    course = load_solutions()._replace(fit=fit)
    failures = {law.name: find_failure(law.check, course) for law in LAWS if law.exercise == 2}
    unjudged = {name for name, failure in failures.items() if failure and "not judged" in failure.actual}
    assert unjudged == {
        "no_global_random_numbers",
        "vmap_is_a_loop",
        "keys_are_used_once",
        "tracers_do_not_leak",
    }
    assert {name for name, failure in failures.items() if failure} == {*unjudged, "jit_changes_nothing"}
    assert failures["jit_changes_nothing"].actual.startswith("TypeError: this array is a tracer: under jit")


@dataclasses.dataclass
class Agreeable:
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        ([1, 2], jnp.array([1, 2]), True),
        ([1, 2], jnp.array([1, 3]), False),
        (1.0, 1.0 + 1e-6, True),
        (1.0, 1.1, False),
        (jnp.nan, jnp.nan, False),
        (-jnp.inf, jnp.array(-jnp.inf), True),
        ([1], 1, False),
        ({"a": 1}, {"b": 1}, False),
        ((1, [2]), (1, [2]), True),
        ([1, 2.5], (1, 2.5), True),
        ([1, [2, "a"]], (1, (2, "a")), True),
        ([1, "a"], [1, "b"], False),
        ([], (), True),
        ([jnp.arange(2)], [[0, 1]], True),
        (1, Agreeable(), False),
        ("an error", "no error", False),
    ],
)
def test_is_equal(expected, actual, equal):
    assert is_equal(expected, actual) == equal


@pytest.mark.parametrize(
    ("value", "remedy"), [({1}, "sets cannot .* sorted"), (None, "NoneTypes cannot .* lists")]
)
def test_is_equal_of_another_type(value, remedy):
    for expected in (value, [1, value], {"a": value}):
        with pytest.raises(TypeError, match=remedy):
            is_equal(expected, expected)
    assert not is_equal(1, value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (jnp.array([[1, 2], [3, 4]]), "[[1, 2], [3, 4]]"),
        (jnp.zeros((9, 9)), "float32[9, 9]"),
        ({"a": (1, "b")}, "{a: (1, 'b')}"),
        (jax.random.key(3), "key [0, 3]"),
        (np.float64(1) / 3, "0.333333"),
        ({"a": np.zeros(9)}, "{a: float64[9]}"),
        (stub, "stub"),
        ([[1], [1, 2]], "([1], [1, 2])"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_show(value, text):
    assert show(value, 16) == text
