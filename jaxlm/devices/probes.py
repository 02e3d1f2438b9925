"""Probe each plugin in a subprocess, and cache the result. Nothing here imports JAX."""

import contextlib
import functools
import json
import math
import os
import platform
import selectors
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired
from typing import IO, NamedTuple, cast

from jaxlm.devices.plugins import Plugin, installed_plugins, known_incompatibility
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.cache_directory import cache_directory
from jaxlm.utils.json_files import read_json

RESULT_MARKER = "jaxlm probe result: "  # a probe prints this and, in the same line, its result as JSON

_VERSION = 5  # of the probes and of the cached results
_FAILURE_SECONDS = 600  # how long to cache a failure, whose cause may be temporary, such as a device in use
_MAX_OUTPUT_BYTES = 2**20  # a hundred times what JAX logs; a plugin that prints more would do so in every run

# Prefixes of environment variables. A probe inherits JAX's and Python's settings only for devices and 64-bit mode.
# Others, such as transfer guards or warnings as errors, could make a plugin look broken.
_NOT_INHERITED = "JAX_", "JAXLM_", "PYTHON", "PJRT_NAMES_AND_LIBRARY_PATHS"
_PLUGINS = "CUDA", "GRAFT", "METAL", "MPS", "MTL", "PJRT", "ROCM", "TPU"
_INHERITED = "JAX_ENABLE_X64", "PYTHONHOME", *(f"JAX_{plugin}_" for plugin in _PLUGINS)
# What can change a result: prefixes of environment variables, and files in /dev.
_VARIABLES = (*_INHERITED, "CUDA_", "HIP_", "LD_LIBRARY_PATH", "LIBTPU_", "ROCR_", "XLA_")
_DEVICE_FILES = "nvidia[0-9]*", "kfd", "accel[0-9]*", "dxg"


class ProbeResult(NamedTuple):
    """The result of probing a plugin."""

    works: bool  # every computation matched the CPU
    platform: str | None  # JAX's platform name; None if the probe failed earlier
    reason: str  # completes a sentence that starts with the plugin's name
    seconds: float | None = None  # per training step of a model of 255,000 parameters
    worthwhile_from: int | None = None  # number of parameters from which it beats the CPU


@functools.cache
def probe_results() -> Mapping[Plugin, ProbeResult]:
    """Return the probe result of each installed plugin. Host function; not for use inside `jit`.

    Plugins without a cached result are probed by `run_probes`. If no process can be started, they count as failed.
    """
    plugins, results, cached, now = installed_plugins(), {}, {}, time.time()
    with contextlib.suppress(OSError, ValueError):  # the file is missing or damaged
        cached = dict(read_json(_cache_path())) if plugins else {}
    for plugin in plugins:
        entry = cached.get(_cache_key(plugin))
        if reason := known_incompatibility(plugin):
            results[plugin] = ProbeResult(False, None, reason)
        elif entry and (entry["result"]["works"] or 0 <= now - entry["time"] < _FAILURE_SECONDS):
            results[plugin] = ProbeResult(**entry["result"])
    if missing := [plugin for plugin in plugins if plugin not in results]:
        try:
            probed = run_probes(missing)
        except OSError as error:  # not cached: the next process may succeed
            failure = ProbeResult(False, None, f"could not be probed: {to_one_line(str(error))}")
            return results | dict.fromkeys(missing, failure)
        with contextlib.suppress(OSError, ValueError):  # another process may have added results
            cached = dict(read_json(_cache_path()))
        entries = {_cache_key(plugin): {"result": probed[plugin]._asdict(), "time": now} for plugin in missing}
        with contextlib.suppress(OSError):  # without a writable directory, every process probes
            _cache_path().parent.mkdir(parents=True, exist_ok=True)
            write_atomically(_cache_path(), json.dumps(cached | entries, indent=2) + "\n")
        results |= probed
    return results


def clear_probe_cache() -> None:
    """Delete all cached results, so that every plugin is probed again."""
    _cache_path().unlink(missing_ok=True)
    probe_results.cache_clear()


