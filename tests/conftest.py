"""Strict flags for every test, and what several files share: classic texts, a network, variables."""

import contextlib
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Each is one worker's, and takes it minutes: begun first, so that none is left alone at the end.
_LONGEST = ("test_broken_plugins.py", "test_torture.py", "test_sweeps.py", "test_extras.py", "test_ladder.py")

_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


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


@pytest.fixture(scope="session")
def fetching():
    """A block that may fetch a corpus: skipped where none can be had, a failure in CI, which has a network."""

    @contextlib.contextmanager
    def block():
        try:
            yield
        except OSError as error:
            if "cannot fetch" not in str(error) or os.environ.get("CI"):
                raise
            pytest.skip(str(error))

    return block


@pytest.fixture(scope="session")
def tinyshakespeare(fetching) -> str:
    """The corpus of that name, from the cache or fetched."""
    with fetching():
        return jaxlm.load_corpus("tinyshakespeare").text


@pytest.fixture(scope="module")
def variables(model):
    """Every array of the file's `model` drawn from a normal distribution: biases too, which start at zero."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), shapes)
