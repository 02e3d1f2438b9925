"""Judge one exercise. `judge.py` runs this module in a process of its own.

The request comes from standard input. Messages go to what was standard output at the start: the name of what is
judged next, and at the end the result.
"""

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Generator, Iterator
from typing import Any

from jaxlm.course.exercises import EXERCISES, SOLUTIONS_PACKAGE, number_of
from jaxlm.course.guard import Definition, find_change, limit_resources, list_definitions, refuse_access
from jaxlm.course.implementations import SourceFinder, build_implementation, load_source
from jaxlm.course.law import Check, Comparisons, Failure, Implementation, Law, Random, describe_error, find_failure
from jaxlm.course.laws import LAWS
from jaxlm.course.wrong import load_wrong, read_wrong
from jaxlm.utils.compilation_cache import enable_compilation_cache

MAX_RETRIES = 3  # laws that are checked again with our other exercises
REQUIRED_CATCHES = 3  # wrong implementations that a student's law must catch
_NOT_COMPARED = {  # what failures without a comparison expect
    "no exception",
    "at least one comparison",
    "the function own_law",
    "a function that can be traced",
}


def main() -> None:
    """Read the request, judge, and send messages, each signed with the request's secret."""
    request = json.loads(sys.stdin.buffer.read())
    secret, sha256 = request.pop("secret"), hashlib.sha256  # bound here: a patched `sha256` would see the secret
    result_pipe = os.dup(1)
    os.dup2(2, 1)  # what the student prints goes to the log
    limit_resources(*request.pop("limits"))
    enable_compilation_cache()
    for message in _judge(**request):
        line = f"{sha256((secret + message).encode()).hexdigest()} {message}\n".encode()
        while line:
            line = line[os.write(result_pipe, line) :]
    os._exit(0)  # run no exit function of the student


def _judge(name: str, sources: dict[str, str], used: dict[str, str], seed: int, extra_laws: str) -> Iterator[str]:
    """Yield what is judged next. At the end, yield the rows of all laws of an exercise, or the problem, as JSON.

    `used` holds our solutions of the student's other exercises that this one uses. The first laws that fail are
    checked again with them: "borrow" in the row of a law that then holds has their names.
    """
    needed = [other for other in EXERCISES if other != "ex7_curves" or name == other]  # it imports matplotlib
    modules = {other: importlib.import_module(SOLUTIONS_PACKAGE + other) for other in needed}
    solutions = build_implementation(modules.__getitem__)
    wrongs = [load_wrong(name, wrong, solutions) for wrong in read_wrong(name)]
    laws: list[Law] = [law for law in LAWS if law.exercise == number_of(name)]
    if extra_laws:
        laws += [law for law in load_source("extra_laws", extra_laws).LAWS if law.exercise == number_of(name)]
    definitions = list_definitions()
    sys.meta_path.insert(0, SourceFinder(sources))
    refuse_access()
    yield f"the import of {name}.py"
    try:
        own_law = getattr(importlib.import_module(name), "own_law", None)
    except BaseException as error:  # also SystemExit
        yield _to_json([], f"{name}.py cannot be imported: {describe_error(error)}", definitions)
        return
    course, rows = build_implementation(importlib.import_module), []
    for law in laws:
        yield law.name
        rows.append(_row(law.name, law.sentence, find_failure(law.check, course, seed)))
    failing = [(law, row) for law, row in zip(laws, rows, strict=True) if not row["passed"]]
    if failing and used:
        sources |= used  # SourceFinder reads it
        for other in (name, *used):
            sys.modules.pop(other, None)
        for law, row in failing[:MAX_RETRIES]:
            yield law.name
            if find_failure(law.check, course, seed) is None:
                row["borrow"] = list(used)
    rows.append((yield from _judge_own_law(own_law, solutions, wrongs, seed)))
    yield _to_json(rows, None, definitions)


def _to_json(rows: list[dict[str, Any]], problem: str | None, definitions: list[Definition]) -> str:
    """Return the result, without rows if the student's code has changed a definition, such as `json.dumps`."""
    if changed := find_change(definitions):
        return f'{{"rows": [], "problem": "an exercise must not change {changed}"}}'
    return json.dumps({"rows": rows, "problem": problem})


def _judge_own_law(
    own_law: Check | None, solutions: Implementation, wrongs: list[Implementation], seed: int
) -> Generator[str, None, dict[str, Any]]:
    """Yield "own_law" before each check of the student's law, and return its row.

    The law is accepted if our solution keeps it and enough wrong implementations break it.
    """
    sentence = f"Your law holds for a correct solution, and catches at least {REQUIRED_CATCHES} wrong ones."
    if own_law is None:
        return _row("own_law", sentence, Failure("", "the function own_law", "not defined"))

    def check(course: Implementation, random: Random) -> Comparisons:
        comparisons = own_law(course, random)
        if not isinstance(comparisons, Iterator):
            raise TypeError("own_law must `yield` pairs (expected, actual)")
        for pair in comparisons:
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise TypeError("own_law must `yield` pairs (expected, actual)")
            yield pair

    yield "own_law"
    failure = find_failure(check, solutions, seed)
    if failure and failure.actual.startswith("NotImplementedError"):
        failure = Failure("", "the function own_law", "not written yet")
    caught = 0
    for faulty in wrongs:
        if failure or caught == REQUIRED_CATCHES:
            break
        yield "own_law"
        caught += find_failure(check, faulty, seed) is not None
    yield "own_law"
    failure = failure or find_failure(check, solutions, seed)  # again, in case that the law counts its calls
    if failure and failure.expected not in _NOT_COMPARED:
        sentence = "Your law is false for a correct solution."
    if not failure and caught < REQUIRED_CATCHES:
        failure = Failure(
            "", f"at least {REQUIRED_CATCHES} of {len(wrongs)} wrong ones caught", f"{caught} caught"
        )
    return _row("own_law", sentence, failure)


def _row(name: str, sentence: str, failure: Failure | None) -> dict[str, Any]:
    details = failure._asdict() if failure else None
    return {"law": name, "sentence": sentence, "passed": failure is None, "failure": details}