def run_probes(plugins: Sequence[Plugin]) -> dict[Plugin, ProbeResult]:
    """Probe each plugin in its own subprocess, because it may hang or crash. All run at once, with one time limit.

    Raises an OSError if no process can be started.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise FileNotFoundError("sys.executable is not a Python interpreter")
    seconds = probe_seconds()
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        processes = [_start_probe(plugin, seconds, stack) for plugin in plugins]
        outputs = _read_outputs(processes, deadline)
        results = [_get_result(process, outputs[process], seconds, deadline) for process in processes]
    return dict(zip(plugins, results, strict=True))


def probe_seconds() -> float:
    """Return the time limit of all probes together in seconds, `JAXLM_PROBE_SECONDS` or 25."""
    setting = os.environ.get("JAXLM_PROBE_SECONDS") or "25"
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(setting)) <= 86_400:
            return seconds
    raise ValueError(f"JAXLM_PROBE_SECONDS must be a number in (0, 86400], got {setting}; unset it or use 60")


def to_one_line(text: str) -> str:
    """Return text from a plugin without line ends and control characters, cut to 200 characters."""
    return "".join(filter(str.isprintable, " ".join(text.split())))[:200]


def _start_probe(plugin: Plugin, seconds: float, stack: contextlib.ExitStack) -> Popen[bytes]:
    """Start a probe, and let `stack` end it."""
    others = [other.module for other in installed_plugins() if other.module != plugin.module]
    kept = [name for name in os.environ if name.startswith(_INHERITED) or not name.startswith(_NOT_INHERITED)]
    environment = {name: os.environ[name] for name in kept}
    # Import from the same paths as this process, and allocate no more GPU memory than needed.
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    command = [sys.executable, "-P", "-m", "jaxlm.devices.probe_program", str(seconds), *others]
    # In a new session, so that its child processes can be killed with it.
    process = Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=environment, start_new_session=True)  # noqa: S603
    stack.enter_context(process)
    stack.callback(_kill, process)
    return process


def _read_outputs(processes: Sequence[Popen[bytes]], deadline: float) -> dict[Popen[bytes], bytes]:
    """Read all pipes at once, until each ends, is too long, or the time is over. Close those that have ended."""
    outputs, limits = dict.fromkeys(processes, b""), dict.fromkeys(processes, deadline)
    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(cast(IO[bytes], process.stdout), selectors.EVENT_READ, process)
        while selector.get_map():
            for key, _ in selector.select(0.1):
                block = os.read(key.fd, 2**16)
                outputs[key.data] += block
                if not block:
                    key.data.stdout.close()
            for key in list(selector.get_map().values()):
                process, now = key.data, time.monotonic()
                if process.poll() is not None:  # processes that the plugin started may keep the pipe open
                    limits[process] = min(limits[process], now + 1.0)
                if process.stdout.closed or len(outputs[process]) > _MAX_OUTPUT_BYTES or now >= limits[process]:
                    selector.unregister(key.fd)
    return outputs


def _get_result(process: Popen[bytes], output: bytes, seconds: float, deadline: float) -> ProbeResult:
    """Return the result of a probe from its output and how it ends."""
    if len(output) > _MAX_OUTPUT_BYTES:
        process.kill()
    try:
        status = process.wait(max(0.1, deadline - time.monotonic()))
    except TimeoutExpired:
        more = f"for more time: JAXLM_PROBE_SECONDS={math.ceil(seconds * 3)} jaxlm devices --probe"
        return ProbeResult(False, None, f"did not finish in {seconds:g} s ({more})")
    _, marker, text = output.decode(errors="replace").rpartition(RESULT_MARKER)
    retry = "(to try again: jaxlm devices --probe)"
    if len(output) > _MAX_OUTPUT_BYTES:
        reason = f"printed more than {_MAX_OUTPUT_BYTES:,} bytes"
    elif status < 0:
        reason = f"was terminated by signal {-status} ({signal.strsignal(-status)})"
    elif process.stdout and not process.stdout.closed:  # in a run, they would also block a reader of its output
        reason = "left processes running"
    elif not marker:
        last_line = to_one_line(text.strip().rpartition("\n")[2])
        reason = f"exited with code {status}" + (f": {last_line}" if last_line else "")
    else:
        result = ProbeResult(**json.loads(text.partition("\n")[0]))
        return result if result.works else result._replace(reason=f"{result.reason} {retry}")
    return ProbeResult(False, None, f"{reason} {retry}")


def _kill(process: Popen[bytes]) -> None:
    """Kill a process and its child processes."""
    with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):  # Windows has no process groups
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


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
