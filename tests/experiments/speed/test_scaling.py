"""Slopes are those of known powers, what grows faster than its work is told, and the artefacts are there."""

import dataclasses
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from experiments.speed import scaling as cost_growth
from experiments.speed.scaling import (
    JOBS,
    PANELS,
    GrowthConfig,
    Panel,
    Shape,
    compile_seconds,
    describe,
    extra_mebibytes,
    log_slope,
    no_memory_because,
    run_growth,
)
from jaxlm.runs.manifest import read_manifest
from jaxlm.utils.terminal import run_command
from jaxlm.utils.timing import measure_time

TINY = Shape(
    vocab_size=12,
    context_length=2,
    embedding_dim=3,
    hidden_dim=4,
    batch_size=5,
    corpus_length=60,
    num_windows=30,
    num_streams=2,
    num_tokens=7,
    num_steps=6,
)
UNITS = {
    "training step": 6,
    "sampled token": 14,
    "sampled token, counts": 14,
    "scored window": 30,
    "scored window, counts": 30,
    "counted pair": 59,
}


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_a_slope_is_the_exponent(power):
    values = np.array([1.0, 3.0, 10.0, 50.0])
    assert log_slope(values, 7 * values**power) == pytest.approx(power, abs=1e-9)


def test_a_slope_is_that_of_the_three_largest():
    assert log_slope([1, 10, 20, 40], [1e6, 10, 20, 40]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("panel", "power", "as_the_work"),
    [
        (Panel("training step", "time", "batch_size", ()), 1.0, True),
        (Panel("training step", "time", "batch_size", ()), 1.5, False),
        (Panel("counted pair", "time", "corpus_length", ()), 0.0, True),
        (Panel("counted pair", "time", "corpus_length", ()), 0.5, False),
        (Panel("training step", "compile", "num_steps", ()), 1.0, False),
        (Panel("scored window", "memory", "num_windows", ()), 1.0, False),
    ],
)
def test_what_grows_faster_than_its_work_is_told(panel, power, as_the_work):
    values = [10, 100, 1000]
    described = describe(panel, values, [3 * value**power for value in values])
    assert described["slope"] == pytest.approx(power)
    assert described["as_the_work"] is as_the_work


def test_the_work_of_the_network_is_its_matrix_products():
    kernels = 3 * 32 * 64 + 64 * 4096  # [N * D, H] and [H, V] of the default shape
    assert JOBS["scored window"].work(Shape()) == kernels
    assert JOBS["training step"].work(Shape()) == 64 * kernels


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_done_again_and_again_and_compiles_once(name):
    call, units = JOBS[name].build(TINY)
    assert units == UNITS[name]
    assert compile_seconds(call) > 0
    with measure_time() as timing:
        call()
    assert timing.compile_seconds == 0


def test_every_panel_varies_a_field_of_the_shape():
    fields = {field.name for field in dataclasses.fields(Shape)}
    for panel in PANELS:
        assert panel.job in JOBS
        assert panel.cost in {"time", "compile", "memory"}
        assert panel.field in fields
        assert list(panel.values) == sorted(set(panel.values))
    assert len({panel.title for panel in PANELS}) == len(PANELS)


@pytest.mark.slow
def test_memory_is_the_peak_of_a_call():
    if not cost_growth.Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells a peak apart")
    assert extra_mebibytes(lambda: np.ones(256 * 2**20, np.uint8).sum()) > 128 > extra_mebibytes(lambda: 0)


@pytest.mark.slow
def test_a_run_leaves_its_artefacts(monkeypatch, tmp_path):
    panels = (
        Panel("counted pair", "time", "vocab_size", (3, 5, 8)),
        Panel("counted pair", "compile", "vocab_size", (4, 6)),
        Panel("scored window", "time", "vocab_size", (3, 5)),
    )
    monkeypatch.setattr(cost_growth, "PANELS", panels)
    monkeypatch.setattr(cost_growth, "Shape", lambda **options: dataclasses.replace(TINY, **options))
    console = Console(file=io.StringIO(), width=80)
    config = GrowthConfig(jobs="counted", quick=True, out=tmp_path / "run")
    assert run_growth(config, console) == tmp_path / "run"
    results = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert [panel["cost"] for panel in results["panels"]] == ["time", "compile"]
    assert results["panels"][0]["values"] == [3, 5]
    assert all(cost > 0 for panel in results["panels"] for cost in panel["costs"])
    assert (tmp_path / "run" / "growth.png").read_bytes()[:4] == b"\x89PNG"
    assert "counted pair" in (tmp_path / "run" / "table.txt").read_text("utf-8")
    assert [panel["as_the_work"] for panel in results["panels"]] == [None, None]
    assert "FASTER" not in console.file.getvalue()
    manifest = read_manifest(tmp_path / "run")
    assert (manifest["kind"], manifest["state"]) == ("cost-growth", "done")
    with pytest.raises(FileExistsError, match="already contains a run"):
        run_growth(config, console)
    run_growth(dataclasses.replace(config, overwrite=True), console)


def test_the_memory_of_an_accelerator_is_not_the_process_s(monkeypatch, tmp_path):
    gpu = SimpleNamespace(platform="gpu", device_kind="a GPU")
    assert no_memory_because(gpu) == "the memory of a gpu is not the process's"
    monkeypatch.setattr(cost_growth.jaxlm, "resolve_device", lambda: gpu)
    console = Console(file=io.StringIO(), width=120)
    with pytest.raises(ValueError, match="no panel of --jobs 'memory' can be measured here"):
        run_growth(GrowthConfig(jobs="memory", out=tmp_path / "run"), console)
    assert console.file.getvalue().count("goes without") == 2
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    for out in (tmp_path, tmp_path / "diary.txt"):
        with pytest.raises(FileExistsError, match="is not a run directory"):
            run_growth(GrowthConfig(out=out, overwrite=True), Console(file=io.StringIO()))
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


@pytest.mark.parametrize(
    ("options", "message"), [({"jobs": "transformer"}, "no title holds"), ({"repeats": 0}, "--repeats must be")]
)
def test_a_wrong_option_is_an_error_in_one_line(options, message, capsys, tmp_path):
    config = GrowthConfig(out=tmp_path / "run", **options)
    assert run_command(lambda: run_growth(config, Console(file=io.StringIO()))) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
