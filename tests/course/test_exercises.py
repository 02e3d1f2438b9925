"""Stubs, the names of exercises, and the state of a student's file."""

import ast

import pytest

from jaxlm.course.exercises import (
    EXERCISES,
    count_answers,
    find_exercises,
    find_unwritten,
    read_hints,
    solution_text,
    stub_text,
    student_readme,
)


@pytest.mark.parametrize("name", EXERCISES)
def test_stub_text_has_holes_and_no_answer(name):
    stub, solution = stub_text(name), solution_text(name)
    assert find_unwritten(stub) == [*EXERCISES[name], "own_law"]
    assert find_unwritten(solution) == []
    assert (count_answers(stub), count_answers(solution)) == (0, 3)
    assert "jaxlm" not in stub


@pytest.mark.parametrize("name", EXERCISES)
def test_stub_text_keeps_the_task(name):
    kept = {
        node.name: (ast.unparse(node.args), ast.get_docstring(node))
        for node in ast.parse(solution_text(name)).body
        if isinstance(node, ast.FunctionDef) and node.name != "own_law"
    }
    functions = [node for node in ast.parse(stub_text(name)).body if isinstance(node, ast.FunctionDef)]
    assert {node.name: (ast.unparse(node.args), ast.get_docstring(node)) for node in functions[:-1]} == kept
    assert ast.get_docstring(functions[-1]).startswith("State your law in this sentence.\n\nWrite a law")
    assert {ast.unparse(node.body[1:]) for node in functions} == {"raise NotImplementedError"}


def test_stub_text_of_a_later_exercise_imports_the_earlier_one():
    assert "\nfrom ex1_windows import windows\n" in stub_text("ex4_sampling")


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
    text = student_readme()
    assert "jaxlm course check" in text
    assert "rubric" not in text
