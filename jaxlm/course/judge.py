"""Judge exercises, each in a Python process of its own. This module does not import JAX."""

import contextlib
import hashlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.course.exercises import COURSE, EXERCISES, USED, is_unwritten, read_solution
from jaxlm.utils.atomic_files import read_regular

_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from jaxlm.course.child import main; main()"
_ENVIRONMENT = (  # the variables that an exercise inherits: a token or a password is not among them
    *("HOME", "PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "MPLCONFIGDIR"),
    *("JAXLM_DATA_DIR", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"),
)
_MAX_RESULT = 2**22  # bytes


class Limits(NamedTuple):
    """Limits of one exercise: seconds, seconds of each law, and bytes of memory and of printed output."""

    seconds: int = 120
    seconds_per_law: int = 20
    memory: int = 2**32
    output: int = 2**24


DEFAULT_LIMITS = Limits()


class Report(NamedTuple):
    """The result of judging one exercise."""

    exercise: str
    file: str
    sha256: str  # of the judged file; "" if it does not exist
    borrowed: list[str]  # the exercises that were ours
    rows: list[dict[str, Any]]  # for each law "law", "sentence", "passed", "failure", maybe "borrow"
    problem: str | None  # why the result does not count
    printed: str  # the end of what the exercise printed
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether there are laws and all hold."""
        return self.problem is None and bool(self.rows) and all(row["passed"] is True for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        return self._asdict() | {"passed": self.passed}


def judge_exercises(
    folder: Path,
    names: Sequence[str],
    *,
    borrowed: Collection[str] = (),
    seed: int = 0,
    extra_laws: str = "",
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Report]:
    """Judge a student's exercises, and yield the reports in order. Host function; not for use inside `jit`.

    Args:
        folder: directory with the student's files. Files other than those of the exercises are not read.
        names: names of exercises.
        borrowed: names of other exercises, for which our solutions are used instead of the student's.
        seed: seed of the random inputs of the laws.
        extra_laws: text of a Python file with more laws, a tuple `LAWS`.
        limits: limits of each exercise.
    """
    children = set[subprocess.Popen[bytes]]()
    paths = {name: folder / f"{name}.py" for name in EXERCISES}
    contents = {name: read_regular(path) if path.exists() else b"" for name, path in paths.items()}
    sources = {name: content.decode("utf-8", "replace") for name, content in contents.items()}
    sources |= {name: read_solution(name) for name in borrowed}

    def judge(name: str) -> Report:
        begin, path = time.monotonic(), paths[name]
        digest = hashlib.sha256(contents[name]).hexdigest() if path.exists() else ""
        rows, printed = list[dict[str, Any]](), ""
        if not digest:
            problem: str | None = f"{path} does not exist; `jaxlm course new {folder}` creates it"
        elif is_unwritten(name, sources[name]):
            problem = f"not written yet: replace each `raise NotImplementedError` in {path}"
        else:
            used = {other: read_solution(other) for other in USED.get(name, []) if other not in borrowed}
            request = {"name": name, "sources": sources, "used": used, "seed": seed, "extra_laws": extra_laws}
            rows, problem, printed = _run_child(request, limits, children)
        return Report(name, str(path), digest, list(borrowed), rows, problem, printed, time.monotonic() - begin)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        try:
            yield from pool.map(judge, names)
        except BaseException:  # Ctrl-C does not reach the children
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(children):
                _kill(child)
            raise


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _run_child(
    request: dict[str, Any], limits: Limits, children: set[subprocess.Popen[bytes]]
) -> tuple[list[dict[str, Any]], str | None, str]:
    """Return the rows, the problem, and what was printed. The process is in `children` while it runs."""
    secret = secrets.token_hex(16)
    sizes = [limits.seconds, limits.memory, limits.output]
    content = json.dumps(request | {"secret": secret, "limits": sizes}).encode()
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # Compiling without optimization takes a third less time, and an exercise needs no accelerator.
    environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0", "MPLBACKEND": "agg"}
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as log:
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-P", "-u", "-c", _PROGRAM, str(COURSE.parents[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=empty,
            env=environment,
            start_new_session=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        children.add(child)
        with child.stdin, child.stdout:
            try:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(content)
                    child.stdin.close()
                lines, stopped_after = _read_lines(child.stdout.fileno(), limits)
                if not stopped_after:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(timeout=1)
            finally:
                _kill(child)
                code = child.wait()
                children.discard(child)
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        printed = log.read().decode("utf-8", "replace")
    last = "the start"
    for line in lines:
        signature, _, last = line.partition(" ")
        if signature != hashlib.sha256((secret + last).encode()).hexdigest():
            return [], "the result is damaged: something else wrote to it", printed
    with contextlib.suppress(ValueError):  # the name of what was judged last is not JSON
        document = json.loads(last)
        return document["rows"], document["problem"], printed
    if stopped_after:
        return [], f"stopped in {last}, after {stopped_after} s: is there an endless loop?", printed
    return [], f"the process ended (code {code}) in {last}, before all laws were judged", printed


def _read_lines(descriptor: int, limits: Limits) -> tuple[list[str], int]:
    """Read lines until the end of the file or too many bytes. Return them, and the limit that ended it, or 0.

    The first line arrives when the modules are loaded; from then on, each law has its limit.
    """
    content, deadline, limit = b"", time.monotonic() + limits.seconds, limits.seconds
    while len(content) <= _MAX_RESULT:
        left = deadline - time.monotonic()
        ready, _, _ = select.select([descriptor], [], [], max(0.0, min(left, limit)))
        chunk = os.read(descriptor, 2**16) if ready else b""
        if not chunk:
            break
        content, limit = content + chunk, limits.seconds_per_law
    lines = content.decode("utf-8", "replace").splitlines()
    if ready:
        return lines, 0
    return lines, limit if limit < left else limits.seconds
