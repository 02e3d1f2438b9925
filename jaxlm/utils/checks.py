"""checks."""


def check_at_least(name: str, value: int, least: int) -> None:
    """Raises a TypeError unless `value` is an integer, and a ValueError where it is below `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
