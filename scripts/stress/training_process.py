"""A `jaxlm` process that tells how far it is, and that can be slowed down and killed at a call of one's choice."""

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

# Calls that may change a folder, as Python's audit hooks call them, to which fsync is unknown.
KINDS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.fsync")

_WRITING = os.O_WRONLY | os.O_RDWR
_PRELOADED = [
    "jaxlm.cli.commands",
    "jaxlm.cli",
    "orbax.checkpoint",
    "matplotlib.backends.backend_agg",
    "training_process",
]


@dataclass(frozen=True)
class Kill:
    """When a process is killed: just before the n-th call that changes its folder, or after some seconds."""

    call: int | None = None
    kind: str | None = None  # count calls of this kind alone
    seconds: float | None = None
    delay: float = 0.0  # seconds that each such call takes longer


class Told:
    """What a process tells of itself, in memory that outlives it."""

    def __init__(self) -> None:
        self.calls = RawArray("q", len(KINDS))
        self._phase = RawArray("q", 2)  # of the main thread; and how many saves are under way beside it

    @property
    def phase(self) -> int:
        """An index of `PHASES`."""
        phase, saves = self._phase
        return PHASES.index("saving") if saves else phase

    def enter(self, name: str) -> None:
        """There is no way back from a phase."""
        self._phase[0] = max(self._phase[0], PHASES.index(name))

    def save(self, change: int) -> None:
        """Says that a save begins, or ends."""
        self._phase[1] += change


def start(words: Sequence[str], path: Path, cache: Path, kill: Kill, *, is_cold: bool) -> tuple[Any, Told]:
    """A process that runs `jaxlm` with these words on the run at `path`, and what it tells.

    Args:
        is_cold: by an interpreter that imports all anew; otherwise by a fork of one that has.
    """
    if is_cold:
        process_class: Any = multiprocessing.get_context("spawn").Process
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        process_class = context.Process
    told = Told()
    process = process_class(target=_run, args=(list(words), path, cache, kill, told))
    process.start()
    return process, told


def _run(words: list[str], path: Path, cache: Path, kill: Kill, told: Told) -> None:
    from jaxlm.cli import main

    os.environ["JAXLM_DATA_DIR"] = str(cache)
    log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    _tell_phases(told)
    numbers = {kind: itertools.count(1) for kind in (None, *KINDS)}

    def before_change(kind: str) -> None:
        told.calls[KINDS.index(kind)] += 1
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
    """Whether the call changes the run's folder."""
    name = arguments[0]
    if event in ("os.remove", "os.rmdir") and arguments[1] != -1:
        return True  # named from within an open folder, as rmtree does
    is_within = isinstance(name, str | os.PathLike) and f"{os.fspath(name)}{os.sep}".startswith(folder + os.sep)
    return is_within and (event != "open" or bool(arguments[2] & _WRITING))


def _tell_phases(told: Told) -> None:
    from jaxlm.runs import session as saved_training

    def around(name: str, before: Callable[[], None], after: Callable[[], None] = lambda: None) -> None:
        call = getattr(saved_training, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            before()
            try:
                return call(*arguments, **options)
            finally:
                after()

        setattr(saved_training, name, wrapped)

    around("train_lm", lambda: told.enter("first compile"), lambda: told.enter("finishing"))
    around("append_metrics", lambda: told.enter("training"))
    for name in ("save_checkpoint", "prune_checkpoints"):
        around(name, lambda: told.save(1), lambda: told.save(-1))
