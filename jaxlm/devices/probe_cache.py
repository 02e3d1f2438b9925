"""Probe each plugin once and cache the result. Nothing here imports JAX."""

import contextlib
import functools
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
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
# Prefixes of environment variables that can change a probe's result.
_VARIABLES = (*INHERITED, "CUDA_", "HIP_", "LD_LIBRARY_PATH", "LIBTPU_", "ROCR_", "XLA_")
_DEVICE_FILES = "nvidia[0-9]*", "kfd", "accel[0-9]*", "dxg"  # in /dev


@functools.cache
def probe_results() -> Mapping[Plugin, ProbeResult]:
    """Return the probe result of each installed plugin. Host function; not for use inside `jit`.

    Plugins without a cached result are probed by `run_probes`. If no process can be started, they count as failed.
    """
    plugins = installed_plugins()
    results = _known_results(plugins)
    missing = [plugin for plugin in plugins if plugin not in results]
    try:
        probed = run_probes(missing) if missing else {}
    except OSError as error:
        failure = ProbeResult(False, None, f"could not be probed: {to_one_line(str(error))}")
        return dict.fromkeys(missing, failure) | results
    if probed:
        _add_to_cache(probed)
    return results | probed


def clear_probe_cache() -> None:
    """Delete all cached results, so that every plugin is probed again."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _cache_path().unlink()
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


def _read_cache() -> dict[str, Any]:
    """Return the cached entries; none if the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return dict(read_json(_cache_path()))
    return {}


def _add_to_cache(results: Mapping[Plugin, ProbeResult]) -> None:
    entries, probed = _read_cache(), {"time": time.time(), "limit": probe_seconds()}
    entries |= {_cache_key(plugin): {"result": result._asdict(), **probed} for plugin, result in results.items()}
    with contextlib.suppress(OSError):  # without a writable directory, every process probes
        _cache_path().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_cache_path(), json.dumps(entries, indent=2) + "\n")


def _cache_path() -> Path:
    return cache_directory() / "plugins.json"


def _cache_key(plugin: Plugin) -> str:
    """Return everything that can change a result, including the machine: machines can share a home directory."""
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
