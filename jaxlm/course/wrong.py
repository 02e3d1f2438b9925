"""Wrong implementations: a solution with one fault each, from `wrong.toml`."""

import tomllib
from pathlib import Path
from typing import NamedTuple

from jaxlm.course.exercises import EXERCISES, SOLUTIONS
from jaxlm.course.implementations import load_source
from jaxlm.course.law import Implementation


class Wrong(NamedTuple):
    """A fault: in the text of a solution, `old` becomes `new`. At least the law `caught_by` fails."""

    fault: str
    caught_by: str
    old: str
    new: str


def read_wrong(name: str) -> list[Wrong]:
    """Return the faults of an exercise."""
    faults = tomllib.loads(Path(__file__).with_name("wrong.toml").read_text("utf-8"))
    return [Wrong(**fault) for fault in faults[name]]


def load_wrong(name: str, wrong: Wrong, solutions: Implementation) -> Implementation:
    """Return `solutions` with one fault in an exercise."""
    text = (SOLUTIONS / f"{name}.py").read_text("utf-8")
    assert wrong.old in text, wrong
    module = load_source(name, text.replace(wrong.old, wrong.new))
    return solutions._replace(**{function: getattr(module, function) for function in EXERCISES[name]})
