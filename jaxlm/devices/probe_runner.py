"""JAX's accelerator plugins tried, each in a subprocess, with what `plugin_probe.py` holds.

A plugin is code of its own, and one that is broken takes the process with it: it may abort, hang, or give wrong
numbers. Nothing here imports JAX.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxlm.devices.plugins import Plugin, installed_plugins
from jaxlm.utils.json_files import read_json

# Seconds that the probes have, all together; `JAXLM_PROBE_SECONDS` gives them more.
_PROBE_SECONDS, _MOST_PROBE_SECONDS = 25.0, 86_400
_POLL_SECONDS = 0.02
# What a process that its plugin started may outlast it.
_FAREWELL_SECONDS = 0.5
_REMEDY = " (jaxlm devices --probe tries it again)"
# JAX's own words are a hundredth of that; a terminal drowns in more.
_MOST_NOISE = 2**20

# Below so many weights no accelerator pays, whatever a probe measured: a step takes the CPU 0.1 ms.
SMALL_MODEL = 10_000

# A day's settings of JAX and Python, as a guard of transfers or warnings as errors, are no fault of a plugin: the
# probe inherits none but those that say what a device is, or whether it is to compute in 64 bits.
_OF_JAX_OR_PYTHON = "JAX_", "JAXLM_", "PYTHON", "PJRT_NAMES_AND_LIBRARY_PATHS"
_INHERITED = "JAX_ENABLE_X64", "PYTHONHOME"
_OF_PLUGINS = tuple(f"JAX_{name}_" for name in ("CUDA", "GRAFT", "METAL", "MPS", "MTL", "PJRT", "ROCM", "TPU"))


class ProbeResult(NamedTuple):
    """Whether a plugin gave the CPU's values, and on which of JAX's platforms; the reason goes on after its name.

    `seconds` is what a compiled step of a model of 255,000 weights took there. With `worthwhile_from` weights or more
    it should be faster than the CPU beside it; None where it never is, or was not measured.
    """

    works: bool
    platform: str | None
    reason: str
    seconds: float | None = None
    worthwhile_from: int | None = None


def run_probes(plugins: Sequence[Plugin]) -> dict[Plugin, ProbeResult]:
    """Tries each plugin in a process of its own. They run together, so that many take no longer than one may.

    Raises:
        OSError: no process can be started, or there is no folder for what it writes.
        ValueError: `JAXLM_PROBE_SECONDS` is no number of seconds.
    """
    seconds = probe_seconds()
    if not sys.executable or getattr(sys, "frozen", False):
        raise FileNotFoundError("this program has no Python beside it")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trials: dict[Plugin, _ProbeProcess] = {}
        try:
            for plugin in plugins:
                trials[plugin] = _start(plugin, Path(folder, f"{len(trials)}"), seconds)
            deadline = time.monotonic() + seconds
            while [trial for trial in trials.values() if _goes_on(trial)] and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            return {plugin: _outcome(trial, seconds) for plugin, trial in trials.items()}
        finally:
            for trial in trials.values():
                _end(trial.process)


def probe_seconds() -> float:
    """How long the plugins are tried at most, all of them together."""
    chosen = os.environ.get("JAXLM_PROBE_SECONDS") or _PROBE_SECONDS
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(chosen)) <= _MOST_PROBE_SECONDS:
            return seconds
    raise ValueError(
        f"JAXLM_PROBE_SECONDS={chosen} is no number of seconds up to {_MOST_PROBE_SECONDS:,}; unset it, or say 60"
    )


def is_inherited(name: str) -> bool:
    """Whether a probe is given this environment variable of JAX's, Python's or a plugin's."""
    return name in _INHERITED or name.startswith(_OF_PLUGINS)


def probe_result_from_json(document: Any) -> ProbeResult:
    """The verdict that `Verdict._asdict` became. Raises a ValueError where it is none."""
    match document:
        case {
            "works": bool(works),
            "platform": str() | None as platform_name,
            "reason": str(reason),
            "seconds": float() | None as seconds,
            "pays_from": int() | None as worthwhile_from,
        }:
            return ProbeResult(works, platform_name, reason, seconds, worthwhile_from)
    raise ValueError("no verdict")


def one_line(text: str, most: int = 200) -> str:
    """Another's words as part of a line: no line ends, nothing that steers a terminal, and not too many.

    >>> one_line("a plugin's\\n  last \\x1b[31mwords", 20)
    "a plugin's last [31m"
    """
    return "".join(filter(str.isprintable, " ".join(text.split())))[:most]


class _ProbeProcess(NamedTuple):
    """A probe that was started: its process, and the files of its verdict and of all that it prints."""

    process: subprocess.Popen[bytes]
    answer: Path
    noise: Path


def _start(plugin: Plugin, path: Path, seconds: float) -> _ProbeProcess:
    answer, noise = path.with_suffix(".json"), path.with_suffix(".txt")
    others = [other.module for other in installed_plugins() if other.module != plugin.module]
    words = ["-m", "jaxlm.plugin_probe", str(answer), str(seconds), plugin.module, *others]
    environment = {
        name: value
        for name, value in os.environ.items()
        if is_inherited(name) or not name.startswith(_OF_JAX_OR_PYTHON)
    }
    # It imports what this process would, and takes no more of a GPU's memory than it needs.
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with noise.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,  # a group of its own, so that all that it starts can be ended with it
        )
    return _ProbeProcess(process, answer, noise)


def _goes_on(trial: _ProbeProcess) -> bool:
    if trial.process.poll() is None and _is_noisy(trial):
        _end(trial.process)
    return trial.process.poll() is None


def _is_noisy(trial: _ProbeProcess) -> bool:
    return trial.noise.stat().st_size > _MOST_NOISE


def _outcome(trial: _ProbeProcess, seconds: float) -> ProbeResult:
    status = trial.process.returncode
    if _is_noisy(trial):
        reason = f"prints more than {_MOST_NOISE:,} bytes"
    elif status is None:
        longer = f"JAXLM_PROBE_SECONDS={math.ceil(seconds * 3)} jaxlm devices --probe"
        reason = f"gave no answer in {seconds:g} s ({longer} gives it more)"
    elif status < 0:
        reason = f"ended its process by {_name_of_signal(-status)}"
    else:
        try:
            verdict = probe_result_from_json(read_json(trial.answer))
        except (OSError, ValueError):
            last = trial.noise.read_text("utf-8", "replace").strip().rpartition("\n")[2]
            reason = f"ended its process with exit code {status}" + (f": {one_line(last)}" if last else "")
        else:
            if not verdict.works:
                return verdict._replace(reason=verdict.reason + _REMEDY)
            if not _leaves_processes(trial.process):
                return verdict
            reason = "leaves processes behind"
    return ProbeResult(works=False, platform=None, reason=reason if status is None else reason + _REMEDY)


def _leaves_processes(process: subprocess.Popen[bytes]) -> bool:
    """Whether what an ended process started goes on. The output that it holds would keep a reader waiting."""
    deadline = time.monotonic() + _FAREWELL_SECONDS
    while is_left := os.name == "posix" and _runs(process.pid):
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    return is_left


def _runs(group: int) -> bool:
    """Whether a process of the group runs. A zombie has ended, and only waits for init, which may take seconds."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    seen = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has gone meanwhile
            state, _, its_group = path.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
            seen.append((int(its_group), state))
    return not seen or any(its_group == group and state not in ("Z", "X") for its_group, state in seen)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and all that it started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
