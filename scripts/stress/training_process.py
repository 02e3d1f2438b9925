"""A `jaxlm` process that reports its phase and can be slowed down or killed at a chosen system call."""

import functools
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

PHASES = ("start-up", "first compile", "training", "saving", "finishing")

# Calls that may change a directory, by the names of Python's audit events. There is no event for fsync.
KINDS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.fsync")

_WRITING = os.O_WRONLY | os.O_RDWR
_PRELOADED = [
    "jaxlm.runs.train",
    "jaxlm.cli",
    "orbax.checkpoint",
    "matplotlib.backends.backend_agg",
    "training_process",
]


@dataclass(frozen=True)
class Kill:
    """When to kill a process: just before the n-th call that changes its directory, or after some seconds."""

    call: int | None = None
    kind: str | None = None  # count only calls of this kind
    seconds: float | None = None
    delay: float = 0.0  # extra seconds for each such call


class Progress:
    """Phase and call counts of a process, in shared memory that outlives it."""

    def __init__(self) -> None:
        self.calls = RawArray("q", len(KINDS))
        self._phase = RawArray("q", 2)  # of the main thread, and the number of saves in progress

    @property
    def phase(self) -> int:
        """An index of `PHASES`."""
        phase, saves = self._phase
        return PHASES.index("saving") if saves else phase

    def enter(self, name: str) -> None:
        """Enter a phase, unless the process is in a later one."""
        self._phase[0] = max(self._phase[0], PHASES.index(name))

    def save(self, change: int) -> None:
        """Add `change` to the number of saves in progress."""
        self._phase[1] += change


def start(words: Sequence[str], path: Path, cache: Path, kill: Kill, *, is_cold: bool) -> tuple[Any, Progress]:
    """Start a process that runs `jaxlm` with these arguments on the run at `path`. Return it and its progress.

    Args:
        is_cold: start a fresh interpreter. Otherwise fork one that has imported everything.
    """
    if is_cold:
        process_class: Any = multiprocessing.get_context("spawn").Process
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        process_class = context.Process
    progress = Progress()
    process = process_class(target=_run, args=(list(words), path, cache, kill, progress))
    process.start()
    return process, progress


def _run(words: list[str], path: Path, cache: Path, kill: Kill, progress: Progress) -> None:
    from jaxlm.cli import main

    os.environ["JAXLM_DATA_DIR"] = str(cache)
    log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    _report_phases(progress)
    numbers = {kind: itertools.count(1) for kind in (None, *KINDS)}

    def before_change(kind: str) -> None:
        progress.calls[KINDS.index(kind)] += 1
        number = {counted: next(numbers[counted]) for counted in (None, kind)}
        if kill.call is not None and number.get(kill.kind) == kill.call:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(kill.delay)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in KINDS and _is_change(event, arguments, str(path)):
            before_change(event)

    call = os.fsync

    def fsync(descriptor: Any) -> None:
        before_change("os.fsync")
        call(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    sys.addaudithook(audit)
    sys.exit(main(words))


def _is_change(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    """Return whether the call changes the run directory."""
    name = arguments[0]
    if event in ("os.remove", "os.rmdir") and arguments[1] != -1:
        return True  # relative to an open directory, as in rmtree
    is_within = isinstance(name, str | os.PathLike) and f"{os.fspath(name)}{os.sep}".startswith(folder + os.sep)
    return is_within and (event != "open" or bool(arguments[2] & _WRITING))


def _report_phases(progress: Progress) -> None:
    from jaxlm.checkpoints import train_states
    from jaxlm.runs import session, train

    def wrap_call(
        module: Any, name: str, before: Callable[[], None], after: Callable[[], None] = lambda: None
    ) -> None:
        call = getattr(module, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            before()
            try:
                return call(*arguments, **options)
            finally:
                after()

        setattr(module, name, wrapped)

    names = "first compile", "finishing"
    wrap_call(train, "train_with_checkpoints", *(functools.partial(progress.enter, name) for name in names))
    wrap_call(session, "append_metrics", lambda: progress.enter("training"))
    wrap_call(train_states, "save_checkpoint", lambda: progress.save(1), lambda: progress.save(-1))
