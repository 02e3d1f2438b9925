"""The manifest of a run directory: options, state and environment."""

import functools
import json
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import jax

from jaxlm import __version__
from jaxlm.runs.lock import lock_run
from jaxlm.runs.metrics_log import replace_nonfinite
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.json_files import add_checksum, check_document, read_json

_VERSION = 1
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tokenizers", "numpy")


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a run directory, with the state "killed" if its process died while running.

    Raises a FileNotFoundError if `path` is not a run directory, and a ValueError if the manifest is damaged.
    """
    manifest = _read_checked(path)
    if manifest["state"] == "running":
        # A run that is locked, or not writable, may be running.
        with suppress(OSError), lock_run(path, timeout=0.1):
            manifest = _read_checked(path)  # again, because the run may have ended since
            if manifest["state"] == "running":
                manifest["state"] = "killed"
    return manifest


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Atomically write the manifest of a run directory, with its checksum."""
    document = {"version": _VERSION, **manifest}
    write_atomically(path / "manifest.json", add_checksum(replace_nonfinite(document)))


def write_json(path: Path, document: Any) -> None:
    """Atomically write a JSON document, with null in place of inf and NaN."""
    write_atomically(path, json.dumps(replace_nonfinite(document), indent=2, allow_nan=False) + "\n")


def describe_environment(device: jax.Device) -> dict[str, Any]:
    """Return what can change the last bits of a result: versions, platform, device and git commit."""
    return {
        "versions": {"python": platform.python_version(), "jaxlm": __version__, **_package_versions()},
        "platform": platform.platform(),
        "device": {"platform": device.platform, "kind": device.device_kind},
        "git": _git_commit(),
    }


def utc_now() -> str:
    """Return the date and time in UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_checked(path: Path) -> dict[str, Any]:
    origin = path / "manifest.json"
    try:
        document = read_json(origin)
    except (FileNotFoundError, NotADirectoryError):
        missing = "manifest.json is missing; `jaxlm runs` lists the runs"
        raise FileNotFoundError(f"{path} is not a run directory: {missing}") from None
    return check_document(document, _VERSION, origin=origin, what="run manifest")


@functools.cache  # 10 ms, for each run of a sweep
def _package_versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}


def _git_commit() -> dict[str, Any] | None:
    """Return the commit of the working directory, and whether a tracked file is modified."""
    command = ["git", "-c", "core.fsmonitor=false", "--no-optional-locks", "describe"]
    command += ["--always", "--exclude=*", "--abbrev=64", "--dirty"]  # the full hash instead of a tag
    with suppress(OSError, subprocess.SubprocessError):
        output = subprocess.check_output(command, stdin=DEVNULL, stderr=DEVNULL, timeout=5.0)  # noqa: S603
        name = output.decode().strip()
        return {"commit": name.removesuffix("-dirty"), "modified": name.endswith("-dirty")}
    return None
