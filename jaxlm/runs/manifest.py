"""manifest."""

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxlm.runs.lock import try_shared_lock
from jaxlm.runs.metrics_log import replace_nonfinite
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.checksums import add_checksum, verify_checksum
from jaxlm.utils.json_files import check_version, read_json

_GIT_SECONDS = 5.0
MANIFEST_VERSION = 1

_PACKAGES = ("jaxlm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tokenizers", "numpy")


def read_manifest(path: Path) -> dict[str, Any]:
    """What the run's `manifest.json` says; its `state` is `killed` where `running` is no longer true.

    Raises:
        FileNotFoundError: there is no run at `path`.
        ValueError: the manifest is damaged, or a later version's; the message names it.
    """
    manifest = _checked_manifest(path)
    if manifest["state"] == "running":
        with try_shared_lock(path) as is_sure:
            if is_sure:
                manifest = _checked_manifest(path)  # once more: it may have ended since
                if manifest["state"] == "running":
                    manifest["state"] = "killed"
    return manifest


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the run's `manifest.json`, sealed, whole or not at all."""
    write_atomically(path / "manifest.json", add_checksum(replace_nonfinite(dict(manifest))))


def write_json(path: Path, document: Any) -> None:
    """Writes `document` whole or not at all. JSON knows no inf and no NaN: such a number becomes null."""
    write_atomically(path, json.dumps(replace_nonfinite(document), indent=2, allow_nan=False) + "\n")


def describe_environment(device: jax.Device) -> dict[str, Any]:
    """What a figure depends on beside the configuration: versions, platform, device, and the user's commit."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
        "platform": platform.platform(),
        "device": {"platform": device.platform, "kind": device.device_kind},
        "git": _git_commit(),
    }


def _checked_manifest(path: Path) -> dict[str, Any]:
    origin = path / "manifest.json"
    try:
        document = read_json(origin)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} holds no run: manifest.json is missing") from None
    check_version(document, MANIFEST_VERSION, origin=origin, what="run's manifest")
    manifest = verify_checksum(document, origin=origin)
    match manifest:
        case {
            "kind": str(),
            "state": str(),
            "why": str() | None,
            "started": str(),
            "sessions": int(),
            "seconds": int() | float(),
            "notes": list(),
            "config": dict(),
        }:
            return manifest
    raise ValueError(f"{origin} is damaged: its fields are not those of a run")


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> dict[str, Any] | None:
    """The commit that is checked out in the working directory, and whether a tracked file differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(  # noqa: S603
            ["git", "-c", "core.fsmonitor=false", "--no-optional-locks", *words],  # noqa: S607
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GIT_SECONDS,
            check=True,
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "modified": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None
