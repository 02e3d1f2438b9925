"""Strict flags for every test, and the classic files where they are at hand."""

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

_DATA = Path(__file__).parents[2] / "shared" / "data"


def _classic(name: str) -> str:
    path = _DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not at hand (looked in {_DATA})")
    return path.read_text("utf-8")


@pytest.fixture(scope="session")
def classic_shakespeare() -> str:
    """The classic tiny Shakespeare file, 1,115,394 characters."""
    return _classic("tinyshakespeare.txt")


@pytest.fixture(scope="session")
def names() -> str:
    """makemore's 32,033 names, one a line."""
    return _classic("names.txt")
