"""Choose the device for a computation, and say why."""

import contextlib
import math
import os
from collections.abc import Collection

import jax
import numpy as np

from jaxlm.devices.plugins import disable_plugins, installed_plugins
from jaxlm.devices.probes import probe_results, to_one_line

# Device name -> JAX's names for the platform. Apple GPUs: jax-metal, metaljax, jax-mps and jax-graft.
_PLATFORMS = {name: [name] for name in ("cpu", "gpu", "cuda", "rocm", "tpu")}
_PLATFORMS["metal"] = ["METAL", "metal", "mps", "mtl"]


def resolve_device(device: str | jax.Device = "auto", *, num_weights: int | None = None) -> jax.Device:
    """Return a JAX device. Host function; not for use inside `jit`.

    "auto", "cpu" and "metal" probe the installed plugins and disable all but the fastest that works. README.md in
    this folder gives the rules of "auto".

    Args:
        device: "auto"; a `jax.Device`; or "cpu", "gpu", "cuda", "rocm", "tpu" or "metal", which mean the first
            device of that kind.
        num_weights: number of parameters of the model, if known.

    Raises:
        ValueError: the name is unknown, or no such device is available.

    >>> resolve_device("cpu").platform
    'cpu'
    """
    return choose_device(device, num_weights=num_weights)[0]


def choose_device(device: str | jax.Device = "auto", *, num_weights: int | None = None) -> tuple[jax.Device, str]:
    """Return the device of `resolve_device`, which has the same arguments, and the reason for choosing it."""
    if isinstance(device, jax.Device):
        return device, "passed as a jax.Device"
    name = os.environ.get("JAXLM_DEVICE") or "auto" if device == "auto" else device
    if name != "auto":
        return _find_device(name), "requested" if name == device else f"JAXLM_DEVICE={name}"
    settings = {
        "JAX_PLATFORMS": jax.config.jax_platforms,  # type: ignore[attr-defined]
        "JAX_PLATFORM_NAME": os.environ.get("JAX_PLATFORM_NAME"),
        "jax.default_device": jax.config.jax_default_device,  # type: ignore[attr-defined]
    }
    for name, value in settings.items():
        if value:
            if value == "cpu":
                disable_plugins(installed_plugins())  # JAX would import them all
            return _default_device(), f"{name}={value}"
    fastest, reason = _select_plugin(num_weights=num_weights)
    if fastest is None and not reason:
        return _default_device(), "no accelerator plugin is installed"
    return fastest or _find_device("cpu"), reason


def format_device(device: jax.Device) -> str:
    """Return a device's platform, number and kind, such as "cpu:0 (cpu)"."""
    return f"{device.platform}:{device.id} ({device.device_kind})"


def _find_device(name: str) -> jax.Device:
    if name not in _PLATFORMS:
        names = ", ".join(["auto", *_PLATFORMS])
        raise ValueError(f"unknown device {name!r}; choose one of {names}, or pass a jax.Device")
    reason = ""
    if name in ("cpu", "metal"):
        device, reason = _select_plugin(_PLATFORMS[name])
        if device:
            return device
    for platform in _PLATFORMS[name] * 2:  # twice: the first call fails if any plugin does not start
        with contextlib.suppress(RuntimeError):
            return jax.local_devices(backend=platform)[0]  # of this process, if there are several
    reason = reason or f"plugins installed: {', '.join(map(str, installed_plugins())) or 'none'}"
    default = _default_device().platform
    raise ValueError(f"no {name!r} device here: JAX offers {default} ({reason}); use 'auto' or 'cpu'")


def _select_plugin(
    platforms: Collection[str] | None = None, num_weights: int | None = None
) -> tuple[jax.Device | None, str]:
    """Disable all plugins but the fastest that works for `platforms` (default: all).

    Return its first device and the reason, or None and why there is none. If no plugin works for the platforms,
    the fastest of all stays enabled, because it may be requested next.
    """
    is_cpu_only = jax.config.jax_platforms == "cpu"  # type: ignore[attr-defined]
    results = {} if is_cpu_only else probe_results()
    working = [plugin for plugin, result in results.items() if result.works]
    wanted = [plugin for plugin in working if platforms is None or results[plugin].platform in platforms]
    fastest = min(wanted or working, key=lambda plugin: results[plugin].seconds or math.inf, default=None)
    disable_plugins(plugin for plugin in installed_plugins() if plugin != fastest)
    reasons = [f"{failed} {result.reason}" for failed, result in results.items() if not result.works]
    if fastest in wanted:
        result = results[fastest]
        limit = result.worthwhile_from or 0
        if num_weights is None or num_weights >= limit:
            try:
                return jax.local_devices(backend=result.platform)[0], f"{fastest} {result.reason}"
            except RuntimeError as error:
                reasons.append(f"{fastest} passed its probe but does not start here: {to_one_line(str(error))}")
        else:
            reasons.append(f"{fastest} is faster only from {limit:,} parameters; the model has {num_weights:,}")
    return None, "; ".join(reasons)


def _default_device() -> jax.Device:
    """Return the device on which JAX places new arrays. Thread-local settings can change it."""
    try:
        (default,) = jax.device_put(np.float32(0)).devices()
    except RuntimeError as error:
        raise ValueError(f"JAX cannot start a device: {to_one_line(str(error))}; try JAX_PLATFORMS=cpu") from None
    return default
