"""The cache directory is the user's, the chosen one, or a temporary one with one warning."""

import os
import pwd
import tempfile
from pathlib import Path

import platformdirs
import pytest

from jaxlm.utils import cache_directory as module
from jaxlm.utils.cache_directory import cache_directory


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    """Use no variables of the user's, and a directory for temporary files that is new."""
    for name in ("JAXLM_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_cache_directory_is_the_users_unless_set(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: f"{tmp_path}/cache/{name}")
    assert cache_directory() == tmp_path / "cache" / "jaxlm"
    monkeypatch.setenv("JAXLM_DATA_DIR", "~/corpora")
    assert cache_directory() == Path("~/corpora").expanduser()
    assert not caplog.records


@pytest.mark.parametrize("problem", ["no home", "no user", "a file", "read-only"])
def test_cache_directory_falls_back_to_a_temporary_one(problem, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HOME", "/dev/null" if problem == "a file" else str(tmp_path / "home"))
    if problem == "no user":  # the user of the process is not in the passwd file
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    if problem == "no home":
        monkeypatch.setenv("HOME", "")
        monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: f"~/.cache/{name}")
        monkeypatch.setattr(os.path, "expanduser", str)
    if problem == "read-only":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    module._temporary_directory.cache_clear()
    expected = tmp_path / f"jaxlm-{os.getuid()}"
    assert [cache_directory() for _ in range(3)] == [expected] * 3
    assert expected.stat().st_mode & 0o777 == 0o700
    assert [record.getMessage() for record in caplog.records] == [caplog.messages[0]]
    assert f"using {expected}; set JAXLM_DATA_DIR to choose" in caplog.text
    assert not Path("~").exists()


def test_cache_directory_is_never_that_of_another_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null")
    other = os.getuid() + 1
    (tmp_path / f"jaxlm-{other}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: other)
    module._temporary_directory.cache_clear()
    path = cache_directory()
    assert path.parent == tmp_path
    assert path.name != f"jaxlm-{other}"
    module._temporary_directory.cache_clear()
