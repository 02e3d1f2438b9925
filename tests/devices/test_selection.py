"""Which device a name means, and why."""

import os
import subprocess
import sys
import textwrap

import jax
import pytest
from fake_plugins import install_fakes

from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probes import ProbeResult
from jaxlm.devices.selection import choose_device

CPU = jax.devices("cpu")[0]
FAST, SLOW, BAD = (Plugin(name, f"{name}-chip", "1.0") for name in ("fast", "slow", "bad"))
CRASH = ProbeResult(False, None, "crashed")
RESULTS = {
    BAD: CRASH,
    SLOW: ProbeResult(True, "SLOW", "works", 0.002, 40_000),
    FAST: ProbeResult(True, "FAST", "works", 0.001, 20_000),
}
ALL = {"bad", "slow", "fast"}
TOO_SMALL = "fast-chip 1.0 is faster only from 20,000 parameters; the model has 19,999"


@pytest.fixture
def choose(install, monkeypatch):
    """Return a function that calls `choose_device` with made-up probe results. The platforms in `starting` start.

    It returns the choice, the modules of the disabled plugins, and whether any plugin was probed.
    """

    def choose_with(device="auto", num_weights=10**9, results=RESULTS, starting=("FAST", "SLOW"), **settings):
        def devices(backend):
            if backend in starting:
                return [f"{backend}:0", f"{backend}:1"]
            if backend == "cpu":
                return [CPU]
            raise RuntimeError(f"Unknown backend {backend}\nand more")

        monkeypatch.setattr(jax, "local_devices", devices)
        for name in ("JAXLM_DEVICE", "JAX_PLATFORM_NAME"):
            monkeypatch.setenv(name, settings.get(name, ""))
        for name in ("jax_platforms", "jax_default_device"):
            jax.config.update(name, settings.get(name))
        for name in ALL:
            sys.modules.pop(name, None)
        probes = install(results)
        choice = choose_device(device, num_weights=num_weights)
        return choice, {name for name in ALL if name in sys.modules}, bool(probes)

    platforms, default_device = jax.config.jax_platforms, jax.config.jax_default_device
    yield choose_with
    jax.config.update("jax_platforms", platforms)
    jax.config.update("jax_default_device", default_device)
    for name in ALL:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("arguments", "device", "reason", "disabled"),
    [
        ({"num_weights": None}, "FAST:0", "fast-chip 1.0 works", {"bad", "slow"}),
        ({"num_weights": 20_000}, "FAST:0", "fast-chip 1.0 works", {"bad", "slow"}),
        ({"num_weights": 19_999}, CPU, f"bad-chip 1.0 crashed; {TOO_SMALL}", {"bad", "slow"}),
        (
            {"results": {BAD: CRASH, SLOW: CRASH}},
            CPU,
            "bad-chip 1.0 crashed; slow-chip 1.0 crashed",
            {"bad", "slow"},
        ),
        ({"results": {}}, CPU, "no accelerator plugin is installed", set()),
        ({"device": CPU, "JAXLM_DEVICE": "gpu"}, CPU, "passed as a jax.Device", set()),
        ({"device": "cpu", "JAXLM_DEVICE": "gpu"}, CPU, "requested", {"bad", "slow"}),
        ({"device": "gpu", "starting": ("gpu",)}, "gpu:0", "requested", set()),
        ({"JAXLM_DEVICE": "cpu", "jax_platforms": "FAST,cpu"}, CPU, "JAXLM_DEVICE=cpu", {"bad", "slow"}),
        ({"jax_platforms": "FAST,cpu", "JAX_PLATFORM_NAME": "cpu"}, CPU, "JAX_PLATFORMS=FAST,cpu", set()),
        ({"jax_platforms": "cpu"}, CPU, "JAX_PLATFORMS=cpu", ALL),
        ({"jax_platforms": "cpu", "device": "cpu"}, CPU, "requested", ALL),
        ({"JAX_PLATFORM_NAME": "cpu", "jax_default_device": CPU}, CPU, "JAX_PLATFORM_NAME=cpu", ALL),
        ({"jax_default_device": CPU}, CPU, f"jax.default_device={CPU}", set()),
    ],
)
def test_choose_device_precedence(choose, arguments, device, reason, disabled):
    """Plugins are probed exactly if some, but not all, are disabled."""
    assert choose(**arguments) == ((device, reason), disabled, disabled == {"bad", "slow"})


