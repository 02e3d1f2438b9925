"""cache_directory."""

import os
from pathlib import Path

import platformdirs


def cache_directory() -> Path:
    """Where corpora and compiled programs are kept: the user's cache folder, or `JAXLM_DATA_DIR`."""
    return Path(os.environ.get("JAXLM_DATA_DIR") or platformdirs.user_cache_dir("jaxlm")).expanduser()
