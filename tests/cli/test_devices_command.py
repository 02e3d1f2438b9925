"""`jaxlm devices`."""

import jax
from cli_helpers import devices, pipe, shown

from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probes import ProbeResult
from jaxlm.devices.selection import format_device


def test_devices_shows_plugins_and_what_auto_chooses(monkeypatch):
    cpu, choices, cleared = jax.devices("cpu")[0], ["chip 1.0 works", "nothing else works"], []
    metal, chip = ProbeResult(False, None, "crashes\x1b[2J"), ProbeResult(True, "chip", "works", 0.001, 20_000)
    results = {Plugin("metal", "jax-metal", "0.1.1"): metal, Plugin("chip", "chip", "1.0"): chip}
    monkeypatch.setattr("jaxlm.devices.probes.probe_results", lambda: results)
    monkeypatch.setattr("jaxlm.devices.probes.clear_probe_cache", lambda: cleared.append(True))
    monkeypatch.setattr("jaxlm.devices.selection.choose_device", lambda name: (cpu, choices.pop()))
    console, name = pipe(), format_device(cpu)
    document = devices(console=console)
    assert not cleared
    assert (document["devices"], document["auto"]["from_parameters"]) == ([name], None)
    assert document["plugins"][0] == {"plugin": "jax-metal 0.1.1", **metal._asdict()}
    assert shown(console).splitlines() == [
        f"device: {name}",
        r"plugin: jax-metal 0.1.1 crashes\x1b[2J",
        "plugin: chip 1.0 works",
        f"auto chooses {name}: nothing else works",
    ]
    auto = devices(probe=True, console=console)["auto"]
    assert cleared
    assert auto == {"device": name, "reason": "chip 1.0 works", "from_parameters": 20_000}
    line = f"auto chooses {name} for models of at least 20,000 parameters: chip 1.0 works"
    assert shown(console).splitlines()[-1] == line
