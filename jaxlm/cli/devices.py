"""`jaxlm devices`."""

from dataclasses import dataclass
from typing import Any

from jaxlm.cli.shared import CommandOptions, Console
from jaxlm.utils.terminal import escape_controls, print_plain, print_table


@dataclass(frozen=True)
class DevicesOptions(CommandOptions):
    """List the devices that JAX offers here, and which of them "auto" chooses."""

    probe: bool = False  # Probe every plugin again instead of using cached results.


def show_devices(options: DevicesOptions, console: Console) -> dict[str, Any]:
    """Print and return the result of `describe_devices`."""
    from jaxlm.devices.listing import describe_devices
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
