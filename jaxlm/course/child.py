"""Judge one exercise. `judge.py` runs this module in a process of its own.

The request comes from standard input, and one result goes to what was standard output at the start.
"""

import contextlib
import importlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from typing import Any, final

from jaxlm.course.exercises import COURSE, EXERCISES, SOLUTIONS_PACKAGE, number_of
from jaxlm.course.implementations import SourceFinder, build_implementation, load_source
from jaxlm.course.law import Check, Comparisons, Failure, Implementation, Law, Random, describe_error, find_failure
from jaxlm.course.laws import LAWS
from jaxlm.course.wrong import Wrong, load_wrong, read_wrong
from jaxlm.utils.compilation_cache import enable_compilation_cache

MAX_RETRIES = 3  # laws that are checked again with our other exercises
_NO_COMPARISON = (
    "no exception",
    "at least one comparison",
    "the function own_law",
    "a function that can be traced",
)
REQUIRED_CATCHES = 3  # wrong implementations that a student's law must catch
_FORBIDDEN = (
    "subprocess.",
    "os.fork",
    "os.posix_spawn",
    "os.system",
    "os.exec",
    "os.kill",
    "socket.",
    "ctypes.dl",
)


def main() -> None:
    """Read the request, judge, and write the result with the request's nonce."""
    # Bound here, so that a student's file cannot replace them.
    dumps, write, end_process = json.dumps, os.write, os._exit
    request = json.loads(sys.stdin.buffer.read())
    nonce = request.pop("nonce")
    result_pipe = os.dup(1)
    os.dup2(2, 1)  # what the student prints goes to the log
    _limit_resources(**request.pop("limits"))
    enable_compilation_cache()
    content = dumps({"nonce": nonce} | _judge(**request)).encode()
    while content:
        content = content[write(result_pipe, content) :]
    end_process(0)  # run no exit function of the student


def _judge(name: str, sources: dict[str, str], used: dict[str, str], seed: int, extra_laws: str) -> dict[str, Any]:
    """Return the rows of all laws of an exercise and the reason, if any, why the result does not count.

    `used` holds our solutions of the student's other exercises that this one uses. The first laws that fail are
    checked again with them: "borrow" in the row of a law that then holds has their names.
    """
    needed = [other for other in EXERCISES if other != "ex7_curves" or name == other]  # which imports matplotlib
    modules = {other: importlib.import_module(SOLUTIONS_PACKAGE + other) for other in needed}
    solutions = build_implementation(modules.__getitem__)
    wrongs = [(wrong, load_wrong(name, wrong, solutions)) for wrong in read_wrong(name)]
    laws: list[Law] = [law for law in LAWS if law.exercise == number_of(name)]
    if extra_laws:
        laws += [law for law in load_source("extra_laws", extra_laws).LAWS if law.exercise == number_of(name)]
    sys.meta_path[:0] = [SourceFinder(sources), _Refuser()]
    _guard()
    try:
        own_law = getattr(importlib.import_module(name), "own_law", None)
    except BaseException as error:  # also SystemExit
        return {"rows": [], "problem": f"{name}.py cannot be imported: {describe_error(error)}"}
    course = build_implementation(importlib.import_module)
    rows = [_row(law.name, law.sentence, find_failure(law.check, course, seed)) for law in laws]
    failing = [(law, row) for law, row in zip(laws, rows, strict=True) if not row["passed"]]
    if failing and used:
        sources |= used  # SourceFinder reads it
        for other in (name, *used):
            sys.modules.pop(other, None)
        for law, row in failing[:MAX_RETRIES]:
            if find_failure(law.check, course, seed) is None:
                row["borrow"] = list(used)
    rows.append(_judge_own_law(own_law, solutions, wrongs, seed))
    wrong, faulty = wrongs[0]
    law = next(law for law in laws if law.name == wrong.caught_by)
    if find_failure(law.check, faulty, seed) is None:
        problem = "a wrong implementation passes once your file is loaded; do not change NumPy, JAX or the checker"
        return {"rows": rows, "problem": problem}
    return {"rows": rows, "problem": None}


def _judge_own_law(
    own_law: Check | None, solutions: Implementation, wrongs: list[tuple[Wrong, Implementation]], seed: int
) -> dict[str, Any]:
    """Return the row of the student's law: our solution keeps it, and enough wrong implementations break it."""
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

    failure = find_failure(check, solutions, seed)
    if failure and failure.actual.startswith("NotImplementedError"):
        failure = Failure("", "the function own_law", "not written yet")
    caught = 0
    for _, faulty in wrongs:
        if failure or caught == REQUIRED_CATCHES:
            break
        caught += find_failure(check, faulty, seed) is not None
    failure = failure or find_failure(check, solutions, seed)  # again, in case that the law counts its calls
    if failure and failure.expected not in _NO_COMPARISON:
        sentence = "Your law is false for a correct solution."
    if not failure and caught < REQUIRED_CATCHES:
        failure = Failure(
            "", f"at least {REQUIRED_CATCHES} of {len(wrongs)} wrong ones caught", f"{caught} caught"
        )
    return _row("own_law", sentence, failure)


def _row(name: str, sentence: str, failure: Failure | None) -> dict[str, Any]:
    details = failure._asdict() if failure else None
    return {"law": name, "sentence": sentence, "passed": failure is None, "failure": details}


@final
class _Refuser(MetaPathFinder):
    """Refuse to import jaxlm, and what starts the processes of `multiprocessing`, which has no audit event."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] == "jaxlm":
            raise ImportError("an exercise must not import jaxlm: write the function yourself")
        if fullname.startswith("multiprocessing.popen_"):
            raise PermissionError("an exercise must not start processes or open connections: multiprocessing")


def _guard() -> None:
    """Make jaxlm's modules and files, new processes and connections unavailable to the code that is loaded next.

    An audit hook cannot be removed.
    """
    package, realpath, fspath = str(COURSE.parent.resolve()) + os.sep, os.path.realpath, os.fspath

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            raise PermissionError(f"an exercise must not start processes or open connections: {event}")
        is_path = event == "open" and not isinstance(arguments[0], int)
        if is_path and str(realpath(fspath(arguments[0]))).startswith(package):
            raise PermissionError("an exercise must not read the files of jaxlm")

    for module in [module for module in sys.modules if module.partition(".")[0] == "jaxlm"]:
        del sys.modules[module]
    sys.addaudithook(refuse)


def _limit_resources(seconds: int, memory: int, output: int) -> None:
    """Limit the process's time, its memory, and the size of a file that it writes, in bytes.

    The number of processes has no limit here, because RLIMIT_NPROC counts all threads of the user.
    """
    limits = {
        resource.RLIMIT_CPU: 4 * seconds,  # of all threads
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_FSIZE: output,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # a system without this limit, or with a lower one
            resource.setrlimit(kind, (limit, limit))
