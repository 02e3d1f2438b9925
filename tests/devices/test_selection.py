"""Which device a name means, and why."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest
from fake_plugins import install_fakes

from jaxlm import resolve_device
from jaxlm.devices.listing import describe_devices
from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_runner import ProbeResult
from jaxlm.devices.selection import Choice, choose_device, format_device

CPU = jax.devices("cpu")[0]
AGREES = "computes the CPU's values"
FAST, SLOW, BAD = (Plugin(name, f"{name}-chip", "1.0") for name in ("fast", "slow", "bad"))
WORKING = {
    FAST: ProbeResult(True, "FAST", AGREES, 0.001, 20_000),
    SLOW: ProbeResult(True, "SLOW", AGREES, 0.002, 40_000),
}
FAILING = {BAD: ProbeResult(False, None, "crashed")}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """Remove the settings of whoever runs the tests, and restore the modules of disabled plugins."""
    for name in ("JAXLM_DEVICE", "JAX_PLATFORM_NAME"):
        monkeypatch.delenv(name, raising=False)
    platforms, modules = jax.config.jax_platforms, set(sys.modules)
    jax.config.update("jax_platforms", None)
    yield
    jax.config.update("jax_platforms", platforms)
    for name in set(sys.modules) - modules:
        if "disabled by jaxlm" in (sys.modules[name].__doc__ or ""):
            del sys.modules[name]


@pytest.fixture
def offer(install, monkeypatch):
    """Return a function that installs plugins with these results, of whose platforms those in `starting` start.

    It returns the list of the calls of `run_probes`.
    """

    def offer_results(results, *, starting=("FAST", "SLOW")):
        def devices(platform):
            if platform in starting:
                return [f"{platform}:0", f"{platform}:1"]
            if platform == "cpu":
                return [CPU]
            raise RuntimeError(f"Unknown backend {platform}\nand more")

        monkeypatch.setattr(jax, "devices", devices)
        for plugin in results:
            sys.modules.pop(plugin.module, None)
        return install(results)

    return offer_results


def disabled():
    return {module for module in ("fast", "slow", "bad") if module in sys.modules}


def test_auto_without_plugins_is_the_default_device(offer):
    assert resolve_device() == jnp.zeros(3).devices().pop()
    offer({})
    assert choose_device() == Choice(jnp.zeros(3).devices().pop(), "no accelerator plugin is installed")


@pytest.mark.parametrize(
    ("name", "platform"),
    [(name, name) for name in ("gpu", "cuda", "rocm", "tpu")]
    + [("metal", platform) for platform in ("METAL", "metal", "mps", "mtl")],
)
def test_name_means_the_first_device_of_its_platform(offer, name, platform):
    """Without probes, and without disabling plugins, except for "metal"."""
    offer({}, starting=(platform,))
    assert choose_device(name) == Choice(f"{platform}:0", "requested")


def test_accelerator_by_name_is_not_probed(offer):
    probes = offer(FAILING, starting=("gpu",))
    assert resolve_device("gpu") == "gpu:0"
    assert probes == []
    assert disabled() == set()


def test_absent_device_raises_with_the_plugins(offer):
    offer(WORKING)
    with pytest.raises(ValueError, match=r"no 'tpu' device here: JAX offers cpu .*fast-chip 1.0, slow-chip 1.0"):
        resolve_device("tpu")


@pytest.mark.parametrize("name", ["", "GPU", "cpu:0", None])
def test_unknown_name_raises_with_the_known(monkeypatch, name):
    with pytest.raises(ValueError, match=rf"unknown device {name!r}; choose one of auto, cpu, gpu"):
        resolve_device(name)
    monkeypatch.setenv("JAXLM_DEVICE", "quantum")
    with pytest.raises(ValueError, match="unknown device 'quantum'; choose one of auto, cpu, gpu"):
        resolve_device()


def test_requested_device_precedes_all_settings(offer, monkeypatch):
    offer(WORKING)
    monkeypatch.setenv("JAXLM_DEVICE", "gpu")
    assert choose_device("cpu", num_weights=10**9) == Choice(CPU, "requested")
    assert choose_device(CPU) == Choice(CPU, "passed as a jax.Device")


def test_jaxlm_device_precedes_jax_platforms(offer, monkeypatch):
    offer(WORKING)
    monkeypatch.setenv("JAXLM_DEVICE", "cpu")
    jax.config.update("jax_platforms", "FAST,cpu")
    assert choose_device(num_weights=10**9) == Choice(CPU, "JAXLM_DEVICE=cpu")


@pytest.mark.parametrize("value", ["", "auto"])
def test_jaxlm_device_may_be_empty_or_auto(offer, monkeypatch, value):
    offer(WORKING)
    monkeypatch.setenv("JAXLM_DEVICE", value)
    assert resolve_device() == "FAST:0"


def test_jax_platforms_precedes_the_default_device(offer):
    probes = offer(WORKING)
    jax.config.update("jax_platforms", "FAST,cpu")
    with jax.default_device(CPU):
        assert choose_device(num_weights=10**9) == Choice(CPU, "JAX_PLATFORMS=FAST,cpu")
    assert probes == []
    assert disabled() == set()


@pytest.mark.parametrize(("device", "reason"), [("auto", "JAX_PLATFORMS=cpu"), ("cpu", "requested")])
def test_jax_platforms_cpu_disables_all_without_probes(offer, device, reason):
    probes = offer(WORKING | FAILING)
    jax.config.update("jax_platforms", "cpu")
    assert choose_device(device) == Choice(CPU, reason)
    assert probes == []
    assert disabled() == {"fast", "slow", "bad"}


def test_jax_platform_name_and_default_device_are_used(offer, monkeypatch):
    offer(WORKING)
    with jax.default_device(CPU):
        assert choose_device(num_weights=10**9) == Choice(CPU, "jax.default_device")
    monkeypatch.setenv("JAX_PLATFORM_NAME", "cpu")
    assert choose_device(num_weights=10**9) == Choice(CPU, "JAX_PLATFORM_NAME=cpu")


def test_auto_is_the_fastest_plugin_that_works(offer):
    offer(FAILING | dict(reversed(WORKING.items())))
    assert choose_device() == Choice("FAST:0", f"fast-chip 1.0 {AGREES}")
    assert disabled() == {"bad", "slow"}


@pytest.mark.parametrize(
    ("num_weights", "device"), [(1, CPU), (19_999, CPU), (20_000, "FAST:0"), (10**9, "FAST:0"), (None, "FAST:0")]
)
def test_auto_is_the_cpu_for_small_models(offer, num_weights, device):
    offer(WORKING)
    choice = choose_device(num_weights=num_weights)
    assert choice.device == device
    if num_weights == 19_999:
        assert choice.reason == "fast-chip 1.0 is faster from 20,000 weights, the model has 19,999"


def test_auto_is_the_cpu_if_no_size_is_faster(offer):
    reason = f"{AGREES}, 20 times slower"
    offer({FAST: ProbeResult(True, "mps", reason, 0.02)}, starting=("mps",))
    assert choose_device(num_weights=10**9) == Choice(CPU, f"fast-chip 1.0 {reason}")
    assert resolve_device("metal") == "mps:0"


def test_auto_is_the_cpu_if_no_plugin_works(offer):
    offer(FAILING | {SLOW: FAILING[BAD]._replace(reason="hangs")})
    assert choose_device(num_weights=10**9) == Choice(CPU, "bad-chip 1.0 crashed; slow-chip 1.0 hangs")
    assert disabled() == {"bad", "slow"}


def test_cpu_by_name_disables_all_but_the_fastest(offer):
    offer(WORKING | FAILING)
    assert resolve_device("cpu") is CPU
    assert disabled() == {"bad", "slow"}


def test_metal_is_the_fastest_working_apple_plugin(offer):
    bad, mps = ProbeResult(False, "METAL", "crashed"), ProbeResult(True, "mps", AGREES, 0.002)
    offer(
        {BAD: bad, SLOW: mps._replace(platform="mtl", seconds=0.003), FAST: mps}, starting=("METAL", "mps", "mtl")
    )
    assert resolve_device("metal") == "mps:0"
    assert disabled() == {"bad", "slow"}
    offer({BAD: bad, SLOW: mps._replace(seconds=0.004), FAST: WORKING[FAST]}, starting=("mps", "FAST"))
    assert resolve_device("metal") == "mps:0"  # although the other is faster
    assert disabled() == {"bad", "fast"}


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ({}, "no plugin for it is installed"),
        ({BAD: ProbeResult(False, None, "breaks all; pip install a remedy")}, "breaks all; pip install a remedy"),
        (
            {FAST: ProbeResult(True, "METAL", AGREES, 0.001)},
            "fast-chip 1.0 passed its probe but does not start here: Unknown backend METAL and more",
        ),
    ],
)
def test_metal_raises_with_the_reason(offer, results, reason):
    offer(results, starting=())
    with pytest.raises(ValueError, match="no 'metal' device here") as raised:
        choose_device("metal")
    assert reason in str(raised.value)


def test_metal_without_its_plugin_keeps_the_fastest_enabled(offer):
    offer(WORKING | FAILING)
    with pytest.raises(ValueError, match="no 'metal' device here"):
        choose_device("metal")
    assert disabled() == {"bad", "slow"}
    assert resolve_device(num_weights=10**9) == "FAST:0"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reason"), [("auto", "the chip does not answer"), ("cpu", "requested")])
def test_plugin_that_does_not_start_leaves_the_cpu(tmp_path, name, reason):
    """In a process of its own, because JAX starts plugins once. The plugins are real, their results made up."""
    program = f"""
        import sys

        import jax
        from jaxlm.devices import probe_cache
        from jaxlm.devices.probe_runner import ProbeResult
        from jaxlm.devices.selection import choose_device

        seconds = {{"fake_raises_in_factory": 0.001, "fake_works": 0.002}}
        probe_cache.run_probes = lambda plugins: {{
            plugin: ProbeResult(True, plugin.module, "works", seconds[plugin.module], 20_000) for plugin in plugins
        }}
        device, reason = choose_device("{name}")
        assert device == jax.devices("cpu")[0]
        assert sys.modules["fake_works"].__doc__.endswith("disabled by jaxlm.")
        print(jax.device_put(7, device), reason)
    """
    path = os.pathsep.join([*sys.path, str(install_fakes(tmp_path, "works", "raises_in_factory"))])
    environment = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "", "JAXLM_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("7 ")
    assert reason in done.stdout


@pytest.mark.slow
def test_describe_devices_lists_devices_and_plugins(install):
    """The platform of two plugins is the CPU's, so that JAX has a device for it. The faster one is named."""
    cpu = {plugin: result._replace(platform="cpu") for plugin, result in WORKING.items()}
    install(FAILING | dict(reversed(cpu.items())))
    document = describe_devices()
    first, *rest = document["devices"]
    assert first.pop("gflops") > 0.1
    assert first.pop("gbytes") > 0.1
    row = {"platform": "cpu", "plugin": "fast-chip", "version": "1.0", "verdict": "works", "reason": AGREES}
    row["device"] = format_device(CPU)
    assert first == row | {"auto": ["small", "large"]}
    no_device = {"device": None, "gflops": None, "gbytes": None, "auto": []}
    assert rest == [
        {"platform": None, "plugin": "bad-chip", "version": "1.0", "verdict": "fails", "reason": "crashed"}
        | no_device,
        row | {"plugin": "slow-chip"} | no_device,
    ]
    small, large = document["auto"]
    assert (small["num_weights"], large["num_weights"]) == (1_000, 10_000_000)
    assert small["device"] == large["device"] == format_device(CPU)
    assert (
        small["reason"] == "bad-chip 1.0 crashed; fast-chip 1.0 is faster from 20,000 weights, the model has 1,000"
    )
    assert large["reason"] == f"fast-chip 1.0 {AGREES}"


@pytest.mark.slow
def test_describe_devices_without_plugins_is_the_cpu(install):
    install({})
    (row,) = describe_devices()["devices"]
    columns = ("platform", "plugin", "version", "verdict", "reason", "auto")
    assert [row[column] for column in columns] == ["cpu", None, None, "built in", None, ["small", "large"]]


@pytest.mark.slow
def test_second_device_is_used_if_chosen():
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
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, env=environment)
