"""List devices and plugins for `jaxlm devices`."""

from typing import Any

import jax

from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_cache import probe_results
from jaxlm.devices.selection import choose_device, fastest_plugin, format_device


def describe_devices() -> dict[str, Any]:
    """Describe JAX's devices, and the plugins that provide none. Host function; not for use inside `jit`.

    Returns:
        "devices": a row per device or plugin: "platform", "device", "plugin", "version", "result" ("works",
            "fails" or "built in") and its "reason".
        "auto": the "device" that "auto" chooses, the "reason", and "from_parameters", the smallest size of a model
            for which it does. Smaller models run on the CPU.
    """
    from jax.extend import backend  # takes 40 ms

    chosen, reason = choose_device("auto")
    results, rows, listed = probe_results(), list[dict[str, Any]](), set[Plugin | None]()
    for platform in backend.backends():
        of_platform = {plugin: result for plugin, result in results.items() if result.platform == platform}
        plugin = fastest_plugin(of_platform) or next(iter(of_platform), None)
        listed.add(plugin)
        rows += [_make_row(platform, format_device(device), plugin) for device in jax.devices(platform)]
    rows += [
        _make_row(result.platform, None, plugin) for plugin, result in results.items() if plugin not in listed
    ]
    limits = {f"{plugin} {result.reason}": result.worthwhile_from for plugin, result in results.items()}
    auto = {"device": format_device(chosen), "reason": reason, "from_parameters": limits.get(reason)}
    return {"devices": rows, "auto": auto}


def _make_row(platform: str | None, device: str | None, plugin: Plugin | None) -> dict[str, Any]:
    probed = plugin and probe_results()[plugin]
    result = "built in" if probed is None else "works" if probed.works else "fails"
    row = {"platform": platform, "device": device, "plugin": plugin and plugin.name}
    return row | {"version": plugin and plugin.version, "result": result, "reason": probed and probed.reason}
