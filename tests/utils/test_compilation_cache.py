"""A second run loads the programs that the first one compiled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxlm.utils.compilation_cache import enable_compilation_cache

PROGRAM = """
import json, jax
from jaxlm.utils.compilation_cache import enable_compilation_cache
folder = enable_compilation_cache()
events = []
jax.monitoring.register_event_listener(lambda event, **kwargs: events.append(event.rsplit("/", 1)[-1]))
print(json.dumps([folder, float(jax.jit(lambda x: x * 3 + 1)(2.0)), events.count("cache_hits")]))
"""


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """Configure no cache, here and in subprocesses, and restore the configuration."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.slow
def test_enable_compilation_cache_serves_a_second_process(tmp_path):
    environment = os.environ | {"JAXLM_DATA_DIR": str(tmp_path)}

    def run():
        return json.loads(subprocess.check_output([sys.executable, "-c", PROGRAM], env=environment))

    folder, value, hits = run()
    assert Path(folder).parent == tmp_path / "compiled"
    assert (value, hits) == (7.0, 0)
    assert any(Path(folder).iterdir())
    again, value, hits = run()
    assert (again, value) == (folder, 7.0)
    assert hits > 0


def test_enable_compilation_cache_keeps_a_configured_one(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "data"))
    jax.config.update("jax_compilation_cache_dir", "gs://bucket/programs")
    assert enable_compilation_cache() == "gs://bucket/programs"
    assert not (tmp_path / "data").exists()


def test_enable_compilation_cache_not_writable(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLM_DATA_DIR", "/dev/null")
    assert enable_compilation_cache() is None
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_enable_compilation_cache_has_one_per_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path))
    folders = set()
    for cpu in ("model name: one\nflags: sse avx\n", "model name: one\nflags: sse\n", "model name: two\n"):
        monkeypatch.setattr(Path, "read_text", lambda *_, cpu=cpu: cpu)
        jax.config.update("jax_compilation_cache_dir", None)
        folders.add(enable_compilation_cache())
        assert jax.config.jax_compilation_cache_dir in folders
    assert len(folders) == 3
