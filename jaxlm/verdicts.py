"""Whether JAX's accelerator plugins work: each is tried once and the verdict kept. Nothing here imports JAX."""

import contextlib
import functools
import json
import os
import platform
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jaxlm.files import cache_folder, read_json, write_atomically
from jaxlm.plugins import Plugin, installed_plugins, jax_version, known_fault
from jaxlm.trials import Verdict, probe_seconds, try_plugins, verdict_from_json

_VERSION = 1
# What a probe inherits, and what may turn its verdict.
_TURNS_VERDICTS = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "JAX_ENABLE_X64",
    "LIBTPU_INIT_ARGS",
    "ROCR_VISIBLE_DEVICES",
    "XLA_FLAGS",
)


@functools.cache
def judged_plugins() -> Mapping[Plugin, Verdict]:
    """The installed plugins with a verdict on each: known without trying, cached, or that of a probe.

    Those that are met for the first time are tried, each in a subprocess, all at the same time, for at most 25 s.
    The verdict is cached in the user's cache folder by plugin, its version, JAX's version, Python and platform.

    Raises:
        ValueError: `JAXLM_PROBE_SECONDS` is no number of seconds.
    """
    installed = installed_plugins()
    verdicts = _known_verdicts(installed)
    if len(verdicts) < len(installed):
        with _one_process_at_a_time():
            verdicts = _known_verdicts(installed)  # for another process may just have tried them
            if untried := [plugin for plugin in installed if plugin not in verdicts]:
                tried = try_plugins(untried)
                _cache(tried)
                verdicts |= tried
    return types.MappingProxyType(verdicts)


def forget_verdicts() -> None:
    """Lets the next look at the plugins try all of them again.

    Raises:
        OSError: what is cached cannot be removed.
    """
    _cache_path().unlink(missing_ok=True)
    installed_plugins.cache_clear()
    judged_plugins.cache_clear()


def _known_verdicts(plugins: Sequence[Plugin]) -> dict[Plugin, Verdict]:
    cached = _cached_verdicts() if plugins else {}
    faults = {plugin: known_fault(plugin) for plugin in plugins}
    return {
        plugin: Verdict(works=False, platform=None, reason=fault) if fault else cached[_key(plugin)]
        for plugin, fault in faults.items()
        if fault or _key(plugin) in cached
    }


@contextlib.contextmanager
def _one_process_at_a_time() -> Iterator[None]:
    """Probes of two processes would slow each other down, and some devices serve only one at a time."""
    import filelock  # 30 ms, for what is rare

    with contextlib.ExitStack() as stack:
        path = _cache_path().with_suffix(".lock")
        with contextlib.suppress(OSError):  # it cannot be written, or the other takes too long: tried all the same
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(path).acquire(timeout=probe_seconds() + 5))
        yield


def _cached_verdicts() -> dict[str, Verdict]:
    """What was judged before; nothing where that cannot be read, for then it is judged again."""
    try:
        document = read_json(_cache_path())
        if document["version"] != _VERSION:
            return {}
        return {key: verdict_from_json(each) for key, each in document["verdicts"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _cache(verdicts: Mapping[Plugin, Verdict]) -> None:
    every = _cached_verdicts() | {_key(plugin): verdict for plugin, verdict in verdicts.items()}
    document = {
        "version": _VERSION,
        "verdicts": {key: verdict._asdict() for key, verdict in every.items()},
    }
    with contextlib.suppress(OSError):  # a folder that cannot be written costs a probe each time
        write_atomically(_cache_path(), json.dumps(document, indent=2) + "\n")


def _cache_path() -> Path:
    return cache_folder() / "plugins.json"


def _key(plugin: Plugin) -> str:
    """All that a verdict on the plugin may depend on."""
    parts = [plugin.module, plugin.name, plugin.version, f"jax {jax_version()}", *_machine()]
    parts += [f"{name}={os.environ[name]}" for name in _TURNS_VERDICTS if name in os.environ]
    return "|".join(parts)


@functools.cache
def _machine() -> tuple[str, ...]:
    """Interpreter and system, and what accelerators can be seen: a home folder may be that of many machines."""
    seen = sorted(
        path.name
        for pattern in ("nvidia[0-9]*", "kfd", "accel[0-9]*", "dxg")
        for path in Path("/dev").glob(pattern)
    )
    driver = Path("/sys/module/nvidia/version")
    versions = [driver.read_text().strip()] if driver.exists() else []
    # Not platform.platform(): it reads the whole interpreter to tell the version of its C library, in 40 ms.
    system = (platform.system(), platform.release(), platform.machine())
    return (f"Python {platform.python_version()}", sys.prefix, *system, *seen, *versions)
