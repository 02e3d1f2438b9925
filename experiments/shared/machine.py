"""The machine of an experiment: CPU cores, CPU model, and PyTorch if installed."""

import importlib
import os
import platform
from pathlib import Path
from typing import Any


def num_cores() -> int:
    """Return the number of CPU cores available to this process. In a container these can be fewer."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the model name of the CPU."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text("utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def import_torch() -> Any:
    """Import PyTorch and let it use every core. Raise ValueError if it cannot be imported."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        raise ValueError(f"torch cannot be imported ({error}): pip install '.[bench]'") from None
    torch.set_num_threads(num_cores())
    return torch
