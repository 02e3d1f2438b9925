"""A short jit comparison writes rows that follow from each other, and its options are checked first."""

import io
import json

import pytest
from rich.console import Console

from experiments.shared.experiment import run_experiment
from experiments.speed.jit.compare import JitOptions, prepare


def run(**options):
    options = JitOptions(**{"quick": True, "repeats": 1, "device": "cpu"} | options)
    return run_experiment(prepare, options, Console(file=io.StringIO()))


@pytest.mark.slow
def test_comparison_writes_consistent_rows(tmp_path):
    path = run(out=tmp_path / "run", stages=("forward",))
    results = json.loads((path / "results.json").read_text("utf-8"))
    for name in ("roofline.png", "speedups.png"):
        assert (path / name).read_bytes().startswith(b"\x89PNG")
    rows = {row["variant"]: row for row in results["rows"]}
    assert {"eager", "jit", "loop", "vmap", "numpy"} <= set(rows)
    assert all(name in (path / "table.txt").read_text("utf-8") for name in rows)
    ceiling = results["ceiling"]
    matrix_products = 2 * 32 * (30 * 200 + 200 * 27)
    for row in rows.values():
        assert (row["size"], row["stage"], row["repeats"]) == ("small", "forward", 1)
        assert 0 < row["minimum_us"] <= row["median_us"]
        assert row["speedup"] == pytest.approx(rows["eager"]["median_us"] / row["median_us"])
        assert matrix_products <= row["flops"] <= 1.05 * matrix_products
        rates = {unit: row[unit] / row["median_us"] * 1e6 for unit in ("flops", "bytes")}
        shares = {unit: rate / ceiling[f"{unit}_per_second"] for unit, rate in rates.items()}
        assert row["share"] == pytest.approx(max(shares.values()))
        assert row["share_of"] == max(shares, key=shares.get)
    assert rows["eager"]["units_per_call"] == 1
    assert rows["loop"]["units_per_call"] == rows["jit"]["units_per_call"] == rows["vmap"]["units_per_call"] > 1
    assert rows["jit"]["compile_seconds"] > 0 == rows["numpy"]["compile_seconds"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": ("forward", "backward")}, "unknown stage 'backward'; .*count, batch, forward, loss"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"repeats": 0}, "--repeats must be at least 1, got 0"),
    ],
)
def test_bad_options_leave_no_run_directory(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
