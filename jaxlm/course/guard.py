"""Limits of the process that judges an exercise, and what the student's code must not reach or change there."""

import contextlib
import os
import resource
import sys
from collections.abc import Iterable
from importlib.abc import MetaPathFinder
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, final

from jaxlm.course.exercises import COURSE

_FORBIDDEN = (  # audit events
    "subprocess.",
    "os.fork",
    "os.posix_spawn",
    "os.system",
    "os.exec",
    "os.kill",
    "socket.",
    "ctypes.dl",
    "gc.get_objects",
)


@final
class _Refuser(MetaPathFinder):
    """Refuse to import jaxlm, and what starts the processes of `multiprocessing`, which has no audit event."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] == "jaxlm":
            raise ImportError("an exercise must not import jaxlm: write the function yourself")
        if fullname.startswith("multiprocessing.popen_"):
            raise PermissionError("an exercise must not use multiprocessing")


def refuse_access() -> None:
    """Refuse jaxlm's modules and files, new processes and connections to the code that is loaded next.

    A folder that holds jaxlm is refused too, because a file can be opened relative to it. An audit hook cannot be
    removed.
    """
    package = f"{COURSE.parent.resolve()}{os.sep}"

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            raise PermissionError(f"an exercise must not use {event}")
        if event in {"open", "os.link", "os.rename", "os.remove"} and not isinstance(arguments[0], int):
            path = os.path.realpath(os.fsdecode(arguments[0])).rstrip(os.sep) + os.sep
            if path.startswith(package) or package.startswith(path):
                raise PermissionError("an exercise must not use the files of jaxlm")

    for name in [name for name in sys.modules if name.partition(".")[0] == "jaxlm"]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Refuser())
    sys.addaudithook(refuse)


class Definition(NamedTuple):
    """A function, class or property of a module or class, and the code of a function."""

    owner: ModuleType | type
    name: str
    value: Any
    code: CodeType | None


def list_definitions() -> list[Definition]:
    """Return the functions, classes and properties of all loaded modules and their classes."""
    modules = [module for module in sys.modules.values() if isinstance(module, ModuleType)]
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    owners: list[ModuleType | type] = [*modules, *classes]
    return [
        Definition(owner, name, value, value.__code__ if isinstance(value, FunctionType) else None)
        for owner in owners
        for name, value in vars(owner).items()
        if callable(value) or isinstance(value, property)
    ]


def find_change(definitions: Iterable[Definition]) -> str | None:
    """Return the name of a definition that has changed, or None."""
    for owner, name, value, code in definitions:
        now = vars(owner).get(name)
        if now is not value or (code is not None and now.__code__ is not code):
            return f"{owner.__name__}.{name}"
    return None


def limit_resources(seconds: int, memory: int, output: int) -> None:
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
