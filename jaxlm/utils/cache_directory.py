"""Locate the cache directory."""

import os
from pathlib import Path

import platformdirs


def cache_directory() -> Path:
    """Return `JAXLM_DATA_DIR` if set, else jaxlm's directory in the user's cache. It may not exist yet."""
    return Path(os.environ.get("JAXLM_DATA_DIR") or platformdirs.user_cache_dir("jaxlm")).expanduser()
