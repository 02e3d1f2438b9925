"""Whether JAX's accelerator plugins work: each is tried once and the verdict kept. Nothing here imports JAX."""

import contextlib
import functools
import json
import os
import platform
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from jaxlm.devices.plugins import Plugin, installed_plugins, jax_version, known_incompatibility
from jaxlm.devices.probe_runner import (
    ProbeResult,
    is_inherited,
    one_line,
    probe_result_from_json,
    probe_seconds,
    run_probes,
)
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.cache_directory import cache_directory
from jaxlm.utils.json_files import read_json

_VERSION = 2
_NVIDIA = Path("/proc/driver/nvidia/gpus")
# What a plugin failed for may pass, as a full memory does. A day later it is tried again.
_SECONDS_OF_A_FAULT = 86_400
# Of other versions, machines and settings: read at each start, in 1 ms.
_MOST_ENTRIES = 100
# What another process may need beside its probes.
_FAREWELL_SECONDS = 5
# What may turn a verdict, beside what `is_inherited`.
_TURNS_VERDICTS = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "LIBTPU_INIT_ARGS",
    "ROCR_VISIBLE_DEVICES",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)


class _Entry(NamedTuple):
    """A cached verdict, when it was given, by the clock, and how many seconds the probe had."""

    verdict: ProbeResult
    time: float
    limit: float


@functools.cache
def probe_results() -> Mapping[Plugin, ProbeResult]:
    """The installed plugins with a verdict on each: known without trying, cached, or that of a probe.

    Those that are met for the first time are tried, each in a subprocess, all at the same time, for at most 25 s.
    The verdict is cached in the user's cache folder by plugin, its version, JAX's version, Python and platform; a
    fault for a day, and for as long as the probe is given no more time. Where nothing can be tried, none works.

    Raises:
        ValueError: `JAXLM_PROBE_SECONDS` is no number of seconds.
    """
    installed = installed_plugins()
    verdicts = _known_verdicts(installed)
    if len(verdicts) < len(installed):
        try:
            with _one_process_at_a_time():
                verdicts = _known_verdicts(installed)  # for another process may just have tried them
                if untried := [plugin for plugin in installed if plugin not in verdicts]:
                    tried = run_probes(untried)
                    _cache(tried)
                    verdicts |= tried
        except OSError as error:
            untriable = ProbeResult(works=False, platform=None, reason=f"cannot be tried: {one_line(str(error))}")
            verdicts |= {plugin: untriable for plugin in installed if plugin not in verdicts}
    return types.MappingProxyType(verdicts)


def clear_probe_cache() -> None:
    """Lets the next look at the plugins try all of them again.

    Raises:
        OSError: what is cached cannot be removed.
    """
    with _one_process_at_a_time():
        _cache_path().unlink(missing_ok=True)
    installed_plugins.cache_clear()
    probe_results.cache_clear()


def _known_verdicts(plugins: Sequence[Plugin]) -> dict[Plugin, ProbeResult]:
    cached = _cached_verdicts() if plugins else {}
    faults = {plugin: known_incompatibility(plugin) for plugin in plugins}
    return {
        plugin: ProbeResult(works=False, platform=None, reason=fault) if fault else cached[_key(plugin)]
        for plugin, fault in faults.items()
        if fault or _key(plugin) in cached
    }


@contextlib.contextmanager
def _one_process_at_a_time() -> Iterator[None]:
    """Probes of two processes would slow each other down, and some devices serve only one at a time.

    Raises:
        TimeoutError: another process takes longer than probes may.
    """
    import filelock  # 30 ms, for what is rare

    path, seconds = _cache_path().with_suffix(".lock"), probe_seconds() + _FAREWELL_SECONDS
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(path).acquire(timeout=seconds))
        except filelock.Timeout:
            raise TimeoutError(f"another process tries plugins, and has not ended for {seconds:g} s") from None
        except (OSError, NotImplementedError):
            pass  # where nothing can be written or locked, each process does its own
        yield


def _cached_verdicts() -> dict[str, ProbeResult]:
    """What was judged before, but for faults that may have passed."""
    now, limit = time.time(), probe_seconds()
    return {
        key: entry.verdict
        for key, entry in _cached_entries().items()
        if entry.verdict.works or (0 <= now - entry.time < _SECONDS_OF_A_FAULT and limit <= entry.limit)
    }


def _cached_entries() -> dict[str, _Entry]:
    """All that is cached; nothing where that cannot be read, for then it is judged again."""
    try:
        document = read_json(_cache_path())
        if document["version"] != _VERSION:
            return {}
        return {
            key: _Entry(probe_result_from_json(each["verdict"]), float(each["time"]), float(each["limit"]))
            for key, each in document["verdicts"].items()
        }
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError):
        return {}


def _cache(verdicts: Mapping[Plugin, ProbeResult]) -> None:
    now, limit = time.time(), probe_seconds()
    every = _cached_entries() | {_key(plugin): _Entry(verdict, now, limit) for plugin, verdict in verdicts.items()}
    newest = sorted(every.items(), key=lambda item: item[1].time)[-_MOST_ENTRIES:]
    document = {
        "version": _VERSION,
        "verdicts": {key: {**entry._asdict(), "verdict": entry.verdict._asdict()} for key, entry in newest},
    }
    with contextlib.suppress(OSError):  # a folder that cannot be written costs a probe each time
        write_atomically(_cache_path(), json.dumps(document, indent=2) + "\n")


def _cache_path() -> Path:
    return cache_directory() / "plugins.json"


def _key(plugin: Plugin) -> str:
    """All that a verdict on the plugin may depend on."""
    parts = [plugin.module, plugin.name, plugin.version, f"jax {jax_version()}", *_machine()]
    turning = {name for name in os.environ if name in _TURNS_VERDICTS or is_inherited(name)}
    parts += [f"{name}={os.environ[name]}" for name in sorted(turning)]
    return "|".join(parts)


@functools.cache
def _machine() -> tuple[str, ...]:
    """Interpreter and system, and what accelerators can be seen: a home folder may be that of many machines."""
    seen = sorted(
        path.name
        for pattern in ("nvidia[0-9]*", "kfd", "accel[0-9]*", "dxg")
        for path in Path("/dev").glob(pattern)
    )
    driver = Path("/sys/module/nvidia/version")
    versions = [driver.read_text().strip()] if driver.exists() else []
    # Not platform.platform(): it reads the whole interpreter to tell the version of its C library, in 40 ms.
    system = (platform.system(), platform.release(), platform.machine())
    python = (f"Python {platform.python_version()}", sys.prefix, f"jaxlib {metadata.version('jaxlib')}")
    return (*python, *system, *seen, *versions, *_nvidia_models())


def _nvidia_models() -> list[str]:
    """The models of NVIDIA's GPUs, from what its driver tells on Linux."""
    models = []
    for path in sorted(_NVIDIA.glob("*/information")):
        with contextlib.suppress(OSError):
            models += [
                line for line in path.read_text("utf-8", "replace").splitlines() if line.startswith("Model:")
            ]
    return models
