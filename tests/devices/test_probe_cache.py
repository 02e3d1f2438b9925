"""A plugin is probed when its result is not cached."""

import json
import platform
import sys
import time
from importlib import metadata

import filelock
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
    return dict(RESULTS)


@pytest.fixture
def probes(install, results):
    """The probes that were run; an empty cache."""
    return install(results)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "plugins.json"


def in_new_process():
    probe_results.cache_clear()
    return probe_results()


def test_probe_results_probes_once(probes):
    assert probe_results() == RESULTS
    assert probe_results() is probe_results()
    assert in_new_process() == RESULTS
    assert probes == [[GOOD, BAD]]


def test_probe_results_probes_only_new_versions(probes, results):
    probe_results()
    newer = Plugin("bad", "bad-chip", "2.1")
    results[newer] = results.pop(BAD)
    assert in_new_process() == {GOOD: RESULTS[GOOD], newer: RESULTS[BAD]}
    assert probes == [[GOOD, BAD], [newer]]


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(platform, "release", lambda: "another"),
        lambda patch: patch.setattr(sys, "prefix", "another"),
        lambda patch: patch.setattr(metadata, "version", lambda name: "99.0"),
        lambda patch: patch.setenv("CUDA_VISIBLE_DEVICES", ""),
        lambda patch: patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3"),
        lambda patch: patch.setenv("LD_LIBRARY_PATH", "another"),
        lambda patch: patch.setenv("JAX_MPS_LIBRARY_PATH", "another"),
    ],
    ids=["kernel", "environment", "jax", "visible devices", "XLA flags", "libraries", "plugin setting"],
)
def test_results_depend_on_machine_and_settings(probes, monkeypatch, change):
    probe_results()
    with monkeypatch.context() as patch:
        change(patch)
        in_new_process()
        assert len(probes) == 2
    in_new_process()
    assert len(probes) == 2  # the first results are still cached


@pytest.mark.parametrize("content", ["not JSON", "[]", "{}", '{"version": 2, "verdicts": {}}'])
def test_damaged_or_old_cache_is_replaced(probes, cache, content):
    cache.write_text(content)
    assert probe_results() == in_new_process() == RESULTS
    assert len(probes) == 1
    assert len(json.loads(cache.read_text())["results"]) == 2


def test_unwritable_directory_means_probes_each_time(probes, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "file" / "below"))
    assert probe_results() == in_new_process() == RESULTS
    assert len(probes) == 2


@pytest.mark.parametrize(("hours", "again"), [(23, []), (25, [[BAD]]), (-1, [[BAD]])])
def test_failure_expires_after_a_day(probes, monkeypatch, hours, again):
    probe_results()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600 * hours)
    assert in_new_process() == RESULTS
    assert probes == [[GOOD, BAD], *again]


def test_failure_is_probed_again_with_more_time(probes, monkeypatch):
    probe_results()
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "75")
    in_new_process()
    monkeypatch.delenv("JAXLM_PROBE_SECONDS")
    in_new_process()
    assert probes == [[GOOD, BAD], [BAD]]


def test_error_of_run_probes_is_not_cached(probes, cache, monkeypatch):
    def fail(plugins):
        raise OSError("no processes left\nfor you")

    with monkeypatch.context() as patch:
        patch.setattr(probe_cache, "run_probes", fail)
        failure = ProbeResult(works=False, platform=None, reason="could not be probed: no processes left for you")
        assert probe_results() == {GOOD: failure, BAD: failure}
    assert not cache.exists()
    assert in_new_process() == RESULTS


@pytest.mark.slow
def test_lock_of_another_process_times_out(probes, cache, monkeypatch):
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "0.1")
    with filelock.FileLock(cache.with_suffix(".lock")):
        reasons = {result.reason for result in probe_results().values()}
    assert reasons == {"could not be probed: another process has been probing plugins for 5.1 s"}
    assert probes == []


def test_results_of_another_process_are_used(probes, cache, monkeypatch):
    """Another process writes them while this one waits for the lock."""
    probe_results()
    content = cache.read_bytes()
    clear_probe_cache()
    acquire = filelock.FileLock.acquire

    def wait(lock, **options):
        cache.write_bytes(content)
        return acquire(lock, **options)

    monkeypatch.setattr(filelock.FileLock, "acquire", wait)
    assert probe_results() == RESULTS
    assert len(probes) == 1


def test_cache_keeps_the_newest_100(probes, cache, results):
    probe_results()
    for batch in ("first", "second"):
        results.clear()
        results.update({GOOD: RESULTS[GOOD]} | {Plugin("p", f"{batch}{i}", "1"): RESULTS[GOOD] for i in range(60)})
        in_new_process()
    keys = json.loads(cache.read_text())["results"]
    assert len(keys) == 100
    assert sum("second" in key for key in keys) == 60


def test_clear_probe_cache_removes_all_results(probes, cache):
    probe_results()
    clear_probe_cache()
    assert not cache.exists()
    assert probe_results() == RESULTS
    assert len(probes) == 2


def test_known_incompatibility_is_not_probed(probes, results, cache, monkeypatch):
    metal = Plugin("metal", "jax-metal", "0.1.1")
    results[metal] = RESULTS[GOOD]
    monkeypatch.setattr(metadata, "version", lambda name: "0.10.2")
    result = probe_results()[metal]
    assert not result.works
    assert "breaks every program" in result.reason
    assert probes == [[GOOD, BAD]]
    assert "metal" not in cache.read_text()


def test_without_plugins_nothing_is_read(install, cache, monkeypatch):
    install({})
    cache.with_suffix(".lock").unlink(missing_ok=True)
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "not read")
    assert in_new_process() == {}
    assert list(cache.parent.iterdir()) == []
