"""Check the arguments of public functions."""

from typing import SupportsIndex


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise a TypeError unless `value` is an integer, and a ValueError if it is below `least`."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
