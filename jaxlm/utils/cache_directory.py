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
    chosen = os.environ.get("JAXLM_DATA_DIR")
    if chosen:
        return expand(chosen)
    try:
        return _usable_directory(expand(platformdirs.user_cache_dir("jaxlm")))
    except RuntimeError:  # without a home directory; older versions of platformdirs return a relative path
        return _usable_directory(Path())


@functools.cache  # one warning
def _usable_directory(path: Path) -> Path:
    try:
        if not path.is_absolute():
            raise FileNotFoundError("no home directory")
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError("it is not writable")
        return path
    except OSError as error:
        user = getattr(os, "getuid", int)()
        temporary = Path(tempfile.gettempdir(), f"jaxlm-{user}")
        temporary.mkdir(mode=0o700, exist_ok=True)
        if temporary.lstat().st_uid != user:  # compiled programs of somebody else could run anything
            temporary = Path(tempfile.mkdtemp(prefix="jaxlm-"))
        reason = f"cannot use the user's cache directory ({error.strerror or error})"
        logging.getLogger(__name__).warning("%s: using %s; set JAXLM_DATA_DIR to choose", reason, temporary)
        return temporary
