"""Implementations to judge: our solutions, `jaxlm.reference`, and jaxlm itself."""

import importlib
import importlib.util
from collections.abc import Callable
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, final

from jaxlm.course.law import Implementation

# The file of each exercise, and its functions in the order of `Implementation`.
EXERCISES = {
    "ex1_windows": ("windows", "get_batch"),
    "ex2_counts": ("fit", "log_probs"),
    "ex3_neural": ("init_bigram", "bigram_logits", "init_mlp", "mlp_logits"),
    "ex4_sampling": ("token_nats", "perplexity", "sample"),
    "ex5_training": ("train_step", "train"),
    "ex6_reading": ("repeated_ngrams", "unseen_pairs", "made_up_words"),
    "ex7_curves": ("record_curves", "plot_curves"),
}
SOLUTIONS = Path(__file__).with_name("solutions")
_PACKAGE = "jaxlm.course.solutions."


def solution_text(name: str) -> str:
    """Return our solution of an exercise as a file of its own, which imports from the other exercises."""
    return (SOLUTIONS / f"{name}.py").read_text("utf-8").replace(f"from {_PACKAGE}", "from ")


def load_solutions() -> Implementation:
    """Return our solutions."""
    return build_implementation(lambda name: importlib.import_module(_PACKAGE + name))


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
