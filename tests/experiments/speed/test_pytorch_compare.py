"""The command times the rows asked for and leaves its artefacts; without torch it says what to install."""

import io
import json
import sys
from importlib import metadata
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import jaxlm
from experiments.shared import machine
from experiments.shared.benchmark import Benchmark, Variant
from experiments.speed.pytorch import compare as pytorch_comparison
from experiments.speed.pytorch.compare import ComparisonConfig, run_comparison
from jaxlm.runs.manifest import read_manifest
from jaxlm.utils.terminal import run_command


@pytest.fixture
def jobs():
    """The module of the jobs, where torch is installed."""
    pytest.importorskip("torch")
    from experiments.speed.pytorch import workloads as pytorch_jobs

    return pytorch_jobs


def run(**options):
    console = Console(file=io.StringIO(), width=140)
    out = run_comparison(ComparisonConfig(quick=True, **options), console)
    return json.loads((out / "results.json").read_text("utf-8")), (out / "table.txt").read_text("utf-8")


def test_the_operations_of_a_step_are_those_that_xla_counts(jobs):
    model = jaxlm.MLPLanguageModel(64, 2, 16, 32)
    variables = jaxlm.init(model, jax.random.key(0))
    contexts, targets = jnp.zeros((128, 2), jnp.int32), jnp.zeros(128, jnp.int32)
    gradient = jax.jit(jax.grad(lambda each: jaxlm.token_nats(model.apply(each, contexts), targets).mean()))
    analysis = gradient.lower(variables).cost_analysis()
    # What is no matrix product (exponentials, sums) comes on top.
    assert 0.95 < jobs.step_flops(model, 128) / analysis["flops"] < 1


def test_quick_fit_leaves_its_artefacts(jobs, tmp_path):
    results, table = run(rows="fit", out=tmp_path / "run")
    assert list(results["rows"]) == ["fit, V=64"]
    row = results["rows"]["fit, V=64"]
    assert {"jaxlm", "PyTorch index_put_", "PyTorch scatter_add_", "PyTorch bincount", "course"} <= set(
        row["variants"]
    )
    for figure in row["variants"].values():
        assert 0 < figure["minimum_us"] <= figure["median_us"]
    assert row["targets"] == []
    assert results["torch"]["version"] == metadata.version("torch")
    assert set(results["versions"]) >= {"jax", "jaxlm", "python"}
    assert results["config"]["rows"] == "fit"
    assert "scatter_add_" in table
    assert "NO" not in table
    assert results["device"]["platform"] == "cpu"
    with pytest.raises(FileExistsError, match="already contains a run"):
        run(rows="fit", out=tmp_path / "run")
    run(rows="fit", out=tmp_path / "run", overwrite=True)


def test_what_is_claimed_of_fit(jobs):
    targets = jobs.all_jobs(jobs.QUICK)["fit, V=64"]().targets
    assert [target.title for target in targets] == ["best PyTorch / jaxlm", "course / jaxlm", "jaxlm / C loop"]


def test_jaxlm_is_built_and_called_on_the_cpu(jobs, monkeypatch, tmp_path):
    cpu, seen = jax.devices("cpu")[0], []

    def look():
        seen.append(jax.config.jax_default_device)

    def build():
        look()
        return jobs.Benchmark("call", {"jaxlm": jobs.Variant(look, 1)}, ())

    monkeypatch.setattr(jobs, "all_jobs", lambda sizes: {"look": build})
    run(out=tmp_path / "run")
    assert len(seen) > 1
    assert set(seen) == {cpu}


