"""The comparison runs every workload, and reports a missing or broken PyTorch."""

import io
import json
import sys
from importlib import metadata

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import jaxlm
from experiments.shared.experiment import run_experiment
from experiments.speed.pytorch.compare import ComparisonOptions, prepare


@pytest.fixture
def workloads():
    pytest.importorskip("torch")
    from experiments.speed.pytorch import workloads

    return workloads


def run(**options):
    path = run_experiment(prepare, ComparisonOptions(quick=True, **options), Console(file=io.StringIO()))
    return json.loads((path / "results.json").read_text("utf-8")), (path / "table.txt").read_text("utf-8")


def test_step_flops_are_those_that_xla_counts(workloads):
    model = jaxlm.MLPLanguageModel(64, 2, 16, 32)
    variables = jaxlm.init(model, jax.random.key(0))
    contexts, targets = jnp.zeros((128, 2), jnp.int32), jnp.zeros(128, jnp.int32)
    gradient = jax.jit(jax.grad(lambda each: jaxlm.token_nats(model.apply(each, contexts), targets).mean()))
    flops = gradient.lower(variables).cost_analysis()["flops"]
    assert 0.95 < workloads.count_step_flops(model, 128) / flops < 1  # exponentials and sums are the rest


def test_counting_writes_every_variant(workloads, tmp_path):
    results, table = run(rows="fit", out=tmp_path / "run")
    row = results["rows"]["fit, V=64"]
    expected = {"jaxlm", "PyTorch index_put_", "PyTorch scatter_add_", "PyTorch bincount", "course"}
    assert expected <= set(row["variants"])
    assert all(0 < figure["minimum_us"] <= figure["median_us"] for figure in row["variants"].values())
    assert row["targets"] == []
    assert results["torch"]["version"] == metadata.version("torch")
    assert results["device"]["platform"] == "cpu"
    assert "scatter_add_" in table


def test_workloads_have_targets(workloads):
    titles = list(workloads.make_workloads(workloads.Sizes()))
    kinds = ("fit", "step", "sample", "perplexity", "16")
    assert [sum(title.startswith(kind) for title in titles) for kind in kinds] == [1, 5, 3, 3, 1]
    targets = workloads.make_workloads(workloads.QUICK)["fit, V=64"]().targets
    assert [target.title for target in targets] == ["best PyTorch / jaxlm", "course / jaxlm", "jaxlm / C loop"]


@pytest.mark.parametrize("script", ["exit 1", "exit 0"])
def test_counting_without_a_c_compiler(workloads, script, monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\n{script}\n")  # one fails, the other writes nothing
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert workloads.compile_c_loop() is None
    assert "C" not in workloads.make_workloads(workloads.QUICK)["fit, V=64"]().variants


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    ["step, neural bigram V=27", "V=64, 64 streams", "sample, counts", "perplexity, neural", "perplexity, counts"],
)
def test_workload_runs(workloads, rows, tmp_path):
    results, _ = run(rows=rows, out=tmp_path / "run")
    assert all(None not in row["variants"].values() for row in results["rows"].values())


def test_prepare_refuses_an_unknown_workload(workloads, tmp_path):
    with pytest.raises(ValueError, match="no workload's title contains 'transformer'"):
        run(rows="transformer", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_torch_is_an_error_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"torch is not installed: pip install '\.\[bench\]'"):
        run()
