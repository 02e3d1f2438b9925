"""A plugin is probed when its result is not cached."""

import platform
import sys
import time
from importlib import metadata
from unittest.mock import Mock

import pytest

from jaxlm.devices import probe_cache
from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_cache import clear_probe_cache, probe_results
from jaxlm.devices.probe_runner import ProbeResult

GOOD, BAD = Plugin("good", "good-chip", "1.0"), Plugin("bad", "bad-chip", "2.0")
RESULTS = {
    GOOD: ProbeResult(works=True, platform="good", reason="is right", seconds=0.001, worthwhile_from=20_000),
    BAD: ProbeResult(works=False, platform=None, reason="crashed"),
}


@pytest.fixture
def results():
    return RESULTS.copy()


@pytest.fixture
def probes(install, results):
    """Return the calls of `run_probes`."""
    return install(results)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "plugins.json"


def in_new_process():
    probe_results.cache_clear()
    return probe_results()


def test_probe_results_probes_each_version_once(probes, results):
    assert probe_results() == in_new_process() == RESULTS
    assert probe_results() is probe_results()
    assert probes == [[GOOD, BAD]]
    newer = Plugin("bad", "bad-chip", "2.1")
    results[newer] = results.pop(BAD)
    assert in_new_process() == {GOOD: RESULTS[GOOD], newer: RESULTS[BAD]}
    assert probes == [[GOOD, BAD], [newer]]


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(platform, "platform", lambda: "another"),
        lambda patch: patch.setattr(sys, "prefix", "another"),
        lambda patch: patch.setattr(metadata, "version", lambda name: "99.0"),
        lambda patch: patch.setenv("CUDA_VISIBLE_DEVICES", "another"),
        lambda patch: patch.setenv("JAX_MPS_LIBRARY_PATH", "another"),
    ],
)
def test_results_depend_on_machine_and_settings(probes, monkeypatch, change):
    probe_results()
    with monkeypatch.context() as patch:
        change(patch)
        in_new_process()
    in_new_process()
    assert len(probes) == 2  # the first results are still cached


@pytest.mark.parametrize("content", ["not JSON", "[]"])
def test_damaged_cache_is_replaced(probes, cache, content):
    cache.parent.mkdir()
    cache.write_text(content)
    assert probe_results() == in_new_process() == RESULTS
    assert len(probes) == 1


def test_unwritable_directory_means_probes_each_time(probes, monkeypatch):
    monkeypatch.setenv("JAXLM_DATA_DIR", "/dev/null")
    assert probe_results() == in_new_process() == RESULTS
    assert len(probes) == 2


@pytest.mark.parametrize(("minutes", "again"), [(9, []), (11, [[BAD]]), (-1, [[BAD]])])
def test_probe_results_repeat_old_failures(probes, monkeypatch, minutes, again):
    probe_results()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60 * minutes)
    assert in_new_process() == in_new_process() == RESULTS
    assert probes == [[GOOD, BAD], *again]


def test_error_of_run_probes_is_a_failure(probes, monkeypatch):
    monkeypatch.setattr(probe_cache, "run_probes", Mock(side_effect=OSError("no processes left\nfor you")))
    failure = ProbeResult(works=False, platform=None, reason="could not be probed: no processes left for you")
    assert probe_results() == in_new_process() == {GOOD: failure, BAD: failure}


def test_clear_probe_cache_removes_all_results(probes):
    probe_results()
    clear_probe_cache()
    assert probe_results() == RESULTS
    assert len(probes) == 2


def test_probe_results_without_plugins_read_nothing(install, cache):
    install({})
    assert in_new_process() == {}
    assert not cache.parent.exists()
