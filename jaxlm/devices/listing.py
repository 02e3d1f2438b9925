"""List devices and plugins for `jaxlm devices`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_cache import probe_results
from jaxlm.devices.selection import choose_device, fastest_plugin, format_device
from jaxlm.utils.timing import benchmark_interleaved

# Model sizes, in weights, for which to list the choice of "auto".
_SIZES = {"small": 1_000, "large": 10_000_000}


def describe_devices() -> dict[str, list[dict[str, Any]]]:
    """Describe JAX's devices, and the plugins that provide none. Host function; not for use inside `jit`.

    Returns:
        "devices": a row per device or plugin: "platform", "device", "plugin", "version", "result" ("works",
            "fails" or "built in"), its "reason", "gflops" and "gbytes" of `measure_throughput`, and "auto", the
            model sizes ("small", "large") for which "auto" chooses the device.
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
            row = {"platform": platform, "device": format_device(device), **_describe_plugin(owner)}
            rows.append({**row, **measure_throughput(device), "auto": sizes})
    for plugin, result in results.items():
        if plugin not in listed:
            row = {"platform": result.platform, "device": None, **_describe_plugin(plugin)}
            rows.append({**row, "gflops": None, "gbytes": None, "auto": []})
    auto = [
        {"num_weights": num_weights, "device": format_device(choices[size].device), "reason": choices[size].reason}
        for size, num_weights in _SIZES.items()
    ]
    return {"devices": rows, "auto": auto}


def _describe_plugin(plugin: Plugin | None) -> dict[str, Any]:
    if plugin is None:
        return {"plugin": None, "version": None, "result": "built in", "reason": None}
    probed = probe_results()[plugin]
    result = "works" if probed.works else "fails"
    return {"plugin": plugin.name, "version": plugin.version, "result": result, "reason": probed.reason}


def measure_throughput(device: jax.Device) -> dict[str, float | None]:
    """Measure the throughput of a device; None if it raises a RuntimeError, for example for lack of memory.

    Returns:
        "gflops": GFLOP/s of a float32 matrix product at JAX's default precision (TF32 on NVIDIA GPUs).
        "gbytes": GB/s, read and written, of negating an array in place.
    """
    width, num_floats = (1024, 2**24) if device.platform == "cpu" else (4096, 2**26)
    negate = jax.jit(jnp.negative, donate_argnums=0)
    try:
        matrix = jax.device_put(np.full((width, width), 1 / width, np.float32), device)
        array = [jax.device_put(np.ones(num_floats, np.float32), device)]

        def copy() -> jax.Array:
            array[0] = negate(array[0])
            return array[0]

        timings = benchmark_interleaved({"product": lambda: jnp.matmul(matrix, matrix), "copy": copy}, repeats=5)
    except RuntimeError:
        return {"gflops": None, "gbytes": None}
    return {
        "gflops": 2e-9 * width**3 / timings["product"].minimum,
        "gbytes": 2e-9 * 4 * num_floats / timings["copy"].minimum,
    }
