"""Implementations to judge: our solutions, `jaxlm.reference`, and jaxlm itself."""

import importlib
import importlib.util
from collections.abc import Callable
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, final

from jaxlm.course.exercises import EXERCISES, SOLUTIONS_PACKAGE
from jaxlm.course.law import Implementation


def load_solutions() -> Implementation:
    """Return our solutions."""
    return build_implementation(lambda name: importlib.import_module(SOLUTIONS_PACKAGE + name))


def build_implementation(load: Callable[[str], ModuleType]) -> Implementation:
    """Return the functions of the modules that `load` returns by name. A module is loaded at its first call."""

    def find(name: str, function: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            module = vars(load(name))
            if function not in module:
                raise NotImplementedError(f"{name}.py defines no function {function}")
            return module[function](*args, **kwargs)

        return call

    return Implementation(
        *(find(name, function) for name, functions in EXERCISES.items() for function in functions)
    )


@final
class SourceFinder(MetaPathFinder, SourceLoader):  # type: ignore[misc]  # typeshed's own conflict
    """Import modules from their source texts, by name, instead of from a folder."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname in self.sources else None

    def get_filename(self, fullname: str) -> str:
        return f"{fullname}.py"

    def get_data(self, path: str) -> bytes:
        return self.sources[path.removesuffix(".py")].encode()


def load_source(name: str, text: str) -> ModuleType:
    """Return the module of a source text, without a place in `sys.modules`."""
    spec = SourceFinder({name: text}).find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
