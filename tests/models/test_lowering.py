"""The programs that the package compiles contain nothing that an Apple GPU's plugin refuses."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import lower_programs
import pytest


@pytest.mark.slow
def test_all_programs_lower_for_apple_gpus():
    done = subprocess.run(
        [sys.executable, "-W", "error", lower_programs.__file__],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (lambda x: jnp.fft.fft(x).real, "stablehlo.fft is refused"),
        (lambda x: (x + 1j).real, "complex numbers"),
        (lambda x: jnp.linalg.cholesky(x), "call of|cholesky is refused"),
        (lambda x: jax.debug.callback(print, x), "call of"),
        (lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.fft.fft(y).real, x), "stablehlo.fft is refused"),
    ],
)
def test_find_faults_sees(function, fault):
    faults = lower_programs.find_faults(jax.jit(function).lower(jnp.eye(3)))
    assert any(part in each for each in faults for part in fault.split("|")), faults


def test_find_faults_accepts_a_harmless_program():
    assert not lower_programs.find_faults(
        jax.jit(lambda x, key: x + jax.random.uniform(key)).lower(jnp.eye(3), jax.random.key(0))
    )
