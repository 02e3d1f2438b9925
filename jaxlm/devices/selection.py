"""Which device a computation runs on, and why."""

import contextlib
import math
import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxlm.devices.plugins import Plugin, disable_plugins, installed_plugins
from jaxlm.devices.probe_cache import probe_results
from jaxlm.devices.probe_runner import ProbeResult, one_line

# What a user types -> the platform names that JAX may know it by. Apple's are of jax-metal, metaljax, jax-mps and
# jax-graft: "metal" is whichever of them is here and works.
_PLATFORMS = {
    "cpu": ("cpu",),
    "gpu": ("gpu",),
    "cuda": ("cuda",),
    "rocm": ("rocm",),
    "tpu": ("tpu",),
    "metal": ("METAL", "metal", "mps", "mtl"),
}


class Choice(NamedTuple):
    """A device, and why it is that one."""

    device: jax.Device
    reason: str


def resolve_device(device: str | jax.Device = "auto", *, num_weights: int | None = None) -> jax.Device:
    """The JAX device that `device` names: that of `choose_device`.

    >>> resolve_device("cpu").platform
    'cpu'
    """
    return choose_device(device, num_weights=num_weights).device


def choose_device(device: str | jax.Device = "auto", *, num_weights: int | None = None) -> Choice:
    """The JAX device that `device` names, and why.

    A `jax.Device` is returned as it is, and a platform's name gives its first device. `"auto"` is, in this order:
    the device that `JAXLM_DEVICE` names; where JAX itself would put a fresh array, if `JAX_PLATFORMS` or
    `jax.default_device` chose that; of the accelerators whose plugin passed its probe the fastest, if the model
    has the weights from which that one pays; the CPU, where there are others, and else what JAX takes.

    The first time that a plugin is met it is tried in a subprocess, for at most 25 s (`JAXLM_PROBE_SECONDS`). All
    but the fastest that works are kept out of this process, for JAX starts its plugins once and together, and one
    that fails there breaks the others. That is so for `"cpu"` too, which JAX starts with them; where
    `JAX_PLATFORMS` is cpu, it starts none, and none is tried.

    Args:
        num_weights: the size of the model, where it is known.

    Raises:
        ValueError: the name is unknown, this machine has no such device, or JAX cannot start it.
    """
    if isinstance(device, jax.Device):
        return Choice(device, "it was given")
    if device != "auto":
        return Choice(_named(device), "it was asked for")
    if (chosen := os.environ.get("JAXLM_DEVICE") or "auto") != "auto":
        return Choice(_named(chosen), f"JAXLM_DEVICE={chosen}")
    platforms: str | None = jax.config.jax_platforms  # type: ignore[attr-defined]
    settings = {"JAX_PLATFORMS": platforms, "JAX_PLATFORM_NAME": os.environ.get("JAX_PLATFORM_NAME")}
    for name, value in settings.items():
        if value:
            if value == "cpu":
                _keep_out_all()
            return Choice(_default(), f"{name}={value}")
    if jax.config.jax_default_device is not None:  # type: ignore[attr-defined]
        return Choice(_default(), "it is jax.default_device")
    return _fastest(num_weights)


def format_device(device: jax.Device) -> str:
    """A device in words: its platform, its number there and its kind."""
    return f"{device.platform}:{device.id} ({device.device_kind})"


def _named(name: str) -> jax.Device:
    if name not in _PLATFORMS:
        known = ", ".join(["auto", *_PLATFORMS])
        raise ValueError(f"unknown device {name!r}; choose one of {known}, or pass a jax.Device")
    platforms, fastest = list(_PLATFORMS[name]), None
    if name in ("cpu", "metal"):
        fastest = _enable_fastest_plugin(None if name == "cpu" else platforms)
        platforms.sort(key=lambda platform: fastest is None or platform != fastest[1].platform)
    why = f"plugins installed: {', '.join(map(str, installed_plugins())) or 'none'}"
    if name == "metal":
        why = "; ".join(_faults()) or "no plugin for it is installed"
    for platform in platforms:
        try:
            return _first_device(platform)
        except RuntimeError as error:
            if fastest and platform == fastest[1].platform:
                why = _does_not_start(fastest[0], error)
    raise ValueError(f"no {name!r} device here: JAX offers {_default().platform} ({why}); use 'auto' or 'cpu'")


def _fastest(num_weights: int | None) -> Choice:
    fastest, reasons = _enable_fastest_plugin(), _faults()
    if fastest:
        plugin, verdict = fastest
        if verdict.worthwhile_from is None:
            reasons.append(f"{plugin} {verdict.reason}")
        elif num_weights is not None and num_weights < verdict.worthwhile_from:
            reasons.append(
                f"{plugin} pays from {verdict.worthwhile_from:,} weights, the model has {num_weights:,}"
            )
        else:
            try:
                return Choice(_first_device(str(verdict.platform)), f"{plugin} {verdict.reason}")
            except RuntimeError as error:
                reasons.append(_does_not_start(plugin, error))
    if reasons:
        return Choice(_first_device("cpu"), "; ".join(reasons))
    return Choice(_default(), "no accelerator's plugin is installed")


def _enable_fastest_plugin(platforms: Collection[str] | None = None) -> tuple[Plugin, ProbeResult] | None:
    """The fastest plugin that works, of these platforms or of all; the others are kept out."""
    if jax.config.jax_platforms == "cpu":  # type: ignore[attr-defined]
        _keep_out_all()
        return None
    judged = probe_results()
    fastest = fastest_plugin(judged, platforms)
    let_in = fastest or fastest_plugin(judged)  # where a platform is not here, another's plugin may be wanted next
    disable_plugins(plugin for plugin in judged if let_in is None or plugin != let_in[0])
    return fastest


def fastest_plugin(
    judged: Mapping[Plugin, ProbeResult], platforms: Collection[str] | None = None
) -> tuple[Plugin, ProbeResult] | None:
    working = [
        (plugin, verdict)
        for plugin, verdict in judged.items()
        if verdict.works and (platforms is None or verdict.platform in platforms)
    ]
    return min(working, key=lambda item: math.inf if item[1].seconds is None else item[1].seconds, default=None)


def _keep_out_all() -> None:
    disable_plugins(installed_plugins())  # where no plugin is wanted JAX would import every one


def _faults() -> list[str]:
    return [f"{plugin} {verdict.reason}" for plugin, verdict in probe_results().items() if not verdict.works]


def _does_not_start(plugin: Plugin, error: Exception) -> str:
    return f"{plugin} passed its probe, and does not start here: {one_line(str(error))}"


def _first_device(platform: str) -> jax.Device:
    """The first of a platform. A plugin that does not start spoils JAX's first call, for whatever platform."""
    try:
        return jax.devices(platform)[0]
    except RuntimeError:
        with contextlib.suppress(RuntimeError):
            return jax.devices(platform)[0]
        raise


def _default() -> jax.Device:
    """Where JAX itself would put a fresh array, thread-local settings included."""
    try:
        (default,) = jax.device_put(np.float32(0)).devices()
    except RuntimeError as error:
        raise ValueError(f"JAX cannot start a device: {one_line(str(error))}; try JAX_PLATFORMS=cpu") from None
    return default
