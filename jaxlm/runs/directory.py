"""A run's folder: one process at a time works in it, and its manifest says what it is of and how it stands."""

import itertools
import json
import logging
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import jax

from jaxlm.files import check_seal, check_version, is_temporary, read_json, remove, seal, write_atomically
from jaxlm.metrics import finite, is_figure, read_metrics

if sys.platform != "win32":
    import fcntl

# All that a run writes: nothing else is ever removed. The manifest, which tells a run from others, stands last.
_ENTRIES = (
    "metrics.jsonl",
    "checkpoints",
    "model",
    "models",
    "tokenizer.json",
    "tensorboard",
    "samples.txt",
    "curves.png",
    "counts.png",
    "table.txt",
    "picture.png",
    "roofline.png",
    "speedups.png",
    "growth.png",
    "report.html",
    "results.json",
    "config.json",
    "manifest.json",
)
_LOCK = ".lock"
_LOCK_SECONDS = 1.0  # a reader that looks whether a run still runs holds the lock for less
_GIT_SECONDS = 5.0
_MANIFEST_VERSION = 1

_PACKAGES = ("jaxlm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tokenizers", "numpy")


def new_run_path(label: str) -> Path:
    """`runs/LABEL-DATE-TIME`, made below the working directory: an empty folder, given to no other process."""
    for path in paths_by_time(label):
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("the names do not end")


def paths_by_time(label: str, suffix: str = "") -> Iterator[Path]:
    """`runs/LABEL-DATE-TIME`, with the suffix, and where that is taken `runs/LABEL-DATE-TIME-2` and so on."""
    name = f"{label}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        yield Path("runs") / f"{name}{f'-{number}' if number > 1 else ''}{suffix}"


def check_run_path(path: Path, *, overwrite: bool) -> None:
    """Raises FileExistsError unless a run may be written to `path`.

    An empty folder may be written to; one that holds a run, and nothing else, only with `overwrite`; any other
    never, so that no mistyped path costs a user their files.
    """
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    entries = [name for name in names if name != _LOCK and not is_temporary(name)]
    if not entries and (path.is_dir() or not path.exists()):
        return
    if not is_run(path):
        raise FileExistsError(f"{path} exists and is no run's folder; choose another --out")
    if not overwrite:
        raise FileExistsError(
            f"{path} holds a run; choose another --out, go on with it by --resume, or replace it with --overwrite"
        )
    if foreign := [name for name in entries if name not in _ENTRIES]:
        raise FileExistsError(
            f"{path} holds {foreign[0]!r}, which no run wrote; move it away, or choose another --out"
        )


@contextmanager
def create_run(
    path: Path,
    kind: str,
    config: Mapping[str, Any],
    device: jax.Device,
    *,
    facts: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Iterator[Path]:
    """A new run's folder, for the block alone, with its manifest and config: `running` until the block ends.

    How the block ends is the run's state: `done`, `interrupted` (KeyboardInterrupt), or `failed` and why.

    Args:
        kind: what wrote it, as "train".
        facts: what else the manifest says, such as the text's sha256.

    Raises:
        FileExistsError: as `check_run_path`.
        BlockingIOError: another process works in it.
        OSError: the folder cannot be written.
    """
    check_run_path(path, overwrite=overwrite)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error}); choose another --out") from None
    with lock_run(path):
        check_run_path(path, overwrite=overwrite)
        manifest = {
            "version": _MANIFEST_VERSION,
            "kind": kind,
            "started": _now(),
            "sessions": 0,
            "seconds": 0.0,
            "notes": [],
            "config": dict(config),
            **(facts or {}),
        }
        if is_run(path):  # so that what is half removed is taken neither for the old run nor for the new one
            cleared = {"kind": "cleared", "state": "failed", "why": "it was being replaced", "ended": _now()}
            write_manifest(path, {**manifest, **cleared})
        for name in _ENTRIES:
            remove(path / name)
        with run_session(path, manifest, device):
            write_json(path / "config.json", config)
            yield path


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """The one process that writes to the run's folder. A process that dies, however it does, holds it no longer.

    Raises:
        BlockingIOError: another process has it.
        OSError: the folder cannot be written.
    """
    lock = filelock.FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=_LOCK_SECONDS, poll_interval=_LOCK_SECONDS / 200)  # readers may follow one another
    except filelock.Timeout:
        raise BlockingIOError(
            f"another process works in {path}{_holder(path)}; wait until it ends, or choose another folder"
        ) from None
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def run_session(path: Path, manifest: Mapping[str, Any], device: jax.Device) -> Iterator[None]:
    """Writes the manifest for the time of the block, as `running`, and after it as what came of it.

    For a process that holds the lock of the run.
    """
    begin = time.monotonic()
    process = {"pid": os.getpid(), "host": socket.gethostname()}
    running = {
        **manifest,
        "sessions": manifest["sessions"] + 1,
        "process": process,
        **describe_environment(device),
    }
    _remove_leftovers(path)
    write_manifest(path, {**running, "state": "running", "why": None, "ended": None})

    def end(state: str, why: str | None = None) -> None:
        seconds = manifest["seconds"] + time.monotonic() - begin
        write_manifest(path, {**running, "state": state, "why": why, "ended": _now(), "seconds": seconds})

    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        why = str(error).partition("\n")[0][:500] or type(error).__name__
        try:
            end("interrupted" if interrupted else "failed", why)
        except OSError as second:  # a full disk, say: what ended the run is the news
            logging.getLogger(__name__).warning("%s does not say how it ended: %s", path, second)
        raise
    end("done")


