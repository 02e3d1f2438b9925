"""Write a directory of token ids that a later process can complete if this one is killed."""

import io
import json
import os
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from jaxlm.text.tokenizer_files import find_tokenizer
from jaxlm.utils.atomic_files import add_filename, sync, write_atomically
from jaxlm.utils.json_files import add_checksum, check_document, file_sha256, read_json, sha256_of

_VERSION = 1
_INDEX, _PROGRESS = "index.json", "progress.json"
_SOURCES, _ENDS, _ENDS_ARRAY = "sources.jsonl", "document_ends.int64", "document_ends.npy"


@final
class TokenWriter:
    """Appends ids, ends of documents and ends of sources to a directory.

    Ids are written in shards. With each, `progress.json` records how much of the sources is in the shards. What
    was appended after that is lost when the process is killed, and a new writer continues from there.

    Args:
        path: the directory. It must exist and hold no other files than those of a writer and a tokenizer.
        job: what determines the ids, as JSON: the sources, the tokenizer, and so on.
        shard_size: number of ids after which a shard is closed.

    Raises a ValueError if a writer with another job has begun in the directory.
    """

    def __init__(self, path: Path, job: Any, dtype: Any, shard_size: int) -> None:
        self._path, self._dtype, self._shard_size = path, np.dtype(dtype), shard_size
        self._state: dict[str, Any] = {
            "version": _VERSION,
            "job": _checksum(job),
            "shards": [],
            "num_tokens": 0,  # in the shards
            "num_documents": 0,
            "num_sources": 0,  # that ended
            "sizes": {_SOURCES: 0, _ENDS: 0},  # bytes of these files
            "num_pieces": 0,  # appended of the next source
            "source_start": {"tokens": 0, "documents": 0},  # before the next source
        }
        if is_begun(path):
            state = read_fields(path / _PROGRESS)
            if state["job"] != self._state["job"]:
                remedy = "give the same options and unchanged files to continue, or choose another --out"
                raise ValueError(f"{path} holds another encoding, which is not complete; {remedy}")
            self._state = state
        else:
            self._save_state()
        self._ids: list[NDArray[Any]] = []
        self._num_ids = 0  # that wait for a shard
        self._rows = {_SOURCES: bytearray(), _ENDS: bytearray()}  # that wait to be appended to these files

    @property
    def position(self) -> tuple[int, int]:
        """The number of sources that ended, and the number of pieces of the next one that are written."""
        return self._state["num_sources"], self._state["num_pieces"]

    @property
    def num_tokens(self) -> int:
        """The number of ids appended so far."""
        return self._state["num_tokens"] + self._num_ids

    def append(self, ids: NDArray[Any], *, ends_document: bool) -> None:
        """Append the ids [T] of a piece of the current source."""
        self._ids.append(ids.astype(self._dtype))
        self._num_ids += len(ids)
        self._state["num_pieces"] += 1
        if ends_document:
            self._rows[_ENDS] += self.num_tokens.to_bytes(8, "little")
            self._state["num_documents"] += 1
        if self._num_ids >= self._shard_size:
            self._close_shard()

    def end_source(self, path: Path) -> None:
        """Record the end of a source."""
        totals = {"tokens": self.num_tokens, "documents": self._state["num_documents"]}
        row: dict[str, Any] = {"path": str(path), "num_bytes": path.stat().st_size}
        row |= {f"num_{name}": total - self._state["source_start"][name] for name, total in totals.items()}
        self._rows[_SOURCES] += json.dumps(row).encode() + b"\n"
        self._state["num_sources"] += 1
        self._state |= {"num_pieces": 0, "source_start": totals}

    def finish(self, vocab_size: int) -> None:
        """Write the remaining ids and, last, the index."""
        if self._num_ids:
            self._close_shard()
        self._append_rows()
        write_atomically(self._path / _ENDS_ARRAY, _npy(np.fromfile(self._path / _ENDS, "<i8")))
        files = {"sources": _SOURCES, "document_ends": _ENDS_ARRAY, "tokenizer": find_tokenizer(self._path).name}
        names = "num_tokens", "num_documents", "num_sources", "job", "shards"
        document = {"version": _VERSION, "vocab_size": vocab_size, "dtype": str(self._dtype)}
        document |= {name: self._state[name] for name in names}
        document |= {
            name: {"file": file, "sha256": file_sha256(self._path / file)} for name, file in files.items()
        }
        write_atomically(self._path / _INDEX, add_checksum(document))
        for name in (_PROGRESS, _ENDS):
            (self._path / name).unlink()

    def _close_shard(self) -> None:
        ids = np.concatenate(self._ids)
        content = _npy(ids)
        name = f"{len(self._state['shards']):06}.npy"
        write_atomically(self._path / name, content)
        self._state["shards"].append({"file": name, "num_tokens": len(ids), "sha256": sha256_of(content)})
        self._state["num_tokens"] += len(ids)
        self._ids, self._num_ids = [], 0
        self._append_rows()
        self._save_state()

    def _append_rows(self) -> None:
        for name, rows in self._rows.items():
            self._state["sizes"][name] = _append(self._path / name, self._state["sizes"][name], rows)
            rows.clear()

    def _save_state(self) -> None:
        write_atomically(self._path / _PROGRESS, add_checksum(self._state))


def is_begun(path: Path) -> bool:
    """Return whether a writer has begun in the directory and not finished."""
    return (path / _PROGRESS).exists()


def is_finished(path: Path, job: Any) -> bool:
    """Return whether a writer has finished in the directory. Raise a ValueError if it had another job."""
    if not (path / _INDEX).exists():
        return False
    if read_fields(path / _INDEX)["job"] != _checksum(job):
        raise ValueError(f"{path} holds another encoding; choose another --out, or give the same options")
    for name in (_PROGRESS, _ENDS):  # left by a process that was killed at the end
        (path / name).unlink(missing_ok=True)
    return True


def _checksum(job: Any) -> str:
    return sha256_of(json.dumps(job, sort_keys=True).encode())


def read_fields(path: Path) -> dict[str, Any]:
    """Return the fields of `index.json` or `progress.json`. Raises the errors of `check_document`."""
    return check_document(read_json(path), _VERSION, origin=path, what="token directory")


def _append(path: Path, size: int, rows: bytearray) -> int:
    """Append rows to the first `size` bytes of a file, which may be longer, and return the new size."""
    path.touch()
    os.truncate(path, size)
    with add_filename(path):
        with path.open("ab") as file:
            file.write(rows)
        sync(path)
    return size + len(rows)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
