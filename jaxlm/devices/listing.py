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
    results, found = probe_results(), list[tuple[str | None, str | None, Plugin | None]]()
    for name in backend.backends():
        of_platform = {plugin: result for plugin, result in results.items() if result.platform == name}
        fastest = fastest_plugin(of_platform) or next(iter(of_platform), None)
        found += [(name, format_device(device), fastest) for device in jax.devices(name)]
    listed = {plugin for _, _, plugin in found}
    found += [(result.platform, None, plugin) for plugin, result in results.items() if plugin not in listed]
    rows = []
    for platform, device, plugin in found:
        probed = plugin and results[plugin]
        row = {"platform": platform, "device": device, "plugin": plugin and plugin.name}
        row |= {"version": plugin and plugin.version, "reason": probed and probed.reason}
        rows.append(row | {"result": "built in" if probed is None else "works" if probed.works else "fails"})
    limits = {f"{plugin} {result.reason}": result.worthwhile_from for plugin, result in results.items()}
    auto = {"device": format_device(chosen), "reason": reason, "from_parameters": limits.get(reason)}
    return {"devices": rows, "auto": auto}
