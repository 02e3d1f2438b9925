"""Probe each plugin once and cache the result. Nothing here imports JAX."""

import contextlib
import functools
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxlm.devices.plugins import Plugin, installed_plugins, known_incompatibility
from jaxlm.devices.probe_runner import INHERITED, ProbeResult, probe_seconds, run_probes, to_one_line
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.cache_directory import cache_directory
from jaxlm.utils.json_files import read_json

_VERSION = 4  # of the probes and of the cached results
_FAILURE_SECONDS = 86_400  # how long to cache a failure, whose cause may be temporary, such as full memory
_MAX_ENTRIES = 100  # of all versions, machines and settings; reading 100 takes 1 ms
# Prefixes of environment variables that can change a probe's result.
_VARIABLES = (*INHERITED, "CUDA_", "HIP_", "LD_LIBRARY_PATH", "LIBTPU_", "ROCR_", "XLA_")
_DEVICE_FILES = "nvidia[0-9]*", "kfd", "accel[0-9]*", "dxg"  # in /dev


@functools.cache
def probe_results() -> Mapping[Plugin, ProbeResult]:
    """Return the probe result of each installed plugin. Host function; not for use inside `jit`.

    Plugins without a cached result are probed by `run_probes`. They count as failing if it cannot start a process.
    """
    plugins = installed_plugins()
    results = _known_results(plugins)
    if len(results) == len(plugins):
        return results
    try:
        with _acquire_lock():
            results = _known_results(plugins)  # another process may have added some
            if missing := [plugin for plugin in plugins if plugin not in results]:
                new = run_probes(missing)
                _add_to_cache(new)
                results |= new
        return results
    except OSError as error:
        failure = ProbeResult(False, None, f"could not be probed: {to_one_line(str(error))}")
        return dict.fromkeys(plugins, failure) | results


def clear_probe_cache() -> None:
    """Delete all cached results, so that every plugin is probed again."""
    with _acquire_lock():
        _cache_path().unlink(missing_ok=True)
    installed_plugins.cache_clear()
    probe_results.cache_clear()


def _known_results(plugins: tuple[Plugin, ...]) -> dict[Plugin, ProbeResult]:
    """Return the results that need no probe: known incompatibilities and valid cached results."""
    if not plugins:
        return {}
    results, entries, now, limit = {}, _read_cache(), time.time(), probe_seconds()
    for plugin in plugins:
        if reason := known_incompatibility(plugin):
            results[plugin] = ProbeResult(False, None, reason)
        elif entry := entries.get(_cache_key(plugin)):
            result = ProbeResult(**entry["result"])
            if result.works or (0 <= now - entry["time"] < _FAILURE_SECONDS and limit <= entry["limit"]):
                results[plugin] = result
    return results


def _acquire_lock() -> AbstractContextManager[Any]:
    """Wait for the probes of other processes: they slow each other down, and some devices serve only one."""
    import filelock  # takes 30 ms and is rarely needed

    path = _cache_path().with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(path).acquire(timeout=probe_seconds() + 5)
    except (OSError, NotImplementedError):
        return contextlib.nullcontext()  # no writable directory, no file locks, or a process that does not end


def _read_cache() -> dict[str, Any]:
    """Return the cached entries; none if the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return dict(read_json(_cache_path()))
    return {}


def _add_to_cache(results: Mapping[Plugin, ProbeResult]) -> None:
    entries, probed = _read_cache(), {"time": time.time(), "limit": probe_seconds()}
    entries |= {_cache_key(plugin): {"result": result._asdict(), **probed} for plugin, result in results.items()}
    document = dict(list(entries.items())[-_MAX_ENTRIES:])
    with contextlib.suppress(OSError):  # without a writable directory, every process probes
        write_atomically(_cache_path(), json.dumps(document, indent=2) + "\n")


def _cache_path() -> Path:
    return cache_directory() / "plugins.json"


def _cache_key(plugin: Plugin) -> str:
    """Return all that a result may depend on, including the machine: several can share a home directory."""
    driver = Path("/sys/module/nvidia/version")
    parts = (
        *(str(_VERSION), plugin.module, str(plugin), metadata.version("jax"), metadata.version("jaxlib")),
        # `platform.platform()` would take 40 ms to find the version of the C library.
        *(platform.python_version(), sys.prefix, platform.system(), platform.release(), platform.machine()),
        *sorted(path.name for pattern in _DEVICE_FILES for path in Path("/dev").glob(pattern)),
        driver.read_text().strip() if driver.exists() else "",
        *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_VARIABLES)),
    )
    return "|".join(parts)
