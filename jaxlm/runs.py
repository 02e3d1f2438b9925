"""A run's folder: its configuration, its metrics line by line, its results."""

import itertools
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

# All that a run writes: nothing else is ever removed. The mark, in config.json, tells a run from other folders.
_ENTRIES = (
    "config.json",
    "metrics.jsonl",
    "models",
    "samples.txt",
    "curves.png",
    "counts.png",
    "table.txt",
    "roofline.png",
    "speedups.png",
    "growth.png",
    "report.html",
    "results.json",
)
_MARK = "jaxlm_run"

_PACKAGES = ("jaxlm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tokenizers", "numpy")


def new_run_path(label: str) -> Path:
    """`runs/LABEL-DATE-TIME`, below the working directory: a folder that is not there yet."""
    path = Path("runs") / f"{label}-{datetime.now():%Y%m%d-%H%M%S}"
    later = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], later) if not candidate.exists())


def check_run_path(path: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError unless a run may be written to `path`.

    An empty folder may be written to; one that holds a run, and nothing else, only with `overwrite`; any other
    never, so that no mistyped path costs a user their files.
    """
    entries = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if not entries and not path.is_file():
        return
    if not _is_run(path):
        raise FileExistsError(f"{path} exists and is no run's folder; choose another --out")
    if not overwrite:
        raise FileExistsError(f"{path} holds a run; choose another --out, or replace it with --overwrite")
    if foreign := [name for name in entries if name not in _ENTRIES]:
        raise FileExistsError(
            f"{path} holds {foreign[0]!r}, which no run wrote; move it away, or choose another --out"
        )


def create_run(path: Path, config: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Makes the run's folder, with `config.json` in it, and returns its path.

    Raises:
        FileExistsError: as `check_run_path`.
        OSError: the folder cannot be written.
    """
    check_run_path(path, overwrite=overwrite)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in _ENTRIES:
            if (path / name).is_dir():
                shutil.rmtree(path / name)
            else:
                (path / name).unlink(missing_ok=True)
        write_json(path / "config.json", {_MARK: 1, **config})
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error}); choose another --out") from None
    return path


def write_json(path: Path, document: Any) -> None:
    """Writes `document` whole or not at all. JSON knows no inf and no NaN: such a number becomes null."""
    write_atomically(path, json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")


def append_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Appends one line of JSON. Raises OSError, which names the path, where it cannot."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(metrics), allow_nan=False) + "\n")
    except OSError as error:
        error.filename = str(path)
        raise


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


def _is_run(path: Path) -> bool:
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and _MARK in config


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
