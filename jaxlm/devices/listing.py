"""listing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_cache import probe_results
from jaxlm.devices.probe_runner import ProbeResult
from jaxlm.devices.selection import choose_device, fastest_plugin, format_device
from jaxlm.utils.timing import benchmark_interleaved

# What `describe_devices` asks of "auto".
_SIZES = {"small": 1_000, "large": 10_000_000}


def describe_devices() -> dict[str, list[dict[str, Any]]]:
    """What `jaxlm devices` shows: a row for each device that JAX offers here and for each plugin that offers none.

    Returns:
        "devices": platform, device, plugin and its version, verdict ("works", "fails", "built in"), reason,
        GFLOP/s of a float32 matrix product at JAX's default precision (TF32 on NVIDIA's GPUs), GB/s (read and
        written) of a copy, and the sizes of a model for which "auto" takes it. "auto": for each such size its
        number of weights, the platform and device, and the reason.
    """
    from jax.extend import backend  # 40 ms, for this alone

    choices = {size: choose_device("auto", num_weights=num_weights) for size, num_weights in _SIZES.items()}
    judged, rows, owners = probe_results(), list[dict[str, Any]](), set[Plugin]()
    for platform in backend.backends():
        owner: dict[str, Any] = {"plugin": None, "version": None, "verdict": "built in", "reason": None}
        of_platform = [(plugin, verdict) for plugin, verdict in judged.items() if verdict.platform == platform]
        if of_platform:
            plugin, verdict = fastest_plugin(judged, [platform]) or of_platform[0]
            owner = _row(plugin, verdict)
            owners.add(plugin)
        for device in jax.devices(platform):
            sizes = [size for size, choice in choices.items() if choice.device == device]
            rows.append(
                {"platform": platform, "device": format_device(device), **owner, **_rates(device), "auto": sizes}
            )
    for plugin, verdict in judged.items():
        if plugin not in owners:
            nothing: dict[str, Any] = {"device": None, "gflops": None, "gbytes": None, "auto": []}
            rows.append({"platform": verdict.platform, **_row(plugin, verdict), **nothing})
    auto = [
        {"num_weights": num_weights, "device": format_device(choices[size].device), "reason": choices[size].reason}
        for size, num_weights in _SIZES.items()
    ]
    return {"devices": rows, "auto": auto}


def _row(plugin: Plugin, verdict: ProbeResult) -> dict[str, Any]:
    is_working = "works" if verdict.works else "fails"
    return {"plugin": plugin.name, "version": plugin.version, "verdict": is_working, "reason": verdict.reason}


def _rates(device: jax.Device) -> dict[str, float | None]:
    """GFLOP/s of a float32 product, and GB/s of a large array negated in place, those read and those written."""
    width, num_floats = (1024, 2**24) if device.platform == "cpu" else (4096, 2**26)
    negate = jax.jit(jnp.negative, donate_argnums=0)
    try:
        square = jax.device_put(np.full((width, width), 1 / width, np.float32), device)  # its own square
        held = [jax.device_put(np.ones(num_floats, np.float32), device)]

        def copy() -> jax.Array:
            held.append(negate(held.pop()))
            return held[0]

        figures = benchmark_interleaved({"product": lambda: jnp.matmul(square, square), "copy": copy}, repeats=5)
    except RuntimeError:  # it has no memory left, say
        return {"gflops": None, "gbytes": None}
    return {
        "gflops": 2e-9 * width**3 / figures["product"].minimum,
        "gbytes": 2e-9 * 4 * num_floats / figures["copy"].minimum,
    }
