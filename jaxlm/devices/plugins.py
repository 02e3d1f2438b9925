"""Find and disable JAX's accelerator plugins. Nothing here imports JAX, which loads plugins on first use."""

import contextlib
import functools
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Iterable
from importlib import metadata
from typing import NamedTuple


class Plugin(NamedTuple):
    """An installed plugin: the module that JAX imports, and its distribution's name and version."""

    module: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@functools.cache  # installed packages do not change while a process runs, and looking takes 20 ms
def installed_plugins() -> tuple[Plugin, ...]:
    """Return the plugins that JAX would load, without importing them.

    JAX finds plugins by entry point and as modules of the package `jax_plugins`, and the TPU's `libtpu` by name.
    """
    namespace = importlib.util.find_spec("jax_plugins")
    folders = namespace.submodule_search_locations if namespace else []
    modules = [f"jax_plugins.{name}" for _, name, _ in pkgutil.iter_modules(folders)]
    plugins = {module: Plugin(module, module, "unknown") for module in modules}  # until a distribution is found
    for entry_point in metadata.entry_points(group="jax_plugins"):
        if distribution := entry_point.dist:
            plugins[entry_point.value] = Plugin(entry_point.value, distribution.name, distribution.version)
    with contextlib.suppress(metadata.PackageNotFoundError):
        plugins["libtpu"] = Plugin("libtpu", "libtpu", metadata.version("libtpu"))
    return tuple(sorted(plugins.values()))


def known_incompatibility(plugin: Plugin) -> str | None:
    """Return why a plugin cannot work with the installed JAX, and the remedy; None if no problem is known."""
    version = metadata.version("jax")
    if plugin.name != "jax-metal" or version == "0.5.0":
        return None
    remedy = "pip install 'jaxlm[metal]' for a matching set, or uninstall it; on Python 3.12, 'jaxlm[apple]' works"
    return f"requires jax 0.5.0 and fails with jax {version}; {remedy}"


def disable_plugins(plugins: Iterable[Plugin]) -> None:
    """Replace the modules of plugins that JAX has not started yet, so that it does not start them."""
    for plugin in plugins:
        module = types.ModuleType(plugin.module, f"{plugin}, disabled by jaxlm.")
        module.initialize = lambda: None  # type: ignore[attr-defined]
        sys.modules[plugin.module] = module
