"""The log contains complete lines only, also after an error."""

import json
import math
from pathlib import Path

import pytest

from jaxlm.runs.metrics_log import append_metrics, read_metrics, replace_nonfinite


def record(step):
    return {"model": "mlp", "step": step, "train_loss": 0.5}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_append_metrics_writes_one_line_per_record(path):
    for step in range(3):
        append_metrics(path, record(step) | {"train_loss": math.inf, "note": "a\n"})
    expected = [record(step) | {"train_loss": None, "note": "a\n"} for step in range(3)]
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_append_metrics_on_a_full_disk_names_the_file():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        append_metrics(Path("/dev/full"), record(1))


@pytest.mark.parametrize("torn", ['{"step": 1', json.dumps(record(1)), "é"])
def test_read_metrics_skips_an_incomplete_last_line(path, torn):
    assert read_metrics(path) == []
    append_metrics(path, record(0))
    with path.open("a", encoding="utf-8") as file:
        file.write(torn)
    assert read_metrics(path) == [record(0)]


@pytest.mark.parametrize(
    "damaged",
    [
        *(b'{"step": 1', b"", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"step": 1}'),
        *(
            json.dumps(record(0) | change).encode()
            for change in ({"model": None}, {"step": 1.5}, {"train_loss": "x"})
        ),
    ],
    ids=lambda damaged: damaged[:30].decode("latin-1"),
)
def test_read_metrics_names_the_damaged_line(path, damaged):
    line = json.dumps(record(0)).encode()
    path.write_bytes(b"\n".join([line, damaged, line, b""]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged: line 2 is not a training record"):
        read_metrics(path)


def test_replace_nonfinite():
    value = {"a": math.inf, "b": [math.nan, 1.5, {"c": -math.inf}], "d": (2, "inf", None, True)}
    assert replace_nonfinite(value) == {"a": None, "b": [None, 1.5, {"c": None}], "d": [2, "inf", None, True]}
