"""`jaxlm devices`."""

from dataclasses import dataclass
from typing import Any

from jaxlm.cli.shared import CommandOptions, Console
from jaxlm.devices.plugins import Plugin
from jaxlm.utils.terminal import escape_controls, print_plain, print_table


@dataclass(frozen=True)
class DevicesOptions(CommandOptions):
    """List the devices that JAX offers here, and which of them "auto" chooses."""

    probe: bool = False  # Probe every plugin again instead of using cached results.


def show_devices(options: DevicesOptions, console: Console) -> dict[str, Any]:
    """Print and return the result of `describe_devices`."""
    from jaxlm.devices.probe_cache import clear_probe_cache

    if options.probe:
        clear_probe_cache()
    document = describe_devices()
    rows, lines = [("platform", "device", "plugin", "result")], []
    for row in document["devices"]:
        plugin = row["plugin"] and f"{row['plugin']} {row['version']}"
        rows.append((row["platform"], row["device"], plugin, row["result"]))
        if row["reason"]:
            lines.append(f"{plugin}: {row['result']}: {row['reason']}")
    auto = document["auto"]
    size = f" for models of at least {auto['from_parameters']:,} parameters" if auto["from_parameters"] else ""
    lines.append(f"auto chooses {auto['device']}{size}: {auto['reason']}")
    print_table(console, *rows)
    print_plain(console, escape_controls("\n".join(lines)))
    return document


def describe_devices() -> dict[str, Any]:
    """Describe JAX's devices, and the plugins that provide none.

    Returns:
        "devices": a row per device or plugin: "platform", "device", "plugin", "version", "result" ("works",
            "fails" or "built in") and its "reason".
        "auto": the "device" that "auto" chooses, the "reason", and "from_parameters", the smallest size of a model
            for which it does. Smaller models run on the CPU.
    """
    import jax
    from jax.extend import backend

    from jaxlm.devices.probe_cache import probe_results
    from jaxlm.devices.selection import choose_device, fastest_plugin, format_device

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
