"""The course's walk as a notebook, and the functions that it works on."""

import functools
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxlm.course.exercises import EXERCISES, read_solution
from jaxlm.course.judge import Report, judge_exercises

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxlm.course.law import Implementation


def to_ipynb(script: str) -> str:
    """Return a script in py:percent form as a Jupyter notebook."""
    cells = [_make_cell(*part.split("\n", 1)) for part in script.split("# %%")[1:]]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(notebook, indent=1) + "\n"


def _make_cell(kind: str, content: str) -> dict[str, Any]:
    lines = content.strip("\n").splitlines(keepends=True)
    if kind.strip() == "[markdown]":
        source = [line.removeprefix("#").removeprefix(" ") for line in lines]
        return {"cell_type": "markdown", "metadata": {}, "source": source}
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": lines}


def load_passing(folder: Path) -> "Implementation":
    """Judge the exercises of a folder. Return the student's functions where they pass, else our solutions.

    An exercise passes here if all laws but the student's own hold. Prints which functions are used. Modules of the
    exercises become importable, so call it once in a process. Host function; not for use inside `jit`.
    """
    from jaxlm.course.implementations import SourceFinder, build_implementation

    sources = {}
    for report in judge_exercises(folder, list(EXERCISES)):
        name = report.exercise
        is_own = _has_functions(report)
        sources[name] = Path(report.file).read_text("utf-8") if is_own else read_solution(name)
        print(f"{name}: {'your functions' if is_own else 'our functions, until yours pass'}")
    sys.meta_path.insert(0, SourceFinder(sources))
    return build_implementation(functools.cache(importlib.import_module))


def _has_functions(report: Report) -> bool:
    rows = [row for row in report.rows if row["law"] != "own_law"]
    return report.problem is None and bool(rows) and all(row["passed"] is True for row in rows)


def load_text(folder: Path) -> tuple[str, int]:
    """Return a text to train on, and how many tokens its vocabulary may have.

    It is the corpus `tinyshakespeare` if that is in the cache, else the files of the course in `folder`.
    """
    from jaxlm.text.corpora import cached_corpus_path, load_corpus

    if cached_corpus_path("tinyshakespeare").exists():
        return load_corpus("tinyshakespeare").text, 4096
    paths = [folder / "README.md", *(folder / f"{name}.py" for name in EXERCISES)]
    return "\n".join(path.read_text("utf-8") for path in paths if path.exists()), 512


def show_picture(figure: "Figure", name: str) -> None:
    """Write a figure to `pictures/`, and display it if this is a notebook."""
    path = Path("pictures", f"{name}.png")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=100)
    if "ipykernel" in sys.modules:
        ipython = importlib.import_module("IPython.display")
        ipython.display(ipython.Image(filename=path))
    print(path)


def side_by_side(texts: dict[str, str], width: int = 36, height: int = 12) -> Iterator[str]:
    """Yield the lines of a table with one column for each text."""
    columns = {
        name: [line[i : i + width] for line in text.splitlines() for i in range(0, max(len(line), 1), width)]
        for name, text in texts.items()
    }
    yield " | ".join(f"{name:{width}}" for name in texts)
    for row in range(height):
        yield " | ".join(f"{(column[row] if row < len(column) else ''):{width}}" for column in columns.values())
