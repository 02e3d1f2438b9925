"""Which device a computation runs on, and why."""

import contextlib
import math
import os
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.plugins import Plugin, installed_plugins, keep_out
from jaxlm.timing import time_interleaved
from jaxlm.trials import Verdict, one_line
from jaxlm.verdicts import judged_plugins

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

# What `describe_devices` asks of "auto".
_SIZES = {"small": 1_000, "large": 10_000_000}


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


def described(device: jax.Device) -> str:
    """A device in words: its platform, its number there and its kind."""
    return f"{device.platform}:{device.id} ({device.device_kind})"


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
    judged, rows, owners = judged_plugins(), list[dict[str, Any]](), set[Plugin]()
    for platform in backend.backends():
        owner: dict[str, Any] = {"plugin": None, "version": None, "verdict": "built in", "reason": None}
        of_platform = [(plugin, verdict) for plugin, verdict in judged.items() if verdict.platform == platform]
        if of_platform:
            plugin, verdict = _fastest_of(judged, [platform]) or of_platform[0]
            owner = _row(plugin, verdict)
            owners.add(plugin)
        for device in jax.devices(platform):
            sizes = [size for size, choice in choices.items() if choice.device == device]
            rows.append(
                {"platform": platform, "device": described(device), **owner, **_rates(device), "auto": sizes}
            )
    for plugin, verdict in judged.items():
        if plugin not in owners:
            nothing: dict[str, Any] = {"device": None, "gflops": None, "gbytes": None, "auto": []}
            rows.append({"platform": verdict.platform, **_row(plugin, verdict), **nothing})
    auto = [
        {"num_weights": num_weights, "device": described(choices[size].device), "reason": choices[size].reason}
        for size, num_weights in _SIZES.items()
    ]
    return {"devices": rows, "auto": auto}


def _named(name: str) -> jax.Device:
    if name not in _PLATFORMS:
        known = ", ".join(["auto", *_PLATFORMS])
        raise ValueError(f"unknown device {name!r}; choose one of {known}, or pass a jax.Device")
    platforms, fastest = list(_PLATFORMS[name]), None
    if name in ("cpu", "metal"):
        fastest = _let_in_fastest(None if name == "cpu" else platforms)
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
    fastest, reasons = _let_in_fastest(), _faults()
    if fastest:
        plugin, verdict = fastest
        if verdict.pays_from is None:
            reasons.append(f"{plugin} {verdict.reason}")
        elif num_weights is not None and num_weights < verdict.pays_from:
            reasons.append(f"{plugin} pays from {verdict.pays_from:,} weights, the model has {num_weights:,}")
        else:
            try:
                return Choice(_first_device(str(verdict.platform)), f"{plugin} {verdict.reason}")
            except RuntimeError as error:
                reasons.append(_does_not_start(plugin, error))
    if reasons:
        return Choice(_first_device("cpu"), "; ".join(reasons))
    return Choice(_default(), "no accelerator's plugin is installed")


def _let_in_fastest(platforms: Collection[str] | None = None) -> tuple[Plugin, Verdict] | None:
    """The fastest plugin that works, of these platforms or of all; the others are kept out."""
    if jax.config.jax_platforms == "cpu":  # type: ignore[attr-defined]
        _keep_out_all()
        return None
    judged = judged_plugins()
    fastest = _fastest_of(judged, platforms)
    let_in = fastest or _fastest_of(judged)  # where a platform is not here, another's plugin may be wanted next
    keep_out(plugin for plugin in judged if let_in is None or plugin != let_in[0])
    return fastest


def _fastest_of(
    judged: Mapping[Plugin, Verdict], platforms: Collection[str] | None = None
) -> tuple[Plugin, Verdict] | None:
    working = [
        (plugin, verdict)
        for plugin, verdict in judged.items()
        if verdict.works and (platforms is None or verdict.platform in platforms)
    ]
    return min(working, key=lambda item: math.inf if item[1].seconds is None else item[1].seconds, default=None)


def _keep_out_all() -> None:
    keep_out(installed_plugins())  # where no plugin is wanted JAX would import every one


def _faults() -> list[str]:
    return [f"{plugin} {verdict.reason}" for plugin, verdict in judged_plugins().items() if not verdict.works]


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


def _row(plugin: Plugin, verdict: Verdict) -> dict[str, Any]:
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

        figures = time_interleaved({"product": lambda: jnp.matmul(square, square), "copy": copy}, repeats=5)
    except RuntimeError:  # it has no memory left, say
        return {"gflops": None, "gbytes": None}
    return {
        "gflops": 2e-9 * width**3 / figures["product"].minimum,
        "gbytes": 2e-9 * 4 * num_floats / figures["copy"].minimum,
    }
