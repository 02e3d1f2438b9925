"""A run's folder: its configuration, its metrics line by line, its results."""

import json
import math
import platform
import shutil
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from jaxlm.files import write_atomically

_PACKAGES = ("jaxlm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tokenizers", "numpy")


def new_run_path(label: str) -> Path:
    """`runs/LABEL-DATE-TIME`, below the working directory: a folder that no run before has used."""
    return Path("runs") / f"{label}-{datetime.now():%Y%m%d-%H%M%S}"


def check_run_path(path: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError unless a run may be written to `path`.

    An empty folder may be written to; one that holds a run only with `overwrite`; any other never, so that no
    mistyped path costs a user their files.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / "config.json").is_file():
        raise FileExistsError(f"{path} exists and is no run's folder; choose another --out")
    if not overwrite:
        raise FileExistsError(f"{path} holds a run; choose another --out, or replace it with --overwrite")


def create_run(path: Path, config: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Makes the run's folder, with `config.json` in it, and returns its path.

    Raises:
        FileExistsError: as `check_run_path`.
        OSError: the folder cannot be written.
    """
    check_run_path(path, overwrite=overwrite)
    try:
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        write_json(path / "config.json", config)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}); choose another --out") from None
    return path


def write_json(path: Path, document: Any) -> None:
    """Writes `document` whole or not at all. JSON knows no inf and no NaN: such a number becomes null."""
    write_atomically(path, json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")


def append_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Appends one line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_finite(metrics), allow_nan=False) + "\n")


def describe_environment(device: jax.Device) -> dict[str, Any]:
    """What a figure depends on beside the configuration: versions, platform and device."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
        "platform": platform.platform(),
        "device": {"platform": device.platform, "kind": device.device_kind},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
