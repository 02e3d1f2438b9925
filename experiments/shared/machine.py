"""What this machine offers to an experiment: its cores, and PyTorch where that is installed."""

import importlib
import os
from typing import Any


def num_cores() -> int:
    """The cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_torch() -> tuple[Any, str]:
    """PyTorch, with a thread for each core, and an empty text; or None, and why it cannot be had."""
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name == "torch":
            return None, "torch is not installed: pip install '.[bench]'"
        return None, _broken(error)
    except (ImportError, OSError) as error:
        return None, _broken(error)
    torch.set_num_threads(num_cores())
    return torch, ""


def _broken(error: Exception) -> str:
    return f"torch cannot be imported: {str(error).strip().partition(chr(10))[0]}"
