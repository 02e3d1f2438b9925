"""Locate the cache directory."""

import functools
import logging
import os
import tempfile
from pathlib import Path

import platformdirs

from jaxlm.utils.atomic_files import expand


def cache_directory() -> Path:
    """Return `JAXLM_DATA_DIR` if set, which may not exist, else jaxlm's directory in the user's cache.

    If the user's cache cannot be written, or there is no home directory, return a directory for temporary files.
    """
    if chosen := os.environ.get("JAXLM_DATA_DIR"):
        return expand(chosen)
    try:
        path = expand(platformdirs.user_cache_dir("jaxlm"))
        if not path.is_absolute():
            raise FileNotFoundError("no home directory")
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} is not writable")
        return path
    except (OSError, RuntimeError) as error:  # platformdirs raises a RuntimeError without a home directory
        return _temporary_directory(str(error))


@functools.cache  # one warning
def _temporary_directory(reason: str) -> Path:
    user = getattr(os, "getuid", int)()
    path = Path(tempfile.gettempdir(), f"jaxlm-{user}")
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid != user:  # compiled programs of somebody else could run anything
        path = Path(tempfile.mkdtemp(prefix="jaxlm-"))
    problem = f"cannot use the user's cache directory ({reason})"
    logging.getLogger(__name__).warning("%s: using %s; set JAXLM_DATA_DIR to choose", problem, path)
    return path
