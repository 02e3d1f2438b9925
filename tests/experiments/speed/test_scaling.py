"""Slopes are those of known powers, and each workload compiles once."""

from pathlib import Path

import numpy as np
import pytest

from experiments.speed.scaling import (
    ScalingOptions,
    describe,
    fit_slope,
    measure_compilation,
    measure_memory,
    prepare,
)
from experiments.speed.scaling_workloads import PANELS, WORKLOADS, Panel, Shape
from jaxlm.utils.timing import measure_time

TINY = Shape(12, 2, 3, 4, 5, corpus_length=60, num_windows=30, num_streams=2, num_tokens=7, num_steps=6)
UNITS = {"training step": 6, "sampled token, counts": 14, "scored window, counts": 30, "counted pair": 59}


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_fit_slope_is_the_exponent(power):
    values = np.array([1.0, 3.0, 10.0, 50.0])
    assert fit_slope(values, 7 * values**power) == pytest.approx(power, abs=1e-9)


def test_fit_slope_uses_the_three_largest():
    assert fit_slope([1, 10, 20, 40], [1e6, 10, 20, 40]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("panel", "power", "grows_as_work"),
    [
        (Panel("training step", "time", "batch_size", ()), 1.0, True),
        (Panel("training step", "time", "batch_size", ()), 1.5, False),
        (Panel("counted pair", "time", "corpus_length", ()), 0.0, True),
        (Panel("scored window", "memory", "num_windows", ()), 1.0, False),
    ],
)
def test_describe_compares_with_the_work(panel, power, grows_as_work):
    values = [10, 100, 1000]
    described = describe(panel, values, [3 * value**power for value in values])
    assert described["slope"] == pytest.approx(power)
    assert described["grows_as_work"] is grows_as_work


def test_work_of_the_mlp_is_its_matrix_products():
    kernels = 3 * 32 * 64 + 64 * 4096  # [N * D, H] and [H, V] of the default shape
    assert WORKLOADS["scored window"].work(Shape()) == kernels
    assert WORKLOADS["training step"].work(Shape()) == 64 * kernels


@pytest.mark.slow
@pytest.mark.parametrize("name", UNITS)  # the MLP is sampled and scored by the same functions
def test_workload_compiles_once(name):
    call, units = WORKLOADS[name].build(TINY)
    assert units == UNITS[name]
    assert measure_compilation(call) > 0
    with measure_time() as timing:
        call()
    assert timing.compile_seconds == 0


def test_panels_vary_fields_of_the_shape():
    for panel in PANELS:
        assert panel.workload in WORKLOADS
        assert panel.cost in {"time", "compile", "memory"}
        assert hasattr(Shape(), panel.field)
        assert list(panel.values) == sorted(set(panel.values))
    assert len({panel.title for panel in PANELS}) == len(PANELS)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset the peak memory")
def test_measure_memory_is_the_peak_of_a_call():
    assert measure_memory(lambda: np.ones(64 * 2**20, np.uint8).sum()) > 32 > measure_memory(lambda: 0)


@pytest.mark.slow
def test_run_writes_its_files(run, tmp_path):
    options = ScalingOptions(panels="counted pair, time by vocab_size", quick=True, out=tmp_path / "run")
    path, results, output = run(prepare, options)
    (panel,) = results["panels"]
    assert panel["values"] == [256, 1024]
    assert all(cost > 0 for cost in panel["costs"])
    assert (path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert "counted pair" in output


def test_prepare_refuses_an_unknown_panel():
    with pytest.raises(ValueError, match="no panel's title contains 'transformer'"):
        prepare(ScalingOptions(panels="transformer"))
