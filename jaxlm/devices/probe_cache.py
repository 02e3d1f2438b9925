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
from jaxlm.devices.probe_runner import INHERITED, ProbeResult, run_probes, to_one_line
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.cache_directory import cache_directory
from jaxlm.utils.json_files import read_json

_VERSION = 5  # of the probes and of the cached results
_FAILURE_SECONDS = 600  # how long to cache a failure, whose cause may be temporary, such as a device in use
# Prefixes of environment variables that can change a probe's result.
_VARIABLES = (*INHERITED, "CUDA_", "HIP_", "LD_LIBRARY_PATH", "LIBTPU_", "ROCR_", "XLA_")
_DEVICE_FILES = "nvidia[0-9]*", "kfd", "accel[0-9]*", "dxg"  # in /dev


@functools.cache
def probe_results() -> Mapping[Plugin, ProbeResult]:
    """Return the probe result of each installed plugin. Host function; not for use inside `jit`.

    Plugins without a cached result are probed by `run_probes`. If no process can be started, they count as failed.
    """
    plugins, results = installed_plugins(), {}
    cached, now = _read_cache() if plugins else {}, time.time()
    for plugin in plugins:
        entry = cached.get(_cache_key(plugin))
        if reason := known_incompatibility(plugin):
            results[plugin] = ProbeResult(False, None, reason)
        elif entry and (entry["result"]["works"] or 0 <= now - entry["time"] < _FAILURE_SECONDS):
            results[plugin] = ProbeResult(**entry["result"])
    if missing := [plugin for plugin in plugins if plugin not in results]:
        try:
            probed = run_probes(missing)
        except OSError as error:
            failure = ProbeResult(False, None, f"could not be probed: {to_one_line(str(error))}")
            probed = dict.fromkeys(missing, failure)
        entries = {_cache_key(plugin): {"result": probed[plugin]._asdict(), "time": now} for plugin in missing}
        with contextlib.suppress(OSError):  # without a writable directory, every process probes
            _cache_path().parent.mkdir(parents=True, exist_ok=True)
            write_atomically(_cache_path(), json.dumps(_read_cache() | entries, indent=2) + "\n")
        results |= probed
    return results


def clear_probe_cache() -> None:
    """Delete all cached results, so that every plugin is probed again."""
    _cache_path().unlink(missing_ok=True)
    probe_results.cache_clear()


def _read_cache() -> dict[str, Any]:
    """Return the cached entries; none if the file is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return dict(read_json(_cache_path()))
    return {}


def _cache_path() -> Path:
    return cache_directory() / "plugins.json"


def _cache_key(plugin: Plugin) -> str:
    """Return what can change a result, including the machine: machines can share a home directory."""
    parts = (
        *(str(_VERSION), plugin.module, str(plugin), metadata.version("jax"), metadata.version("jaxlib")),
        *(sys.prefix, platform.platform()),
        *sorted(path.name for pattern in _DEVICE_FILES for path in Path("/dev").glob(pattern)),
        *sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_VARIABLES)),
    )
    return "|".join(parts)
