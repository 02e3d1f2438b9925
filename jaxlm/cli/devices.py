"""`jaxlm devices`."""

from dataclasses import dataclass
from typing import Any

from jaxlm.cli.shared import CommandOptions, Console
from jaxlm.utils.terminal import escape_controls, print_plain


@dataclass(frozen=True)
class DevicesOptions(CommandOptions):
    """List the devices that JAX offers here, the installed plugins, and what "auto" chooses."""

    probe: bool = False  # Probe every plugin again instead of using cached results.


def show_devices(options: DevicesOptions, console: Console) -> dict[str, Any]:
    """Print the devices and plugins, and the smallest model for which "auto" does not choose the CPU."""
    import jax
    from jax.extend import backend

    from jaxlm.devices.probes import clear_probe_cache, probe_results
    from jaxlm.devices.selection import choose_device, format_device

    if options.probe:
        clear_probe_cache()
    chosen, reason = choose_device("auto")
    devices = [format_device(device) for platform in backend.backends() for device in jax.devices(platform)]
    results = {str(plugin): result for plugin, result in probe_results().items()}
    limits = {f"{plugin} {result.reason}": result.worthwhile_from for plugin, result in results.items()}
    auto = {"device": format_device(chosen), "reason": reason, "from_parameters": limits.get(reason)}
    size = f" for models of at least {limits[reason]:,} parameters" if limits.get(reason) else ""
    lines = [f"device: {device}" for device in devices]
    lines += [f"plugin: {plugin} {result.reason}" for plugin, result in results.items()]
    lines += [f"auto chooses {auto['device']}{size}: {reason}"]
    print_plain(console, escape_controls("\n".join(lines)))
    plugins = [{"plugin": plugin, **result._asdict()} for plugin, result in results.items()]
    return {"devices": devices, "plugins": plugins, "auto": auto}
