"""Which device a computation runs on."""

import jax
import numpy as np

# What a user types -> the platform names that JAX may know it by.
_PLATFORMS = {
    "cpu": ("cpu",),
    "gpu": ("gpu",),
    "cuda": ("cuda",),
    "rocm": ("rocm",),
    "tpu": ("tpu",),
    "metal": ("METAL", "metal", "mps", "mtl"),
}


def resolve_device(device: str | jax.Device = "auto") -> jax.Device:
    """The JAX device that `device` names.

    `"auto"` is the device on which JAX itself would put a fresh array: `jax.default_device` where that is set,
    otherwise the first of the default platform (which `JAX_PLATFORMS` chooses). A platform's name gives its
    first device; a `jax.Device` is returned as it is.

    Raises:
        ValueError: the name is unknown, this machine has no such device, or JAX cannot start it.

    >>> resolve_device("cpu").platform
    'cpu'
    """
    if isinstance(device, jax.Device):
        return device
    if device == "auto":
        try:
            (default,) = jax.device_put(np.float32(0)).devices()  # asks JAX itself, thread-local settings included
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"JAX cannot start a device: {reason}; try JAX_PLATFORMS=cpu") from None
        return default
    if device not in _PLATFORMS:
        known = ", ".join(["auto", *_PLATFORMS])
        raise ValueError(f"unknown device {device!r}; choose one of {known}, or pass a jax.Device")
    for platform in _PLATFORMS[device]:
        try:
            return jax.devices(platform)[0]
        except RuntimeError:
            continue
    present = resolve_device("auto").platform
    raise ValueError(f"no {device!r} device here: JAX offers {present}; use device='auto' or 'cpu'")
