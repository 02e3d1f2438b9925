"""`jaxlm devices`."""

from cli_helpers import devices, pipe, shown


def test_devices_shows_failures_and_what_auto_chooses(monkeypatch):
    cpu = {"platform": "cpu", "device": "cpu:0 (cpu)", "plugin": None, "version": None, "result": "built in"}
    metal = {"platform": "METAL", "device": None, "plugin": "jax-metal", "version": "0.1.1", "result": "fails"}
    described = {
        "devices": [cpu | {"reason": None}, metal | {"reason": "crashes\x1b[2J"}],
        "auto": {"device": "cpu:0 (cpu)", "reason": "nothing else works", "from_parameters": None},
    }
    cleared = []
    monkeypatch.setattr("jaxlm.cli.devices.describe_devices", lambda: described)
    monkeypatch.setattr("jaxlm.devices.probe_cache.clear_probe_cache", lambda: cleared.append(True))
    console = pipe()
    assert devices(console=console) == described
    assert not cleared
    lines = [line.split() for line in shown(console).splitlines()]
    assert ["cpu", "cpu:0", "(cpu)", "-", "-", "built", "in"] in lines
    assert ["METAL", "-", "jax-metal", "0.1.1", "fails"] in lines
    assert shown(console).splitlines()[-2:] == [
        r"jax-metal 0.1.1: fails: crashes\x1b[2J",
        "auto chooses cpu:0 (cpu): nothing else works",
    ]
    described["auto"] |= {"device": "mps:0 (M1)", "from_parameters": 20_000}
    console = pipe()
    devices(probe=True, console=console)
    assert cleared
    line = "auto chooses mps:0 (M1) for models of at least 20,000 parameters: nothing else works"
    assert shown(console).splitlines()[-1] == line
