"""Run `probe_program.py` in a subprocess for each plugin. Nothing here imports JAX."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from jaxlm.devices.plugins import Plugin, installed_plugins

RESULT_MARKER = "jaxlm probe result: "  # a probe prints this and, in the same line, its result as JSON

_GRACE_SECONDS = 1.0  # how long processes that a plugin started may outlive its probe
_MAX_OUTPUT_BYTES = 2**20  # a hundred times what JAX logs; a plugin that prints more would do so in every run

# Prefixes of environment variables. A probe inherits JAX's and Python's settings only for devices and 64-bit mode.
# Others, such as transfer guards or warnings as errors, could make a plugin look broken.
_NOT_INHERITED = "JAX_", "JAXLM_", "PYTHON", "PJRT_NAMES_AND_LIBRARY_PATHS"
_PLUGINS = "CUDA", "GRAFT", "METAL", "MPS", "MTL", "PJRT", "ROCM", "TPU"
INHERITED = "JAX_ENABLE_X64", "PYTHONHOME", *(f"JAX_{plugin}_" for plugin in _PLUGINS)


class ProbeResult(NamedTuple):
    """The result of probing a plugin."""

    works: bool  # every computation matched the CPU
    platform: str | None  # JAX's platform name; None if the probe failed earlier
    reason: str  # completes a sentence that starts with the plugin's name
    seconds: float | None = None  # per training step of a model of 255,000 parameters
    worthwhile_from: int | None = None  # number of parameters from which it beats the CPU


def run_probes(plugins: Sequence[Plugin]) -> dict[Plugin, ProbeResult]:
    """Probe each plugin in its own subprocess, because it may hang or crash. All run at once, with one time limit.

    Raises an OSError if no process can be started.
    """
    seconds = probe_seconds()
    with contextlib.ExitStack() as stack:
        probes = {plugin: _start_probe(plugin, seconds, stack) for plugin in plugins}
        deadline = time.monotonic() + seconds
        for probe in probes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                probe.process.wait(max(0, deadline - time.monotonic()))
        return {plugin: _get_result(probe, seconds) for plugin, probe in probes.items()}


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


class _ProbeProcess(NamedTuple):
    process: subprocess.Popen[bytes]
    output: list[bytes]  # empty while `reader` reads
    reader: threading.Thread


def _start_probe(plugin: Plugin, seconds: float, stack: contextlib.ExitStack) -> _ProbeProcess:
    """Start a probe, and let `stack` end it."""
    others = [other.module for other in installed_plugins() if other.module != plugin.module]
    kept = [name for name in os.environ if name.startswith(INHERITED) or not name.startswith(_NOT_INHERITED)]
    environment = {name: os.environ[name] for name in kept}
    # Import from the same paths as this process, and allocate no more GPU memory than needed.
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", "jaxlm.devices.probe_program", str(seconds), *others],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # so that its child processes can be killed with it
    )
    stack.callback(_kill, process)
    output: list[bytes] = []
    reader = threading.Thread(target=_read_output, args=(process.stdout, output), daemon=True)
    reader.start()
    return _ProbeProcess(process, output, reader)


def _read_output(pipe: IO[bytes], output: list[bytes]) -> None:
    """Read until the pipe is closed or the output limit is reached."""
    with pipe:
        output.append(pipe.read(_MAX_OUTPUT_BYTES + 1))


def _get_result(probe: _ProbeProcess, seconds: float) -> ProbeResult:
    if (status := probe.process.poll()) is None:
        more = f"for more time: JAXLM_PROBE_SECONDS={math.ceil(seconds * 3)} jaxlm devices --probe"
        return ProbeResult(False, None, f"did not finish in {seconds:g} s ({more})")
    probe.reader.join(_GRACE_SECONDS)
    output, platform = b"".join(probe.output), None
    _, marker, text = output.decode(errors="replace").rpartition(RESULT_MARKER)
    if len(output) > _MAX_OUTPUT_BYTES:
        reason = f"printed more than {_MAX_OUTPUT_BYTES:,} bytes"
    elif status < 0:
        reason = f"was terminated by signal {-status} ({signal.strsignal(-status)})"
    elif probe.reader.is_alive():  # in a run, they would also block a reader that waits for the end of its output
        reason = "left processes running"
    elif not marker:
        last_line = to_one_line(text.strip().rpartition("\n")[2])
        reason = f"exited with code {status}" + (f": {last_line}" if last_line else "")
    else:
        result = ProbeResult(**json.loads(text.partition("\n")[0]))
        if result.works:
            return result
        platform, reason = result.platform, result.reason
    return ProbeResult(False, platform, f"{reason} (to try again: jaxlm devices --probe)")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its child processes."""
    with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):  # Windows has no process groups
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
