"""Plugins with made-up probe results."""

import pytest

from jaxlm.devices import probes, selection
from jaxlm.devices.probes import clear_probe_cache, probe_results


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that replaces the installed plugins and `run_probes` by a dict of results.

    It returns the list of the calls of `run_probes`. Plugins may be added to the dict later.
    """
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXLM_PROBE_SECONDS", raising=False)

    def install_results(results):
        calls = []

        def run_probes(plugins):
            calls.append(plugins)
            return {plugin: results[plugin] for plugin in plugins}

        monkeypatch.setattr(probes, "run_probes", run_probes)
        for module in (probes, selection):
            monkeypatch.setattr(module, "installed_plugins", lambda: tuple(results))
        clear_probe_cache()
        return calls

    yield install_results
    probe_results.cache_clear()