def test_rows_are_kept_though_a_later_one_fails(monkeypatch, tmp_path):
    """With no torch but a name: the folder is of the comparison alone."""

    def broken():
        raise ValueError("no such row")

    variants = {"jaxlm": Variant(lambda: None, 1)}
    rows = {"first": lambda: Benchmark("call", variants, ()), "second": broken}
    torch = SimpleNamespace(
        compiler=SimpleNamespace(reset=lambda: None), __version__="2", get_num_threads=lambda: 1
    )
    monkeypatch.setattr(
        pytorch_comparison,
        "import_jobs",
        lambda: (SimpleNamespace(QUICK=None, all_jobs=lambda sizes: rows), torch),
    )
    with pytest.raises(ValueError, match="no such row"):
        run(out=tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert list(results["rows"]) == ["first"]
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["kind"], manifest["state"], manifest["why"]) == (
        "pytorch-comparison",
        "failed",
        "no such row",
    )
    del rows["second"]
    run(out=tmp_path / "run", overwrite=True)
    assert read_manifest(tmp_path / "run")["state"] == "done"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".lock",
        "config.json",
        "manifest.json",
        "results.json",
        "table.txt",
    ]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    for out in (tmp_path, tmp_path / "diary.txt"):
        with pytest.raises(FileExistsError, match="is not a run directory"):
            run(out=out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


@pytest.mark.parametrize("script", ["exit 1", "exit 0"])
def test_a_compiler_that_fails_leaves_the_row_without_c(jobs, script, monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\n{script}\n")  # one that ends in an error, and one that writes nothing
    compiler.chmod(0o755)
    monkeypatch.setattr(jobs.shutil, "which", lambda name: str(compiler))
    assert jobs.c_loop() is None
    assert "C" not in jobs.all_jobs(jobs.QUICK)["fit, V=64"]().variants


def test_the_compiled_score_has_every_batch_size(jobs):
    row = jobs.all_jobs(jobs.QUICK)["perplexity, neural bigram V=64"]()
    compiled = [name for name, each in row.variants.items() if each.compiles_itself]
    assert compiled == [f"PyTorch compiled, B={batch_size}" for batch_size in (256, 1024, 4096)]


@pytest.mark.slow
def test_every_kind_of_row_runs(jobs, tmp_path):
    for rows in (
        "step, neural bigram V=27",
        "V=64, 64 streams",
        "sample, counts",
        "perplexity, neural",
        "perplexity, counts",
        "16 runs",
    ):
        results, _ = run(rows=rows, num_tokens=3, out=tmp_path / rows)
        for row in results["rows"].values():
            assert None not in row["variants"].values()


def test_every_row_of_the_comparison_is_there(jobs):
    names = list(jobs.all_jobs(jobs.Sizes()))
    assert len(names) == len(set(names)) == 13
    assert [
        sum(name.startswith(job) for name in names) for job in ("fit", "step", "sample", "perplexity", "16")
    ] == [
        1,
        5,
        3,
        3,
        1,
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rows": "transformer"}, "no row's name holds 'transformer'"), ({"num_tokens": 0}, "--num-tokens must be")],
)
def test_a_wrong_option_is_an_error_in_one_line(jobs, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_without_torch_the_error_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run_command(lambda: run(out=tmp_path / "run")) == 2
    message = capsys.readouterr().err
    assert "torch is not installed: pip install '.[bench]'" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [OSError("libtorch.so: bad"), ImportError("libtorch.so: bad"), ModuleNotFoundError("libtorch.so: bad")],
)
def test_a_broken_torch_is_told_in_one_line(error, monkeypatch, capsys, tmp_path):
    def broken(name):
        raise error

    monkeypatch.setattr(machine.importlib, "import_module", broken)
    assert machine.find_torch() == (None, "torch cannot be imported: libtorch.so: bad")
    assert run_command(lambda: run(out=tmp_path / "run")) == 2
    assert capsys.readouterr().err == "error: torch cannot be imported: libtorch.so: bad\n"


def test_the_cores_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: {3, 5, 8}, raising=False)
    assert machine.num_cores() == 3
    monkeypatch.delattr(machine.os, "sched_getaffinity")
    monkeypatch.setattr(machine.os, "cpu_count", lambda: None)
    assert machine.num_cores() == 1