def read_manifest(path: Path) -> dict[str, Any]:
    """What the run's `manifest.json` says; its `state` is `killed` where `running` is no longer true.

    Raises:
        FileNotFoundError: there is no run at `path`.
        ValueError: the manifest is damaged, or a later version's; the message names it.
    """
    manifest = _checked_manifest(path)
    if manifest["state"] == "running":
        with _nobody_writes(path) as is_sure:
            if is_sure:
                manifest = _checked_manifest(path)  # once more: it may have ended since
                if manifest["state"] == "running":
                    manifest["state"] = "killed"
    return manifest


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the run's `manifest.json`, sealed, whole or not at all."""
    write_atomically(path / "manifest.json", seal(finite(dict(manifest))))


def write_json(path: Path, document: Any) -> None:
    """Writes `document` whole or not at all. JSON knows no inf and no NaN: such a number becomes null."""
    write_atomically(path, json.dumps(finite(document), indent=2, allow_nan=False) + "\n")


def is_run(path: Path) -> bool:
    """Whether a run was written to `path`, damaged or not: it has a manifest that names its kind."""
    try:
        document = read_json(path / "manifest.json")
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"kind", "state", "sessions", "config"} <= document.keys()


def summarise_run(path: Path) -> dict[str, Any]:
    """A run's headline figures: those of its best model, or, until it is done, of its last record.

    Nothing raises: where a file is damaged, `state` and `why` say so.
    """
    summary: dict[str, Any] = dict.fromkeys(
        ("model", "steps", "nats_per_token", "perplexity", "bits_per_byte", "train_seconds", "why", "started")
    )
    summary |= {"run": path.name, "path": str(path), "kind": None}
    try:
        manifest = read_manifest(path)
        summary |= {name: manifest[name] for name in ("kind", "state", "why", "started")}
        return summary | _figures(path, manifest)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        return summary | {"state": "damaged", "why": str(error)}


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """`summarise_run` of each run in `folder`, in the order in which they were started.

    Raises:
        OSError: there is no such folder.
    """
    paths = (path for path in sorted(folder.iterdir()) if (path / "manifest.json").is_file())
    return sorted(map(summarise_run, paths), key=lambda summary: (summary["started"] or "", summary["run"]))


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


def _figures(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    metrics = read_metrics(path / "metrics.jsonl")
    steps = {"steps": max((line["step"] + 1 for line in metrics), default=None)}
    try:
        rows = read_json(path / "results.json").get("models", [])
    except FileNotFoundError:
        rows = []
    if rows:
        unknown = float("inf")
        best = min(rows, key=lambda row: unknown if row["nats_per_token"] is None else row["nats_per_token"])
        named = ("nats_per_token", "perplexity", "bits_per_byte", "train_seconds")
        figures = {name: best[name] for name in named}
        if not isinstance(best["title"], str) or not all(map(is_figure, figures.values())):
            raise ValueError(f"{path / 'results.json'} is damaged: its figures are no numbers")
        return {"model": best["title"], **steps, **figures}
    last: dict[str, Any] = metrics[-1] if metrics else {}
    figures = {"nats_per_token": last.get("val_nats_per_token"), "perplexity": last.get("val_perplexity")}
    return {"model": manifest["config"].get("model"), **steps, **figures}


def _remove_leftovers(path: Path) -> None:
    """Removes what a process that died was writing: whole or not, nobody has seen it."""
    for folder in (path, path / "checkpoints"):
        for entry in folder.iterdir() if folder.is_dir() else []:
            if is_temporary(entry.name):
                remove(entry)


def _checked_manifest(path: Path) -> dict[str, Any]:
    origin = path / "manifest.json"
    try:
        document = read_json(origin)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} holds no run: manifest.json is missing") from None
    check_version(document, _MANIFEST_VERSION, origin=origin, what="run's manifest")
    manifest = check_seal(document, origin=origin)
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


def _holder(path: Path) -> str:
    """Who works in the folder, once their manifest says so."""
    try:
        manifest = read_json(path / "manifest.json")
        process = manifest["process"]
        return f" (process {process['pid']} on {process['host']})" if manifest["state"] == "running" else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


@contextmanager
def _nobody_writes(path: Path) -> Iterator[bool]:
    """Whether no process works in the folder, for sure; and for the block none begins to.

    The lock is shared, so that readers do not take each other for the writer, and a folder that may only be read
    will do.
    """
    with ExitStack() as lock:
        try:
            if sys.platform == "win32":
                lock.enter_context(filelock.FileLock(path / _LOCK, timeout=_LOCK_SECONDS / 10))
            else:
                descriptor = os.open(path / _LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
                lock.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass  # a copy of a run's folder, made without hidden files
        except OSError:  # held by another; or it cannot be known
            yield False
            return
        yield True


def _now() -> str:
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
