"""Which device a name stands for."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pytest
from fake_plugins import install as install_fakes

from jaxlm import resolve_device
from jaxlm.devices import selection as devices
from jaxlm.devices.listing import describe_devices
from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_runner import ProbeResult
from jaxlm.devices.selection import Choice, choose_device, format_device

FAST, SLOW, BAD = (
    Plugin("fast", "fast-chip", "1.0"),
    Plugin("slow", "slow-chip", "2.0"),
    Plugin("bad", "bad-chip", "3.0"),
)
WORKS = {
    FAST: ProbeResult(
        works=True, platform="FAST", reason="gives the CPU's values", seconds=0.001, worthwhile_from=20_000
    ),
    SLOW: ProbeResult(
        works=True, platform="SLOW", reason="gives the CPU's values", seconds=0.002, worthwhile_from=40_000
    ),
}
FAILS = {BAD: ProbeResult(works=False, platform=None, reason="ended its process by SIGABRT")}
CPU = jax.devices("cpu")[0]


@pytest.fixture(autouse=True)
def undecided(monkeypatch):
    """Nothing that the person who runs the tests has chosen."""
    monkeypatch.delenv("JAXLM_DEVICE", raising=False)
    monkeypatch.delenv("JAX_PLATFORM_NAME", raising=False)
    chosen = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    yield
    jax.config.update("jax_platforms", chosen)


@pytest.fixture
def install(monkeypatch):
    """A function: takes these verdicts for those of the installed plugins, and their platforms for JAX's.

    It returns the list of what is kept out.
    """
    kept_out = []

    def installed(verdicts, *, starting=("FAST", "SLOW")):
        def offered(platform):
            if platform in starting:
                return [f"{platform}:0", f"{platform}:1"]
            if platform == "cpu":
                return [CPU]
            raise RuntimeError(f"Unknown backend {platform}\nand more")

        kept_out.clear()
        monkeypatch.setattr(devices, "judged_plugins", lambda: verdicts)
        monkeypatch.setattr(devices, "installed_plugins", lambda: tuple(verdicts))
        monkeypatch.setattr(devices, "keep_out", kept_out.extend)
        monkeypatch.setattr(jax, "devices", offered)
        return kept_out

    return installed


@pytest.fixture(scope="module")
def both_fakes(tmp_path_factory):
    """A folder to import two plugins from, of which one does not start."""
    return install_fakes(tmp_path_factory.mktemp("fakes"), "works", "raises_in_factory")


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


def test_device_that_is_asked_for_comes_first(install, monkeypatch):
    install(WORKS)
    monkeypatch.setenv("JAXLM_DEVICE", "gpu")
    assert choose_device("cpu", num_weights=10**9) == Choice(CPU, "it was asked for")
    assert choose_device(CPU) == Choice(CPU, "it was given")


def test_then_that_of_the_environment(install, monkeypatch):
    install(WORKS)
    monkeypatch.setenv("JAXLM_DEVICE", "cpu")
    jax.config.update("jax_platforms", "FAST,cpu")
    assert choose_device(num_weights=10**9) == Choice(CPU, "JAXLM_DEVICE=cpu")


@pytest.mark.parametrize("value", ["", "auto"])
def test_environment_that_chooses_nothing(install, monkeypatch, value):
    install(WORKS)
    monkeypatch.setenv("JAXLM_DEVICE", value)
    assert choose_device().device == "FAST:0"


def test_unknown_device_in_the_environment_is_an_error(monkeypatch):
    monkeypatch.setenv("JAXLM_DEVICE", "quantum")
    with pytest.raises(ValueError, match=r"unknown device 'quantum'; choose one of auto, cpu, gpu"):
        choose_device()


def test_then_platforms_that_jax_was_told(install):
    kept_out = install(WORKS | FAILS)
    jax.config.update("jax_platforms", "FAST,cpu")
    with jax.default_device(CPU):
        assert choose_device(num_weights=10**9) == Choice(CPU, "JAX_PLATFORMS=FAST,cpu")
    assert kept_out == []


def test_platform_by_its_old_name(install, monkeypatch):
    install(WORKS)
    monkeypatch.setenv("JAX_PLATFORM_NAME", "cpu")
    assert choose_device(num_weights=10**9) == Choice(CPU, "JAX_PLATFORM_NAME=cpu")


def test_where_jax_is_told_cpu_no_plugin_is_judged_and_none_let_in(install, monkeypatch):
    kept_out = install(WORKS | FAILS)
    monkeypatch.setattr(devices, "judged_plugins", lambda: pytest.fail("a plugin was judged"))
    jax.config.update("jax_platforms", "cpu")
    assert choose_device() == Choice(CPU, "JAX_PLATFORMS=cpu")
    assert kept_out == [FAST, SLOW, BAD]


def test_where_jax_is_told_cpu_the_cpu_by_name_is_not_judged_either(install, monkeypatch):
    kept_out = install(WORKS | FAILS)
    monkeypatch.setattr(devices, "judged_plugins", lambda: pytest.fail("a plugin was judged"))
    jax.config.update("jax_platforms", "cpu")
    assert choose_device("cpu") == Choice(CPU, "it was asked for")
    assert kept_out == [FAST, SLOW, BAD]


def test_then_the_default_device(install):
    install(WORKS)
    with jax.default_device(CPU):
        assert choose_device(num_weights=10**9) == Choice(CPU, "it is jax.default_device")


def test_then_the_fastest_accelerator_that_works(install):
    kept_out = install(FAILS | dict(reversed(WORKS.items())))
    assert choose_device() == Choice("FAST:0", "fast-chip 1.0 gives the CPU's values")
    assert kept_out == [BAD, SLOW]


@pytest.mark.parametrize(
    ("num_weights", "device"), [(1, CPU), (19_999, CPU), (20_000, "FAST:0"), (10**9, "FAST:0"), (None, "FAST:0")]
)
def test_accelerator_is_for_models_that_it_pays_for(install, num_weights, device):
    install(dict(list(WORKS.items())[:1]))
    assert choose_device(num_weights=num_weights).device == device


def test_small_model_is_told_from_what_size_the_fastest_pays(install):
    install(WORKS)
    reason = "fast-chip 1.0 pays from 20,000 weights, the model has 1,234"
    assert choose_device(num_weights=1_234) == Choice(CPU, reason)


def test_accelerator_that_never_pays_is_for_those_who_ask(install):
    slower = WORKS[FAST]._replace(worthwhile_from=None, reason="gives the CPU's values in 20 times its time")
    install({Plugin("m", "m", "1"): slower._replace(platform="mps")}, starting=("mps",))
    assert choose_device(num_weights=10**9) == Choice(CPU, "m 1 gives the CPU's values in 20 times its time")
    assert choose_device("metal").device == "mps:0"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fastest", "is_cpu", "reason"),
    [
        ("auto", "works", False, "fake-works 1.0 gives the CPU's values"),
        (
            "auto",
            "raises_in_factory",
            True,
            "fake-raises_in_factory 1.0 passed its probe, and does not start here: Unable to initialize backend "
            "'fake_raises_in_factory': the chip does not answer",
        ),
        ("cpu", "works", True, "it was asked for"),
        ("cpu", "raises_in_factory", True, "it was asked for"),
    ],
)
def test_plugin_that_does_not_start_is_in_no_others_way(both_fakes, name, fastest, is_cpu, reason):
    """In a process of its own, for JAX starts its plugins once: real plugins, and verdicts that are made up."""
    (other,) = {"works", "raises_in_factory"} - {fastest}
    program = f"""
        import sys

        import jax
        from jaxlm import devices
        from jaxlm.plugins import installed_plugins
        from jaxlm.trials import Verdict

        def verdict(plugin):
            seconds = 0.001 if plugin.module == "fake_{fastest}" else 0.002
            return Verdict(True, plugin.module, "gives the CPU's values", seconds, 20_000)

        devices.judged_plugins = lambda: {{plugin: verdict(plugin) for plugin in installed_plugins()}}
        device, reason = devices.choose_device("{name}")
        assert not hasattr(sys.modules["fake_{other}"], "NAME"), "it was let in"
        print(device == jax.devices("cpu")[0], jax.device_put(7, device), reason)
    """
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(both_fakes)]), "JAX_PLATFORMS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.startswith(f"{is_cpu} 7 {reason}"), finished.stdout


def test_where_none_works_the_cpu_and_every_reason(install):
    worse = {Plugin("worse", "worse-chip", "4.0"): FAILS[BAD]._replace(reason="gave no answer in 25 s")}
    kept_out = install(FAILS | worse)
    assert choose_device(num_weights=10**9) == Choice(
        CPU, "bad-chip 3.0 ended its process by SIGABRT; worse-chip 4.0 gave no answer in 25 s"
    )
    assert kept_out == [BAD, *worse]


def test_without_plugins_what_jax_takes(install):
    install({})
    assert choose_device() == Choice(jnp.zeros(3).devices().pop(), "no accelerator's plugin is installed")


def test_cpu_is_had_where_a_plugin_would_hang(install):
    kept_out = install(WORKS | FAILS)
    choose_device("cpu")
    assert kept_out == [SLOW, BAD]


def test_accelerator_that_is_asked_for_by_name_is_not_judged(install, monkeypatch):
    kept_out = install(FAILS, starting=("gpu",))
    monkeypatch.setattr(devices, "judged_plugins", lambda: pytest.fail("a plugin was judged"))
    assert choose_device("gpu").device == "gpu:0"
    assert kept_out == []


def test_metal_is_the_fastest_of_apples_plugins_that_work(install):
    def verdicts(**seconds):
        return {
            Plugin(name, name, "1"): WORKS[FAST]._replace(platform=name, seconds=each, works=each is not None)
            for name, each in seconds.items()
        }

    apples = ("METAL", "metal", "mps", "mtl")
    install(verdicts(METAL=0.003, mps=0.002, mtl=0.004), starting=("METAL", "mps", "mtl"))
    assert choose_device("metal").device == "mps:0"
    install(verdicts(METAL=0.001), starting=())
    with pytest.raises(
        ValueError, match="METAL 1 passed its probe, and does not start here: Unknown backend METAL"
    ):
        choose_device("metal")
    kept_out = install(verdicts(METAL=None, mtl=0.004, FAST=0.001), starting=("mtl", "FAST"))
    assert choose_device("metal").device == "mtl:0"
    assert [plugin.name for plugin in kept_out] == ["METAL", "FAST"]
    install({}, starting=apples)
    assert choose_device("metal").device == "METAL:0"


def test_asking_for_metal_where_there_is_none_keeps_no_other_plugin_out(install):
    kept_out = install(WORKS | FAILS)
    with pytest.raises(ValueError, match="no 'metal' device here"):
        choose_device("metal")
    assert kept_out == [SLOW, BAD]
    assert choose_device(num_weights=10**9).device == "FAST:0"


def test_where_no_plugin_of_apples_works_the_error_says_why(install):
    install({Plugin("m", "jax-metal", "0.1.1"): FAILS[BAD]._replace(reason="breaks all; pip install a cure")})
    with pytest.raises(
        ValueError, match=r"no 'metal' device here: .*\(jax-metal 0.1.1 breaks all; pip install a cure"
    ):
        choose_device("metal")
    install({})
    with pytest.raises(ValueError, match="no plugin for it is installed"):
        choose_device("metal")


def test_absent_device_is_an_error_that_names_the_plugins(install):
    install(WORKS)
    with pytest.raises(ValueError, match=r"plugins installed: fast-chip 1.0, slow-chip 2.0"):
        choose_device("tpu")


@pytest.mark.slow
def test_description_has_a_row_for_each_device_and_each_plugin(install, monkeypatch):
    monkeypatch.setattr(devices, "_rates", lambda device: {"gflops": 5.0, "gbytes": 7.0})
    verdicts = {BAD: FAILS[BAD], SLOW: WORKS[SLOW]._replace(platform="cpu", reason="is this CPU")}
    install(verdicts)
    document = describe_devices()
    rates = {"gflops": 5.0, "gbytes": 7.0}
    assert document["devices"] == [
        {
            "platform": "cpu",
            "device": format_device(CPU),
            **{"plugin": "slow-chip", "version": "2.0", "verdict": "works", "reason": "is this CPU"},
            **rates,
            "auto": ["small", "large"],
        },
        {
            "platform": None,
            **{"plugin": "bad-chip", "version": "3.0", "verdict": "fails", "reason": FAILS[BAD].reason},
            **{"device": None, "gflops": None, "gbytes": None, "auto": []},
        },
    ]
    failing = "bad-chip 3.0 ended its process by SIGABRT"
    assert document["auto"] == [
        {
            "num_weights": 1_000,
            "device": format_device(CPU),
            "reason": f"{failing}; slow-chip 2.0 pays from 40,000 weights, the model has 1,000",
        },
        {"num_weights": 10_000_000, "device": format_device(CPU), "reason": "slow-chip 2.0 is this CPU"},
    ]


@pytest.mark.slow
def test_description_has_a_row_for_a_platforms_second_plugin(install, monkeypatch):
    monkeypatch.setattr(devices, "_rates", lambda device: {"gflops": 5.0, "gbytes": 7.0})
    namesake = Plugin("another", FAST.name, FAST.version)
    verdicts = {BAD: FAILS[BAD], SLOW: WORKS[SLOW], FAST: WORKS[FAST], namesake: FAILS[BAD]}
    install({plugin: verdict._replace(platform="cpu") for plugin, verdict in verdicts.items()})
    rows = describe_devices()["devices"]
    assert [(row["plugin"], row["device"], row["verdict"]) for row in rows] == [
        ("fast-chip", format_device(CPU), "works"),
        ("bad-chip", None, "fails"),
        ("slow-chip", None, "works"),
        ("fast-chip", None, "fails"),
    ]


@pytest.mark.slow
def test_rates_are_measured():
    (row,) = describe_devices()["devices"]
    assert (row["platform"], row["plugin"], row["verdict"], row["auto"]) == (
        "cpu",
        None,
        "built in",
        ["small", "large"],
    )
    assert row["gflops"] > 0.1
    assert row["gbytes"] > 0.1


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
