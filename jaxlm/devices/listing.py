"""List devices and plugins for `jaxlm devices`."""

from typing import Any

import jax

from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_cache import probe_results
from jaxlm.devices.selection import choose_device, fastest_plugin, format_device

# Model sizes, in weights, for which to list the choice of "auto".
_SIZES = {"small": 1_000, "large": 10_000_000}


def describe_devices() -> dict[str, list[dict[str, Any]]]:
    """Describe JAX's devices, and the plugins that provide none. Host function; not for use inside `jit`.

    Returns:
        "devices": a row per device or plugin: "platform", "device", "plugin", "version", "result" ("works",
            "fails" or "built in"), its "reason", and "auto", the model sizes ("small", "large") for which "auto"
            chooses the device.
        "auto": a row per model size: "num_weights", and the chosen "device" with the "reason".
    """
    from jax.extend import backend  # takes 40 ms

    choices = {size: choose_device("auto", num_weights=num_weights) for size, num_weights in _SIZES.items()}
    results, rows, listed = probe_results(), list[dict[str, Any]](), set[Plugin | None]()
    for platform in backend.backends():
        of_platform = {plugin: result for plugin, result in results.items() if result.platform == platform}
        owner = fastest_plugin(of_platform) or next(iter(of_platform), None)
        listed.add(owner)
        for device in jax.devices(platform):
            sizes = [size for size, choice in choices.items() if choice.device == device]
            rows.append(_describe(platform, format_device(device), owner, sizes))
    rows += [_describe(result.platform, None, p, []) for p, result in results.items() if p not in listed]
    auto = [
        {"num_weights": num_weights, "device": format_device(choices[size].device), "reason": choices[size].reason}
        for size, num_weights in _SIZES.items()
    ]
    return {"devices": rows, "auto": auto}


def _describe(platform: str | None, device: str | None, plugin: Plugin | None, sizes: list[str]) -> dict[str, Any]:
    probed = plugin and probe_results()[plugin]
    result = "built in" if probed is None else "works" if probed.works else "fails"
    row = {"platform": platform, "device": device, "plugin": plugin and plugin.name}
    row |= {"version": plugin and plugin.version, "result": result, "reason": probed and probed.reason}
    return row | {"auto": sizes}
