"""Every artefact, and bad options refused."""

import io
import json

import pytest
from rich.console import Console

from experiments.findings.entropy_floor import FloorConfig, run_floor
from experiments.shared.experiment import Output


@pytest.mark.slow
def test_the_artefacts(tmp_path):
    config = FloorConfig(
        vocab_size=4, num_tokens=40_000, steps=40, quick=True, output=Output(out=tmp_path / "run")
    )
    out = run_floor(config, Console(file=(told := io.StringIO()), width=200))
    sources = json.loads((out / "results.json").read_text("utf-8"))["sources"]
    assert [source["order"] for source in sources] == [1, 2]
    for source in sources:
        assert len(source["models"]) == 7
        assert all(row["exact_nats"] >= row["floor_nats"] - 1e-6 for row in source["models"])
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "table.txt").read_text("utf-8") in told.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 1}, "--vocab-size must lie in 2..64, got 1"),
        ({"concentration": 0.0}, "--concentration must be finite and at least 0.05, got 0.0"),
        ({"num_tokens": 10}, "--num-tokens must be at least 1000, got 10"),
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"seed": -1}, "--seed must lie in 0..2\\*\\*32 - 1, got -1"),
    ],
)
def test_bad_options_are_refused_with_nothing_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_floor(FloorConfig(**options, output=Output(out=tmp_path / "run")), Console(quiet=True))
    assert not (tmp_path / "run").exists()