@pytest.mark.parametrize("name", ["gpu", "cuda", "rocm", "tpu", "METAL", "metal", "mps", "mtl"])
def test_choose_device_takes_the_first_of_a_platform(choose, name):
    """The last four are JAX's names for "metal"."""
    device = name if name in ("gpu", "cuda", "rocm", "tpu") else "metal"
    assert choose(device, results={}, starting=(name,))[0] == (f"{name}:0", "requested")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"device": "tpu"}, "no 'tpu' device here: JAX offers cpu .*slow-chip 1.0, fast-chip 1.0"),
        ({"device": None}, "unknown device None; choose one of auto, cpu, gpu"),
        ({"JAXLM_DEVICE": "GPU"}, "unknown device 'GPU'"),
    ],
)
def test_unknown_or_absent_device_raises(choose, arguments, error):
    with pytest.raises(ValueError, match=error):
        choose(**arguments)


def test_metal_is_the_fastest_working_apple_plugin(choose):
    """Even if the plugin of another platform is faster."""
    mtl, mps = (RESULTS[SLOW]._replace(platform=platform) for platform in ("mtl", "mps"))
    apple = {BAD: RESULTS[BAD]._replace(platform="METAL"), FAST: mps, SLOW: mtl._replace(seconds=0.003)}
    choice, disabled, _ = choose("metal", results=apple, starting=("METAL", "mps", "mtl"))
    assert (choice[0], disabled) == ("mps:0", {"bad", "slow"})
    choice, disabled, _ = choose("metal", results=RESULTS | {SLOW: mps}, starting=("mps", "FAST"))
    assert (choice[0], disabled) == ("mps:0", {"bad", "fast"})


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ({}, "plugins installed: none"),
        (RESULTS, "bad-chip 1.0 crashed"),
        (
            {FAST: RESULTS[FAST]._replace(platform="METAL")},
            "fast-chip 1.0 passed its probe but does not start here: Unknown backend METAL and more",
        ),
    ],
)
def test_metal_raises_with_the_reason(choose, results, reason):
    with pytest.raises(ValueError, match=rf"no 'metal' device here: JAX offers cpu \({reason}\)"):
        choose("metal", results=results)
    assert "fast" not in sys.modules  # so that it may be requested next


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reason"), [("auto", "the chip does not answer"), ("cpu", "requested")])
def test_plugin_that_does_not_start_leaves_the_cpu(tmp_path, name, reason):
    """In a subprocess, because JAX starts plugins once. The plugins are real, their probe results made up."""
    program = f"""
        import sys

        import jax
        from jaxlm.devices import probes
        from jaxlm.devices.probes import ProbeResult
        from jaxlm.devices.selection import choose_device

        seconds = {{"fake_raises_in_factory": 0.001, "fake_works": 0.002}}
        probes.run_probes = lambda plugins: {{
            plugin: ProbeResult(True, plugin.module, "works", seconds[plugin.module], 20_000) for plugin in plugins
        }}
        device, reason = choose_device("{name}")
        assert device == jax.devices("cpu")[0]
        assert sys.modules["fake_works"].__doc__.endswith("disabled by jaxlm.")
        print(jax.device_put(7, device), reason)
    """
    install_fakes(tmp_path, "works", "raises_in_factory")
    path = os.pathsep.join([*sys.path, str(tmp_path)])
    done = run_python(program, PYTHONPATH=path, JAX_PLATFORMS="", JAXLM_DATA_DIR=str(tmp_path))
    assert done.startswith("7 ")
    assert reason in done


@pytest.mark.slow
def test_resolve_device_second_device():
    """In a subprocess, because the number of CPU devices is fixed when JAX starts."""
    program = """
        import jax, jaxlm, numpy as np

        first, second = jax.devices("cpu")
        with jax.default_device(second):
            assert jaxlm.resolve_device("auto") == second
        assert jaxlm.resolve_device("auto") == jaxlm.resolve_device("cpu") == first
        used, device_put = set(), jax.device_put
        jax.device_put = lambda value, device: used.add(device) or device_put(value, device)
        assert abs(jaxlm.perplexity(jaxlm.UniformLM(3), {}, np.array([0, 1, 2]), device=second) - 3) < 1e-5
        assert used == {second}
    """
    run_python(program, JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_force_host_platform_device_count=2")


def run_python(program, **environment):
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.check_output(command, env=os.environ | environment, text=True)
