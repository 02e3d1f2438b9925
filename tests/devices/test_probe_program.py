"""Each check computes what its name says, and a wrong number in any array is found."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxlm.devices.probe_program import IDS, PARAMS, TABLE, compare_speed, find_difference, probe, run_checks

CPU = jax.devices("cpu")[0]


@pytest.fixture(scope="module")
def values():
    return run_checks(CPU)


def test_probe_without_a_device():
    assert probe() == (False, None, "provides no device", None, None)


@pytest.mark.slow
def test_find_difference_compares_every_array(values):
    assert find_difference(run_checks(CPU), values) == ""
    leaves, structure = jax.tree.flatten(values)
    for number, leaf in enumerate(leaves):
        wrong = np.array(leaf)
        wrong[(-1,) * wrong.ndim] += 1
        actual = jax.tree.unflatten(structure, [*leaves[:number], wrong, *leaves[number + 1 :]])
        assert "instead of the CPU's" in find_difference(actual, values)


@pytest.mark.slow
def test_checks_compute_what_numpy_does(values):
    gradient = np.bincount(IDS[:50], minlength=27)[:, None] / np.cosh(TABLE) ** 2
    for value, expected in (
        (values["running sum"], np.cumsum(IDS.reshape(5, 100) % 4, axis=1)),
        (values["top k"][0], -np.sort(-TABLE, axis=1)[:, :7]),
        (values["embedding gradient"], gradient),
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_random_checks_vary_and_training_trains(values):
    assert len(set(values["sample"])) > 3
    assert len(np.unique(values["random number"][1])) == 100
    params, loss = values["training"]
    assert all((param != PARAMS[name]).any() for name, param in params.items())
    assert 1 < loss < np.log(27) + 1


@pytest.mark.parametrize(
    ("actual", "expected", "difference"),
    [
        (np.float32([1, 2]), np.float32([1, 2.001]), ""),
        (np.float32([[0, 1], [7, 3]]), np.float32([[0, 1], [7.01, 4]]), "7 instead of the CPU's 7.01"),
        (np.int32([1, 2]), np.int32([1, 3]), "2 instead of the CPU's 3"),
        (np.int32(10**6), np.int32(10**6 + 1), "1e+06 instead of the CPU's 1e+06"),
        (np.float32(np.nan), np.float32(1), "nan instead of the CPU's 1"),
        (np.float32(np.inf), np.float32(1), "inf instead of the CPU's 1"),
    ],
)
def test_find_difference_describes_the_first(actual, expected, difference):
    difference = difference and f"has a wrong sum: {difference}"
    assert find_difference({"a": np.int32(0), "sum": actual}, {"a": np.int32(0), "sum": expected}) == difference


@pytest.mark.parametrize(
    ("milliseconds", "worthwhile_from"),
    [(1, 254_816), (0.5, 127_408), (9, 2_293_344), (0.001, 10_000)],
)
def test_compare_speed_scales_the_size_by_the_times(milliseconds, worthwhile_from):
    """The CPU takes 1 ms a step for the model of 27 * 32 + 96 * 2048 + 2048 + 2048 * 27 = 254,816 parameters."""
    result = (True, "chip", "computes the CPU's values", milliseconds / 1000, worthwhile_from)
    assert compare_speed("chip", milliseconds / 1000, 1e-3) == result


@pytest.mark.slow
def test_probe_program_ends_without_a_parent(tmp_path):
    """And its crash would leave no core file."""
    (tmp_path / "jax_plugins").mkdir()
    (tmp_path / "jax_plugins" / "hangs.py").write_text(
        "import resource, sys, time\n"
        "def initialize():\n"
        "    print('core', resource.getrlimit(resource.RLIMIT_CORE), file=sys.stderr)\n"
        "    time.sleep(600)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)]), "JAX_PLATFORMS": ""}
    command = [sys.executable, "-m", "jaxlm.devices.probe_program", "0.5"]
    done = subprocess.run(command, env=environment, timeout=300, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Timeout (0:00:00.5" in done.stderr
    assert "core (0, 0)" in done.stderr
