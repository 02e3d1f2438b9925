"""What a plugin is tried with: a CPU passes for a CPU, and every wrong number is found."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from fake_plugins import install

from jaxlm.devices import probe_program as plugin_probe
from jaxlm.devices.probe_program import CHECKS
from jaxlm.devices.probe_runner import SMALL_MODEL

CPU = jax.devices("cpu")[0]


@pytest.fixture(scope="module")
def values():
    """The CPU's, by check."""
    return {name: plugin_probe._run_on(CPU, check) for name, check in CHECKS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_cpu_gives_its_own_values_again(values, name):
    assert plugin_probe._difference(plugin_probe._run_on(CPU, CHECKS[name]), values[name]) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_each_array_of_each_check_is_compared(values, name):
    leaves, structure = jax.tree.flatten(values[name])
    for number, leaf in enumerate(leaves):
        wrong = np.array(leaf)
        wrong[(-1,) * wrong.ndim] += 1
        found = jax.tree.unflatten(structure, [*leaves[:number], wrong, *leaves[number + 1 :]])
        assert "for the CPU's" in plugin_probe._difference(found, values[name])


@pytest.mark.slow
def test_checks_depend_on_what_they_are_named_after(values):
    assert values["scatter-add"].sum() == len(plugin_probe._IDS)
    assert set(values["sample"]) <= set(range(27))
    assert (np.diff(values["running sum"], axis=1) >= 0).all()
    assert values["running sum"].max() < 2**24
    best, places = values["top k"]
    assert (best.min(axis=1) > np.median(np.arange(500))).all()
    assert places.shape == (5, 7)
    assert len(set(values["sample"])) > 3
    params, loss = values["training"]
    start, _ = jax.device_get(plugin_probe._start(CPU))
    assert all((params[name] != start[name]).any() for name in start)
    assert 1 < loss < np.log(27) + 1


@pytest.mark.parametrize(
    ("found", "wanted", "difference"),
    [
        (np.float32([1, 2]), np.float32([1, 2.001]), ""),
        (np.float32([1, 2]), np.float32([1, 2.01]), "2 for the CPU's 2.01"),
        (np.float32([[0, 1], [7, 3]]), np.float32([[0, 1], [2, 3]]), "7 for the CPU's 2"),
        (np.int32([1, 2]), np.int32([1, 3]), "2 for the CPU's 3"),
        (np.uint32([2**32 - 1]), np.uint32([0]), "4.29497e+09 for the CPU's 0"),
        (np.int32(10**6), np.int32(10**6 + 1), "1e+06 for the CPU's 1e+06"),
        (np.float32(np.nan), np.float32(1), "nan for the CPU's 1"),
        (np.float32(np.inf), np.float32(1), "inf for the CPU's 1"),
        (np.zeros(2, np.float32), np.zeros(3, np.float32), "float32[2] for the CPU's float32[3]"),
        (np.zeros(2, np.float16), np.zeros(2, np.float32), "float16[2] for the CPU's float32[2]"),
    ],
)
def test_difference_is_told_where_there_is_one(found, wanted, difference):
    assert plugin_probe._difference({"a": np.int32(0), "b": found}, {"a": np.int32(0), "b": wanted}) == difference


@pytest.mark.parametrize(
    ("seconds", "cpu_seconds", "worthwhile_from"),
    [
        (1e-3, 1e-3, 254_816),  # the model's own size
        (0.5e-3, 1e-3, 127_408),
        (9e-3, 1e-3, 2_293_344),
        (1e-6, 1e-3, SMALL_MODEL),
    ],
)
def test_accelerator_pays_from_where_the_cpu_takes_as_long(seconds, cpu_seconds, worthwhile_from):
    verdict = plugin_probe._judge("chip", seconds, cpu_seconds)
    assert (verdict.works, verdict.platform, verdict.seconds) == (True, "chip", seconds)
    assert verdict.worthwhile_from == pytest.approx(worthwhile_from, abs=1)
    assert verdict.reason == "gives the CPU's values"


def test_accelerator_that_is_slow_by_itself_never_pays():
    verdict = plugin_probe._judge("chip", 20e-3, 1e-3)
    assert verdict.works
    assert verdict.worthwhile_from is None
    assert verdict.reason == "gives the CPU's values in 20 times its time"


def test_error_is_what_a_logged_traceback_ends_with():
    logged = (
        "Jax plugin configuration error: Exception when calling chip.initialize()\n"
        "Traceback (most recent call last):\n"
        '  File "chip.py", line 3, in initialize\n'
        "    raise RuntimeError(words)\n"
        "RuntimeError: there is no such chip\n"
        "in this machine"
    )
    assert plugin_probe._error_of(logged) == "RuntimeError: there is no such chip in this machine"
    assert plugin_probe._error_of("Plugin module chip does not exist") == "Plugin module chip does not exist"


@pytest.mark.slow
def test_probe_ends_by_itself_where_nobody_waits(tmp_path):
    target = install(tmp_path, "hangs_in_factory")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(target)]), "JAX_PLATFORMS": ""}
    words = [sys.executable, "-m", "jaxlm.plugin_probe", tmp_path / "verdict.json", "0.5", "fake_hangs_in_factory"]
    finished = subprocess.run(words, env=environment, timeout=300, capture_output=True, text=True)
    assert finished.returncode == 1
    assert "Timeout (0:00:00.5" in finished.stderr
    assert not (tmp_path / "verdict.json").exists()
