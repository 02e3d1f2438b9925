"""Stubs, the names of exercises, and the state of a student's file."""

import ast

import pytest

from jaxlm.course.exercises import (
    EXERCISES,
    count_answers,
    find_exercises,
    find_unwritten,
    is_unwritten,
    make_stub,
    read_hints,
    read_solution,
    read_student_readme,
)


@pytest.mark.parametrize("name", EXERCISES)
def test_make_stub_has_holes_and_no_answer(name):
    stub, solution = make_stub(name), read_solution(name)
    assert find_unwritten(stub) == [*EXERCISES[name], "own_law"]
    assert find_unwritten(solution) == []
    assert (count_answers(stub), count_answers(solution)) == (0, 3)
    assert (is_unwritten(name, stub), is_unwritten(name, solution)) == (True, False)
    assert "jaxlm" not in stub


def test_find_unwritten_of_a_function_that_ends_with_an_error():
    text = "def f(n):\n    if n:\n        return n\n    raise NotImplementedError\n"
    assert find_unwritten(text) == []
    assert find_unwritten(text.replace("    if n:\n        return n\n", "")) == ["f"]


@pytest.mark.parametrize("name", EXERCISES)
def test_make_stub_keeps_the_task(name):
    kept = {
        node.name: (ast.unparse(node.args), ast.get_docstring(node))
        for node in ast.parse(read_solution(name)).body
        if isinstance(node, ast.FunctionDef) and node.name != "own_law"
    }
    functions = [node for node in ast.parse(make_stub(name)).body if isinstance(node, ast.FunctionDef)]
    assert {node.name: (ast.unparse(node.args), ast.get_docstring(node)) for node in functions[:-1]} == kept
    assert ast.get_docstring(functions[-1]).startswith("State your law in this sentence.\n\nWrite a law")
    assert {ast.unparse(node.body[1:]) for node in functions} == {"raise NotImplementedError"}


def test_make_stub_of_a_later_exercise_imports_the_earlier_one():
    assert "\nfrom ex1_windows import windows\n" in make_stub("ex4_sampling")


@pytest.mark.parametrize(
    ("words", "numbers"),
    [(["3"], [3]), (["1-3"], [1, 2, 3]), (["7", "ex2_counts"], [2, 7]), (["a/ex1_windows.py"], [1]), ([], [])],
)
def test_find_exercises(words, numbers):
    assert find_exercises(words) == [list(EXERCISES)[number - 1] for number in numbers]


@pytest.mark.parametrize("word", ["8", "0", "ex9", "3-", ""])
def test_find_exercises_of_an_unknown_word(word):
    with pytest.raises(ValueError, match="an exercise must be a number from 1 to 7"):
        find_exercises([word])


@pytest.mark.parametrize("name", EXERCISES)
def test_read_hints_has_three_steps(name):
    hints = read_hints(name)
    assert len(hints) == 3
    assert all(len(hint) > 99 for hint in hints)


def test_student_readme_has_no_teachers_part():
    text = read_student_readme()
    assert "jaxlm course check" in text
    assert "rubric" not in text
