"""The files of the seven exercises: solutions, the stubs that are cut from them, and hints."""

import ast
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

# The file of each exercise, and its functions in the order of `law.Implementation`.
EXERCISES = {
    "ex1_windows": ("windows", "get_batch"),
    "ex2_counts": ("fit", "log_probs"),
    "ex3_neural": ("init_bigram", "bigram_logits", "init_mlp", "mlp_logits"),
    "ex4_sampling": ("token_nats", "perplexity", "sample"),
    "ex5_training": ("train_step", "train"),
    "ex6_reading": ("repeated_ngrams", "unseen_pairs", "made_up_words"),
    "ex7_curves": ("record_curves", "plot_curves"),
}
# The other exercises that the file of an exercise or its laws call.
USED = {
    "ex4_sampling": ["ex1_windows"],
    "ex5_training": ["ex1_windows", "ex3_neural", "ex4_sampling"],
}
COURSE = Path(__file__).parent
SOLUTIONS = COURSE / "solutions"
SOLUTIONS_PACKAGE = "jaxlm.course.solutions."
_ANSWER = re.compile(r"^( *>) .*$", re.MULTILINE)


def find_exercises(words: Iterable[str]) -> list[str]:
    """Return the names of exercises given as `3`, `1-3`, `ex3_neural` or `ex3_neural.py`, in their order.

    >>> find_exercises(["2-3", "ex1_windows.py"])
    ['ex1_windows', 'ex2_counts', 'ex3_neural']
    """
    names, found = list(EXERCISES), set()
    for word in words:
        numbers = re.fullmatch(r"([1-7])(?:-([1-7]))?", word)
        if numbers:
            found |= set(range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1))
        elif (name := Path(word).name.removesuffix(".py")) in names:
            found.add(names.index(name) + 1)
        else:
            raise ValueError(f"an exercise must be a number from 1 to 7, a range or a file's name, got {word}")
    return [names[number - 1] for number in sorted(found)]


def number_of(name: str) -> int:
    """Return the number of an exercise, from 1 to 7."""
    return list(EXERCISES).index(name) + 1


def read_solution(name: str) -> str:
    """Return our solution of an exercise as a file of its own, which imports from the other exercises."""
    return (SOLUTIONS / f"{name}.py").read_text("utf-8").replace(f"from {SOLUTIONS_PACKAGE}", "from ")


def make_stub(name: str) -> str:
    """Return the file that a student starts from: the solution without answers, bodies and our law.

    The body of each function, after its docstring, becomes `raise NotImplementedError`.
    """
    text = read_solution(name)
    lines = text.splitlines()
    for node in reversed(ast.parse(text).body):
        if isinstance(node, ast.FunctionDef):
            docstring = node.body[0]
            lines[docstring.end_lineno : node.end_lineno] = ["    raise NotImplementedError"]
            if node.name == "own_law":
                end_of_statement = lines.index("", docstring.lineno)
                lines[docstring.lineno - 1 : end_of_statement] = ['    """State your law in this sentence.']
    _, introduction, code = "\n".join(lines).split('"""', 2)
    return '"""'.join(["", _ANSWER.sub(r"\1", introduction), code]) + "\n"


def find_unwritten(text: str) -> list[str]:
    """Return the functions of a file that only raise a NotImplementedError. Raise a SyntaxError for other text."""
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return [
        node.name
        for node in functions
        if ast.unparse(node.body[-1]).startswith("raise NotImplementedError")
        and all(isinstance(statement, ast.Expr) for statement in node.body[:-1])  # a docstring
    ]


def is_unwritten(name: str, text: str) -> bool:
    """Return whether an exercise's file is the stub, apart from answers to its questions."""
    return _ANSWER.sub(r"\1", text) == make_stub(name)


def count_answers(text: str) -> int:
    """Return how many questions of a file have an answer after their `>`."""
    return len(_ANSWER.findall(text.split('"""')[1])) if '"""' in text else 0


def read_hints(name: str) -> list[str]:
    """Return the three hints of an exercise, from a first idea to almost the code."""
    hints: list[str] = tomllib.loads((COURSE / "hints.toml").read_text("utf-8"))[name]
    return hints


def read_student_readme() -> str:
    """Return the part of README.md that is for students."""
    return (COURSE / "README.md").read_text("utf-8").partition("\n## For teachers")[0]
