"""The command times the rows asked for and leaves its artefacts; without torch it says what to install."""

import io
import json
import sys
from importlib import metadata

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import jaxlm
from experiments.pytorch_comparison import ComparisonConfig, run_comparison
from jaxlm.console import exit_code


@pytest.fixture
def jobs():
    """The module of the jobs, where torch is installed."""
    pytest.importorskip("torch")
    from experiments import pytorch_jobs

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
        row["contestants"]
    )
    for figure in row["contestants"].values():
        assert 0 < figure["minimum_us"] <= figure["median_us"]
    assert [claim["title"] for claim in row["claims"]] == [
        "best PyTorch / jaxlm",
        "course / jaxlm",
        "jaxlm / C loop",
    ]
    assert results["torch"]["version"] == metadata.version("torch")
    assert set(results["versions"]) >= {"jax", "jaxlm", "python"}
    assert results["config"]["rows"] == "fit"
    assert "jaxlm / C loop" in table
    with pytest.raises(FileExistsError, match="holds results"):
        run(rows="fit", out=tmp_path / "run")


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
            assert None not in row["contestants"].values()
            assert all(claim["ratio"] > 0 for claim in row["claims"])


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
    assert exit_code(lambda: run(out=tmp_path / "run")) == 2
    message = capsys.readouterr().err
    assert "pip install '.[bench]'" in message
    assert message.count("\n") == 1
