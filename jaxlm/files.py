"""Files that are either whole or not there, and the folder for those that can be made again."""

import os
import uuid
from pathlib import Path

import platformdirs


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes `content` (text as UTF-8, newlines as they are) beside `path`, syncs it, and renames it to `path`.

    A reader, or a crash, sees the old file or the new one, never a part.

    Raises:
        OSError: the folder is missing or cannot be written; what stood at `path` is untouched.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # a full disk names no file by itself
        raise
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where corpora and compiled programs are kept: the user's cache folder, or `JAXLM_DATA_DIR`."""
    return Path(os.environ.get("JAXLM_DATA_DIR") or platformdirs.user_cache_dir("jaxlm")).expanduser()
