"""Which device a name stands for."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest

from jaxlm import resolve_device


def test_auto_is_where_jax_puts_a_fresh_array():
    assert {resolve_device("auto")} == jnp.zeros(3).devices()
    assert resolve_device() == resolve_device("auto")


def test_cpu_is_the_first_cpu():
    assert resolve_device("cpu") == jax.devices("cpu")[0]


def test_a_device_is_returned_as_it_is():
    device = jax.devices("cpu")[-1]
    assert resolve_device(device) is device


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("gpu", "gpu"),
        ("cuda", "cuda"),
        ("rocm", "rocm"),
        ("tpu", "tpu"),
        ("metal", "METAL"),  # jax-metal
        ("metal", "metal"),  # metaljax
        ("metal", "mps"),  # jax-mps
        ("metal", "mtl"),  # jax-graft
    ],
)
def test_a_name_finds_its_platform(monkeypatch, name, platform):
    def only_this_platform(backend=None):
        if backend != platform:
            raise RuntimeError(f"Unknown backend {backend}")
        return ["first", "second"]

    monkeypatch.setattr(jax, "devices", only_this_platform)
    assert resolve_device(name) == "first"


def test_absent_device_is_an_error_that_says_what_there_is(monkeypatch):
    cpus = jax.devices("cpu")

    def only_cpus(backend=None):
        if backend not in (None, "cpu"):
            raise RuntimeError(f"Unknown backend {backend}")
        return cpus

    monkeypatch.setattr(jax, "devices", only_cpus)
    with pytest.raises(ValueError, match=r"no 'gpu' device here: JAX offers cpu"):
        resolve_device("gpu")


@pytest.mark.parametrize("name", ["", "GPU", "cpu:0", "quantum", None])
def test_unknown_name_is_an_error_that_lists_the_known(name):
    with pytest.raises(ValueError, match=r"unknown device .*auto, cpu, gpu") as raised:
        resolve_device(name)
    assert repr(name) in str(raised.value)


@pytest.mark.slow
def test_a_second_device_is_used_where_asked_for():
    """In a process of its own: the number of CPU devices is fixed when JAX starts."""
    program = """
        import jax, numpy as np
        import jaxlm

        first, second = jax.devices("cpu")
        with jax.default_device(second):
            assert jaxlm.resolve_device("auto") == second
        assert jaxlm.resolve_device("auto") == jaxlm.resolve_device("cpu") == first

        class Uniform:
            vocab_size, context_length = 3, 1

            def apply(self, variables, contexts):
                return variables["logits"][contexts[:, 0]]

        variables = {"logits": jax.device_put(np.zeros((3, 3), np.float32), first)}
        used = []
        device_put = jax.device_put
        jax.device_put = lambda value, device: used.append(device) or device_put(value, device)
        assert abs(jaxlm.perplexity(Uniform(), variables, np.array([0, 1, 2]), device=second) - 3) < 1e-5
        assert set(used) == {second}, used
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, env=environment)
