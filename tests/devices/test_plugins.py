"""Plugins are found and disabled without importing any."""

import importlib
import os
import subprocess
import sys
import textwrap
from importlib import metadata

import pytest
from fake_plugins import add_plugin

from jaxlm.devices.plugins import Plugin, disable_plugins, installed_plugins, known_incompatibility

ON_IMPORT = "raise AssertionError('imported')"


@pytest.fixture(autouse=True)
def site(tmp_path, monkeypatch):
    """Return a directory to import from."""
    monkeypatch.syspath_prepend(tmp_path)
    installed_plugins.cache_clear()
    yield tmp_path
    installed_plugins.cache_clear()


def add_to_namespace(site, path):
    path = site / "jax_plugins" / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ON_IMPORT)


def test_installed_plugins_finds_modules_without_distribution(site, monkeypatch):
    add_to_namespace(site, "mine/__init__.py")
    add_to_namespace(site, "mine_too.py")
    expected = [
        Plugin("jax_plugins.mine", "jax_plugins.mine", "unknown"),
        Plugin("jax_plugins.mine_too", "jax_plugins.mine_too", "unknown"),
    ]
    assert [plugin for plugin in installed_plugins() if "mine" in plugin.name] == expected
    monkeypatch.setitem(sys.modules, "jax_plugins.mine", None)  # restores what was there
    disable_plugins(expected[:1])
    installed_plugins.cache_clear()
    assert [plugin for plugin in installed_plugins() if "mine" in plugin.name] == expected


def test_installed_plugins_finds_entry_points_and_libtpu(site):
    add_to_namespace(site, "mine.py")
    add_plugin(site, "my-chip", "1.2", module="mine", source=ON_IMPORT)
    (site / "my_chip-1.2.dist-info" / "entry_points.txt").write_text("[jax_plugins]\nchip = jax_plugins.mine\n")
    (plugin,) = [plugin for plugin in installed_plugins() if "mine" in plugin.module]
    assert plugin == Plugin("jax_plugins.mine", "my-chip", "1.2")
    assert str(plugin) == "my-chip 1.2"
    add_plugin(site, "libtpu", "0.0.40", module="other", source="")
    installed_plugins.cache_clear()
    assert Plugin("libtpu", "libtpu", "0.0.40") in installed_plugins()


@pytest.mark.parametrize("version", ["0.5.0", "0.5.1", "0.10.2"])
def test_jax_metal_is_incompatible_with_newer_jax(monkeypatch, version):
    monkeypatch.setattr(metadata, "version", lambda name: version)
    reason = known_incompatibility(Plugin("any", "jax-metal", "0.1.1")) or "none"
    assert (f"fails with jax {version}; pip install 'jaxlm[metal]'" in reason) == (version != "0.5.0")
    assert known_incompatibility(Plugin("any", "jax-mps", "0.1.1")) is None


@pytest.mark.parametrize("module", ["mine", "absent.mine"])
def test_disable_plugins_replaces_the_module(site, monkeypatch, module):
    add_to_namespace(site, "mine.py")
    monkeypatch.setitem(sys.modules, module, None)  # restores what was there
    disable_plugins([Plugin(module, "mine", "1")])
    importlib.import_module(module).initialize()


@pytest.mark.slow
def test_probe_results_imports_neither_jax_nor_a_plugin(site):
    """In a subprocess. The known incompatibility of jax-metal needs no probe; the probe of the other fails."""
    add_plugin(site, "jax-metal", "0.1.1", module="metal", source=ON_IMPORT)
    add_plugin(site, "my-chip", "1.2", module="mine", source=ON_IMPORT)
    program = """
        import importlib.metadata, sys

        version = importlib.metadata.version
        importlib.metadata.version = lambda name: "0.10.2" if name == "jax" else version(name)
        from jaxlm.devices.probes import probe_results

        reasons = {plugin.name: result.reason for plugin, result in probe_results().items()}
        assert not {"jax", "mine", "metal"} & set(sys.modules)
        assert "fails with jax 0.10.2" in reasons["jax-metal"]
        assert "AssertionError: imported" in reasons["my-chip"]
    """
    settings = {"PYTHONPATH": os.pathsep.join(sys.path), "JAXLM_DATA_DIR": str(site), "JAXLM_PROBE_SECONDS": "60"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=os.environ | settings, check=True)
