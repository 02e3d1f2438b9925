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
    devices, auto = document["devices"], document["auto"]
    columns = ("platform", "device", "plugin", "version", "result")
    lines = [
        f"{row['plugin']} {row['version']}: {row['result']}: {row['reason']}" for row in devices if row["reason"]
    ]
    size = f" for models of at least {auto['from_parameters']:,} parameters" if auto["from_parameters"] else ""
    lines.append(f"auto chooses {auto['device']}{size}: {auto['reason']}")
    print_table(console, columns, *([row[column] for column in columns] for row in devices))
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
    for started in backend.backends():
        of_platform = {plugin: result for plugin, result in results.items() if result.platform == started}
        fastest = fastest_plugin(of_platform) or next(iter(of_platform), None)
        found += [(started, format_device(device), fastest) for device in jax.devices(started)]
    listed = {plugin for _, _, plugin in found}
    found += [(result.platform, None, plugin) for plugin, result in results.items() if plugin not in listed]
    rows = []
    for platform, device, plugin in found:
        name, version, probed = (plugin.name, plugin.version, results[plugin]) if plugin else (None, None, None)
        result = "built in" if probed is None else "works" if probed.works else "fails"
        row = {"platform": platform, "device": device, "plugin": name, "version": version, "result": result}
        rows.append(row | {"reason": probed and probed.reason})
    limits = {f"{plugin} {result.reason}": result.worthwhile_from for plugin, result in results.items()}
    auto = {"device": format_device(chosen), "reason": reason, "from_parameters": limits.get(reason)}
    return {"devices": rows, "auto": auto}
