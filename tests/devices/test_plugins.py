"""Which plugins are found, without any being imported, and how one is kept out."""

import importlib
import os
import subprocess
import sys

import pytest
from fake_plugins import install

from jaxlm.devices import plugins
from jaxlm.devices.plugins import Plugin, disable_plugins, installed_plugins, known_incompatibility

METAL = Plugin("jax_plugins.metal_plugin", "jax-metal", "0.1.1")


@pytest.fixture(autouse=True)
def fresh():
    installed_plugins.cache_clear()
    yield
    installed_plugins.cache_clear()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that is imported from, and whose distributions are found."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def add_distribution(site, name, version, entry_points=""):
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (folder / "entry_points.txt").write_text(entry_points)


def add_module(path, source="raise AssertionError('it was imported')"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


def found():
    return [plugin for plugin in installed_plugins() if "mine" in plugin.module or plugin.module == "libtpu"]


def test_entry_point_is_a_plugin_of_its_distribution(site):
    add_distribution(
        site, "my-chip", "1.2", "[jax_plugins]\nchip = mine.chip\n[console_scripts]\nmine = mine:main\n"
    )
    add_module(site / "mine" / "__init__.py")
    assert found() == [Plugin("mine.chip", "my-chip", "1.2")]
    assert str(found()[0]) == "my-chip 1.2"


def test_distribution_without_a_name_is_a_plugin_all_the_same(site):
    add_distribution(site, "my-chip", "1.2", "[jax_plugins]\nchip = mine.chip\n")
    (site / "my_chip-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n")
    assert [str(plugin) for plugin in found()] == ["unknown unknown"]


def test_modules_of_the_namespace_are_plugins_without_a_distribution(site):
    add_module(site / "jax_plugins" / "mine_folder" / "__init__.py")
    add_module(site / "jax_plugins" / "mine_file.py")
    os.utime(site / "jax_plugins" / "mine_folder" / "__init__.py", (0, 86_400))
    modules = {plugin.module: plugin for plugin in found()}
    assert list(modules) == ["jax_plugins.mine_file", "jax_plugins.mine_folder"]
    folder = modules["jax_plugins.mine_folder"]
    assert (folder.name, folder.version) == ("jax_plugins.mine_folder", "1970-01-02T00:00:00Z")
    os.utime(site / "jax_plugins" / "mine_file.py", (0, 172_800))
    installed_plugins.cache_clear()
    assert "1970-01-03T00:00:00Z" in {plugin.version for plugin in found()}


def test_module_that_an_entry_point_names_too_is_one_plugin(site):
    add_module(site / "jax_plugins" / "mine" / "__init__.py")
    add_distribution(site, "my-chip", "1.2", "[jax_plugins]\nchip = jax_plugins.mine\n")
    assert found() == [Plugin("jax_plugins.mine", "my-chip", "1.2")]


def test_library_of_tpus_is_found_by_its_name(site):
    add_distribution(site, "libtpu", "0.0.40")
    assert found() == [Plugin("libtpu", "libtpu", "0.0.40")]


@pytest.mark.parametrize("jax", ["0.4.35", "0.5.0", "0.5.0.dev20250101", "unknown"])
def test_jax_metal_fits_what_it_was_built_for(monkeypatch, jax):
    monkeypatch.setattr(plugins, "jax_version", lambda: jax)
    assert known_incompatibility(METAL) is None


@pytest.mark.parametrize("jax", ["0.5.1", "0.5.3rc1", "0.10.2", "0.12.0.1", "1.0.0"])
@pytest.mark.parametrize("name", ["jax-metal", "jax_metal", "JAX-Metal"])
@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13)])
def test_jax_metal_beside_a_later_jax_has_a_fault_and_a_cure(monkeypatch, jax, name, python):
    monkeypatch.setattr(plugins, "jax_version", lambda: jax)
    monkeypatch.setattr(plugins.sys, "version_info", python)
    fault = known_incompatibility(Plugin("any", name, "0.1.1"))
    assert f"jax {jax}," in fault
    assert "pip install 'jaxlm[metal]'" in fault
    assert "pip uninstall jax-metal" in fault
    assert ("pip install 'jaxlm[apple]'" in fault) == (python >= (3, 12))


def test_other_plugins_have_no_known_fault(monkeypatch):
    monkeypatch.setattr(plugins, "jax_version", lambda: "0.10.2")
    assert known_incompatibility(Plugin("jax_plugins.mps", "jax-mps", "0.1.1")) is None


@pytest.mark.parametrize("was_imported", [False, True])
def test_what_is_kept_out_initializes_nothing(site, monkeypatch, was_imported):
    add_module(site / "mine.py", "def initialize(): raise AssertionError")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    if was_imported:
        importlib.import_module("mine")
    disable_plugins([Plugin("mine", "mine", "1")])
    importlib.import_module("mine").initialize()


def test_module_below_a_package_that_cannot_be_imported_is_kept_out(site, monkeypatch):
    monkeypatch.delitem(sys.modules, "jax_plugins.mine", raising=False)
    disable_plugins([Plugin("jax_plugins.mine", "mine", "1")])
    importlib.import_module("jax_plugins.mine").initialize()
    del sys.modules["jax_plugins.mine"]


@pytest.mark.slow
def test_jax_metal_is_judged_before_jax_or_a_plugin_is_imported(tmp_path):
    """A wheel of that name, whose module would hang."""
    program = """
        import sys
        from jaxlm.verdicts import judged_plugins

        ((plugin, verdict),) = judged_plugins().items()
        assert not {"jax", plugin.module} & set(sys.modules)
        assert not verdict.works
        print(plugin, verdict.reason)
    """
    target = install(tmp_path, "hangs_in_import", name="jax-metal", version="0.1.1")
    path = os.pathsep.join([str(target), *sys.path])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "JAXLM_DATA_DIR": str(tmp_path / "data"),
        "JAXLM_PROBE_SECONDS": "2",
    }
    words = [sys.executable, "-c", "\n".join(line.strip() for line in program.splitlines())]
    finished = subprocess.run(words, check=True, env=environment, capture_output=True, text=True)
    if "0.5.0" in plugins.jax_version():
        assert "gave no answer" in finished.stdout
    else:
        assert "jax-metal 0.1.1 breaks every program of jax" in finished.stdout
        assert "pip install" in finished.stdout
        assert not (tmp_path / "data").exists()
