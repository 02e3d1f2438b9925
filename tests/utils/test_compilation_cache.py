"""A second run of a program loads what the first one compiled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxlm.utils.compilation_cache import _processor, enable_compilation_cache

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, jax
from jaxlm.compilation import keep_compiled_programs
folder = keep_compiled_programs()
events = []
jax.monitoring.register_event_listener(lambda event, **kwargs: events.append(event.rsplit("/", 1)[-1]))
print(json.dumps([folder, float(jax.jit(lambda x: x * 3 + 1)(2.0)), events.count("cache_hits")]))
"""


def run(**environment):
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=inherited | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_second_run_loads_what_the_first_compiled(tmp_path):
    folder, value, hits = run(JAXLM_DATA_DIR=str(tmp_path))
    assert folder == str(tmp_path / "compiled" / _processor())
    assert (value, hits) == (7.0, 0)
    assert any(Path(folder).iterdir())
    _, value, hits = run(JAXLM_DATA_DIR=str(tmp_path))
    assert value == 7.0
    assert hits > 0


@pytest.mark.parametrize("chosen", ["chosen", "gs://bucket/programs"])
def test_a_folder_that_was_chosen_already_stays_in_force(tmp_path, monkeypatch, chosen):
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "data"))
    settings = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: settings.append(setting))
    monkeypatch.setattr(type(jax.config), "jax_compilation_cache_dir", chosen, raising=False)
    assert enable_compilation_cache() == chosen
    assert not settings
    assert not (tmp_path / "data").exists()


def test_without_a_folder_to_write_to_every_run_compiles(tmp_path):
    (tmp_path / "file").write_text("")
    folder, value, hits = run(JAXLM_DATA_DIR=str(tmp_path / "file" / "data"))
    assert (folder, value, hits) == (None, 7.0, 0)


def test_another_processor_has_another_folder(monkeypatch):
    here = _processor()
    monkeypatch.setattr("platform.processor", lambda: "abacus")
    assert _processor() != here
    monkeypatch.setattr("platform.machine", lambda: "m68k")
    assert _processor().startswith("m68k-")


def test_a_processor_that_can_do_less_has_another_folder(monkeypatch):
    names = set()
    for flags in ("sse avx", "sse"):
        monkeypatch.setattr(Path, "read_text", lambda *_, flags=flags: f"model name: one\nflags: {flags}\n")
        names.add(_processor())
    assert len(names) == 2
