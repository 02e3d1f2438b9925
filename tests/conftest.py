"""Strict JAX flags and checked array types for every test, and fixtures that several folders share."""

import contextlib
import os
from collections import Counter
from pathlib import Path

# Before JAX is imported, and for subprocesses too: compiling without optimization takes a third less time.
# `XLA_FLAGS= scripts/test` compiles with optimization.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import install_import_hook

import jaxlm
from jaxlm.utils.compilation_cache import enable_compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

# Check the array types of the core. The modules must not have been imported before.
_CORE = ["text.batching", "models", "evaluation", "training", "sampling", "utils.keys"]
install_import_hook([f"jaxlm.{name}" for name in _CORE], "array_types.check_arrays")

_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure():
    """Share compiled programs between test files, workers, subprocesses and runs."""
    programs = enable_compilation_cache()
    if programs is not None:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def pytest_collection_modifyitems(items):
    """Run the files with the most slow tests first, so that all workers end at about the same time."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="module", autouse=True)
def _free_compiled_programs():
    """Free the programs of a test file when it ends. Without this, they grow to 3.9 GiB per worker."""
    yield
    jax.clear_caches()


def _read_shared(name: str) -> str:
    path = _DATA / name
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path.read_text("utf-8")


@pytest.fixture(scope="session")
def classic_shakespeare() -> str:
    """Return the classic tiny Shakespeare file, 1,115,394 characters."""
    return _read_shared("tinyshakespeare.txt")


@pytest.fixture(scope="session")
def names() -> str:
    """Return makemore's 32,033 names, one per line."""
    return _read_shared("names.txt")


@pytest.fixture(scope="session")
def fetching():
    """Return a context manager that skips the test if a corpus cannot be fetched. In CI that is a failure."""

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
    """Return the corpus `tinyshakespeare`, from the cache or fetched."""
    with fetching():
        return jaxlm.load_corpus("tinyshakespeare").text


@pytest.fixture(scope="module")
def variables(model):
    """Draw every array of the module's `model` from a normal distribution, biases included."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: jaxlm.init(model, jax.random.key(0)))
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), shapes)
