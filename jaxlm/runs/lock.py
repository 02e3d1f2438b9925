"""Lock a run directory, so that only one process writes to it."""

from contextlib import AbstractContextManager, suppress
from pathlib import Path

from jaxlm.utils.directory_lock import lock_directory
from jaxlm.utils.json_files import read_json


def lock_run(path: Path, timeout: float = 1.0) -> AbstractContextManager[object]:
    """Acquire the lock of a run directory; see `lock_directory`. Readers hold it only briefly.

    The BlockingIOError names the process that the manifest of a running run names.
    """
    try:
        return lock_directory(path, timeout)
    except BlockingIOError as error:
        raise BlockingIOError(f"{error}{_describe_holder(path)}") from None


def _describe_holder(path: Path) -> str:
    with suppress(OSError, ValueError):
        match read_json(path / "manifest.json"):
            case {"state": "running", "process": {"pid": int(pid), "host": str(host)}}:
                return f"; process {pid} on {host} holds it"
    return ""
