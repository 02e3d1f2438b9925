"""JAX's accelerator plugins: which are installed, which cannot work, and how one is kept out of this process.

Nothing here imports JAX, which loads its plugins when it first looks for a device.
"""

import contextlib
import functools
import importlib.util
import pkgutil
import re
import sys
import time
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

# The module of Google's TPUs: JAX itself looks for it, so that it has no entry point.
_TPU = "libtpu"


@dataclass(frozen=True)
class Plugin:
    """An installed plugin: the module that JAX would import, and the distribution that it came with."""

    module: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@functools.cache  # what is installed does not change while a process runs, and a look at it takes 20 ms
def installed_plugins() -> tuple[Plugin, ...]:
    """The plugins that JAX would load, by its two ways: entry points, and modules of the package `jax_plugins`.

    CUDA's and ROCm's are among them. That of TPUs is known to JAX by its name.
    """
    plugins = {module: Plugin(module, module, _modified(file)) for module, file in _modules_in_namespace()}
    for entry_point in metadata.entry_points(group="jax_plugins"):
        distribution = entry_point.dist
        told = None if distribution is None else distribution.metadata
        named = (told[field] if told is not None and field in told else "unknown" for field in ("Name", "Version"))
        plugins[entry_point.value] = Plugin(entry_point.value, *named)
    with contextlib.suppress(metadata.PackageNotFoundError):
        plugins[_TPU] = Plugin(_TPU, _TPU, metadata.version(_TPU))
    return tuple(plugins[module] for module in sorted(plugins))


def known_incompatibility(plugin: Plugin) -> str | None:
    """What is known to be wrong with a plugin, and the cure, as words to go on with after its name."""
    if plugin.name.replace("_", "-").lower() != "jax-metal":
        return None
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", jax_version())
    if numbers is None or tuple(map(int, numbers.groups())) <= (0, 5, 0):
        return None
    cure = "pip install 'jaxlm[metal]' for the set that it works with, or pip uninstall jax-metal"
    if sys.version_info >= (3, 12):
        cure += " and pip install 'jaxlm[apple]' for a living plugin"
    return f"breaks every program of jax {jax_version()}, for it was built for 0.5.0; {cure}"


def disable_plugins(plugins: Iterable[Plugin]) -> None:
    """Keeps plugins out of this process: JAX, if it has not loaded them yet, finds an empty module for each."""
    for plugin in plugins:
        stand_in = types.ModuleType(plugin.module, f"{plugin}, kept out by jaxlm.")
        stand_in.initialize = lambda: None  # type: ignore[attr-defined]
        sys.modules[plugin.module] = stand_in


@functools.cache
def jax_version() -> str:
    """The version of the installed JAX."""
    return metadata.version("jax")


def _modules_in_namespace() -> Iterator[tuple[str, Path]]:
    """Modules of the package `jax_plugins`, and the file of each, without importing any."""
    spec = importlib.util.find_spec("jax_plugins")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for module in pkgutil.iter_modules([folder]):
            path = Path(folder, module.name)
            yield f"jax_plugins.{module.name}", path / "__init__.py" if module.ispkg else path.with_suffix(".py")


def _modified(file: Path) -> str:
    """Stands for the version of a module that no distribution tells of: when it was last written."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(file.stat().st_mtime))
    except OSError:
        return "unknown"
