"""The comparison runs every workload, and reports a missing or broken PyTorch."""

import sys
from importlib import metadata

import pytest

from experiments.speed.pytorch.compare import ComparisonOptions, prepare


@pytest.fixture
def workloads():
    pytest.importorskip("torch")
    from experiments.speed.pytorch import workloads

    return workloads


def test_counting_writes_every_variant(run, workloads, tmp_path):
    _, results, table = run(prepare, ComparisonOptions(quick=True, rows="fit", out=tmp_path / "run"))
    row = results["rows"]["fit, V=64"]
    expected = {"jaxlm", "PyTorch index_put_", "PyTorch scatter_add_", "PyTorch bincount", "course"}
    assert expected <= set(row["variants"])
    assert all(figure["median_us"] > 0 for figure in row["variants"].values())
    assert {"best PyTorch / jaxlm", "course / jaxlm"} <= set(row["ratios"])
    assert results["torch"]["version"] == metadata.version("torch")
    assert results["device"]["platform"] == "cpu"
    assert "scatter_add_" in table


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    ["step, neural bigram V=27", "V=64, 64 streams", "sample, counts", "perplexity, neural", "perplexity, counts"],
)
def test_workload_runs(run, workloads, rows, tmp_path):
    _, results, _ = run(prepare, ComparisonOptions(quick=True, rows=rows, out=tmp_path / "run"))
    assert not [
        figure for row in results["rows"].values() for figure in row["variants"].values() if "error" in figure
    ]


def test_prepare_refuses_an_unknown_workload(workloads):
    with pytest.raises(ValueError, match="no workload's title contains 'transformer'"):
        prepare(ComparisonOptions(rows="transformer"))


def test_missing_torch_is_an_error_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"torch cannot be imported .*pip install '\.\[bench\]'"):
        prepare(ComparisonOptions())
