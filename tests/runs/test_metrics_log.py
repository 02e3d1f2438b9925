"""`metrics.jsonl` holds whole lines alone, whatever happens while one is written."""

import errno
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxlm.runs.metrics_log import append_metrics, read_metrics, replace_nonfinite, truncate_metrics

# Files end at 100 bytes, as a full disk ends them: in the midst of a line.
FULL = """
import resource, sys
from pathlib import Path
from jaxlm.metrics import append_metrics

resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
for step in range(10):
    append_metrics(Path(sys.argv[1]), {"step": step, "loss": 0.5})
"""


def record(step):
    return {"model": "mlp", "step": step, "train_loss": 0.5}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_metrics_are_one_object_a_line(path):
    for step in range(3):
        append_metrics(path, record(step) | {"train_loss": math.inf})
    lines = path.read_text("utf-8").splitlines()
    wanted = [record(step) | {"train_loss": None} for step in range(3)]
    assert [json.loads(line) for line in lines] == wanted
    assert read_metrics(path) == wanted


def test_what_is_returned_is_what_was_written(path):
    lines = [append_metrics(path, {"step": step, "model": "mlp\n"}) for step in range(3)]
    assert path.read_bytes() == b"".join(lines)
    assert [line.count(b"\n") for line in lines] == [1, 1, 1]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none/metrics\.jsonl"):
        append_metrics(tmp_path / "none" / "metrics.jsonl", {})


def test_no_file_holds_no_metrics(path):
    assert read_metrics(path) == []
    path.write_bytes(b"")
    assert read_metrics(path) == []


@pytest.mark.parametrize("torn", ['{"step": 1', json.dumps(record(1)), "{", "é"])
def test_a_torn_last_line_is_left_out(path, torn):
    append_metrics(path, record(0))
    with path.open("a", encoding="utf-8") as file:
        file.write(torn)
    assert read_metrics(path) == [record(0)]


@pytest.mark.parametrize(
    "damaged", [b'{"step": 1', b"", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}{}", b'{"step": 1}']
)
def test_a_damaged_line_is_an_error_that_names_file_and_line(path, damaged):
    line = json.dumps(record(0)).encode()
    path.write_bytes(b"\n".join([line, damaged, line, b""]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged: line 2 is no record of training"):
        read_metrics(path)


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"step": -1},
        {"step": 2**31},
        {"step": 1.5},
        {"train_loss": "x"},
        {"train_loss": True},
        {"val_perplexity": 10**400},
        {"val_nats_per_token": [1]},
    ],
)
def test_a_record_of_other_fields_is_damaged(path, change):
    path.write_text(json.dumps(record(0) | change) + "\n", "utf-8")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged: line 1 is no record of training"):
        read_metrics(path)


@pytest.mark.parametrize("written", [0, 7])
def test_a_line_that_does_not_fit_is_taken_back(path, monkeypatch, written):
    append_metrics(path, record(0))
    before = path.read_bytes()

    class FullFile(io.FileIO):
        def write(self, data):
            return super().write(data[:written])

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode, buffering: FullFile(path, mode))
        with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
            append_metrics(path, record(1))
    assert path.read_bytes() == before
    append_metrics(path, record(1))
    assert read_metrics(path) == [record(0), record(1)]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there, no limit ends a file")
def test_a_disk_that_is_full_leaves_whole_lines(path):
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("OSError: ")
    assert str(path) in done.stderr.splitlines()[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["step"] for line in lines] == list(range(100 // len(lines[0])))
    assert path.read_bytes().endswith(b"\n")


def test_a_cut_leaves_the_first_bytes(path):
    lines = [append_metrics(path, record(step)) for step in range(3)]
    for num_lines in (3, 2, 0):
        kept = b"".join(lines[:num_lines])
        truncate_metrics(path, len(kept))
        assert path.read_bytes() == kept


def test_a_cut_to_what_is_there_writes_nothing(path):
    truncate_metrics(path, 0)
    assert not path.exists()
    line = append_metrics(path, record(0))
    before = path.stat()
    truncate_metrics(path, len(line))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_cut_that_fails_leaves_the_file(path, monkeypatch):
    for step in range(3):
        append_metrics(path, record(step))
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        truncate_metrics(path, 5)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_who_reads_during_a_cut_sees_the_file_before_or_after(path):
    lines = [append_metrics(path, record(step)) for step in range(2)]
    with path.open("rb") as reader:
        truncate_metrics(path, len(lines[0]))
        assert reader.read() == b"".join(lines)
    assert path.read_bytes() == lines[0]


def test_numbers_that_json_lacks_become_null():
    value = {"a": math.inf, "b": [math.nan, 1.5, {"c": -math.inf}], "d": (2, "inf", None, True)}
    assert replace_nonfinite(value) == {"a": None, "b": [None, 1.5, {"c": None}], "d": [2, "inf", None, True]}


def test_metrics_are_not_appended_through_a_link(tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"it is a link.*metrics\.jsonl"):
        append_metrics(tmp_path / "metrics.jsonl", record(0))
    assert (tmp_path / "elsewhere").read_text() == "mine"
