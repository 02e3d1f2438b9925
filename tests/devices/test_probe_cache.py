"""When a plugin is tried, and when its verdict is known."""

import functools
import json
import platform
import sys
import threading
import time
from importlib.metadata import version

import filelock
import pytest

from jaxlm.devices import probe_cache as verdicts
from jaxlm.devices.plugins import Plugin
from jaxlm.devices.probe_cache import clear_probe_cache, probe_results
from jaxlm.devices.probe_runner import ProbeResult

GOOD, BAD = Plugin("good", "good-chip", "1.0"), Plugin("bad", "bad-chip", "2.0")
VERDICTS = {
    GOOD: ProbeResult(works=True, platform="good", reason="is right", seconds=0.001, worthwhile_from=20_000),
    BAD: ProbeResult(works=False, platform=None, reason="ended its process by SIGABRT"),
}


@pytest.fixture(autouse=True)
def tried(tmp_path, monkeypatch):
    """The plugins that were tried, each time; two are installed, and the cache is empty."""
    tried = []

    def run_probes(plugins):
        tried.append(plugins)
        return {plugin: VERDICTS[plugin] for plugin in plugins}

    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(verdicts, "try_plugins", run_probes)
    monkeypatch.setattr(verdicts, "installed_plugins", functools.cache(lambda: (GOOD, BAD)))
    probe_results.cache_clear()
    yield tried
    probe_results.cache_clear()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "plugins.json"


def another_process():
    probe_results.cache_clear()
    return probe_results()


def test_each_plugin_is_tried_once(tried):
    assert probe_results() == VERDICTS
    assert probe_results() == VERDICTS
    assert another_process() == VERDICTS
    assert tried == [[GOOD, BAD]]


def test_only_what_is_new_is_tried(tried, monkeypatch):
    probe_results()
    renewed = Plugin("bad", "bad-chip", "2.1")
    monkeypatch.setitem(VERDICTS, renewed, VERDICTS[BAD])
    monkeypatch.setattr(verdicts, "installed_plugins", lambda: (GOOD, renewed))
    assert set(another_process()) == {GOOD, renewed}
    assert tried == [[GOOD, BAD], [renewed]]


@pytest.mark.parametrize(
    "change",
    [
        lambda monkeypatch: monkeypatch.setattr(verdicts, "jax_version", lambda: "99.0"),
        lambda monkeypatch: monkeypatch.setattr(verdicts, "_machine", lambda: ("another",)),
        lambda monkeypatch: monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ""),
        lambda monkeypatch: monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3"),
        lambda monkeypatch: monkeypatch.setenv("LD_LIBRARY_PATH", "another"),
    ],
    ids=["jax", "machine", "visible devices", "flags", "libraries"],
)
def test_what_a_verdict_depends_on_is_part_of_its_key(tried, monkeypatch, change):
    probe_results()
    with monkeypatch.context() as patch:
        change(patch)
        another_process()
        assert len(tried) == 2
    another_process()
    assert len(tried) == 2  # the first verdicts are still there


def test_machine_is_told_by_its_system_and_interpreter():
    told = {platform.release(), platform.machine(), sys.prefix, f"jaxlib {version('jaxlib')}"}
    assert told <= set(verdicts._machine())


def test_machine_is_told_by_the_models_of_its_gpus(tmp_path, monkeypatch):
    for number, model in enumerate(["NVIDIA H100", "NVIDIA L4"]):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "information").write_text(f"Model: \t {model}\nIRQ: 0\nBus Type: PCIe\n")
    monkeypatch.setattr(verdicts, "_NVIDIA", tmp_path)
    assert {"Model: \t NVIDIA H100", "Model: \t NVIDIA L4"} <= set(verdicts._machine.__wrapped__())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON",
        "[]",
        "null",
        '{"version": 2}',
        '{"version": 2, "verdicts": []}',
        '{"version": 2, "verdicts": {"any": {"verdict": {"works": "yes"}, "time": 0, "limit": 1}}}',
        '{"version": 2, "verdicts": {"any": null}}',
        json.dumps(
            {
                "version": 2,
                "verdicts": {"any": {"verdict": VERDICTS[GOOD]._asdict(), "time": 10**400, "limit": 1}},
            }
        ),
        '{"version": 99, "verdicts": {}}',
        "[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_damaged_cache_is_as_none_and_is_replaced(tried, cache, content):
    cache.parent.mkdir()
    cache.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert probe_results() == VERDICTS
    assert len(tried) == 1
    assert len(json.loads(cache.read_text())["verdicts"]) == 2
    another_process()
    assert len(tried) == 1


def test_verdicts_of_another_version_are_as_none(tried, monkeypatch):
    probe_results()
    monkeypatch.setattr(verdicts, "_VERSION", 99)
    assert another_process() == VERDICTS
    assert len(tried) == 2


def test_folder_that_cannot_be_written_costs_a_trial_each_time(tried, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "file" / "below"))
    assert probe_results() == another_process() == VERDICTS
    assert len(tried) == 2


@pytest.mark.parametrize(("hours", "untried"), [(23, []), (25, [BAD]), (-1, [BAD])])
def test_fault_is_believed_for_a_day(tried, monkeypatch, hours, untried):
    probe_results()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600 * hours)
    assert another_process() == VERDICTS
    assert tried == [[GOOD, BAD], *([untried] if untried else [])]


def test_fault_is_tried_again_where_the_probe_has_more_time(tried, monkeypatch):
    probe_results()
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "75")
    another_process()
    monkeypatch.delenv("JAXLM_PROBE_SECONDS")
    another_process()
    assert tried == [[GOOD, BAD], [BAD]]


def test_where_nothing_can_be_tried_none_works_and_nothing_is_cached(cache, monkeypatch):
    def fail(plugins):
        raise OSError("no space left\nfor the folder")

    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "try_plugins", fail)
        wanted = ProbeResult(works=False, platform=None, reason="cannot be tried: no space left for the folder")
        assert probe_results() == {GOOD: wanted, BAD: wanted}
    assert not cache.exists()
    assert another_process() == VERDICTS


def test_who_has_waited_for_another_process_tries_nothing_itself(tried, cache, monkeypatch):
    monkeypatch.setenv("JAXLM_PROBE_SECONDS", "0.1")
    monkeypatch.setattr(verdicts, "_FAREWELL_SECONDS", 0.1)
    cache.parent.mkdir()
    with filelock.FileLock(cache.with_suffix(".lock")):
        reasons = {verdict.reason for verdict in probe_results().values()}
    assert reasons == {"cannot be tried: another process tries plugins, and has not ended for 0.2 s"}
    assert tried == []


def test_setting_of_a_plugin_is_part_of_the_key(tried, monkeypatch):
    probe_results()
    monkeypatch.setenv("JAX_MPS_LIBRARY_PATH", "/mine")
    another_process()
    assert len(tried) == 2


def test_cache_keeps_the_newest_verdicts(tried, cache, monkeypatch):
    monkeypatch.setattr(verdicts, "_MOST_ENTRIES", 4)
    for jax in ("1", "2", "3"):
        monkeypatch.setattr(verdicts, "jax_version", lambda jax=jax: jax)
        another_process()
    kept = json.loads(cache.read_text())["verdicts"]
    assert len(kept) == 4
    assert not [key for key in kept if "jax 1|" in key]


def test_forgotten_verdicts_are_asked_for_again(tried, cache):
    probe_results()
    clear_probe_cache()
    assert not cache.exists()
    clear_probe_cache()
    assert probe_results() == VERDICTS
    assert len(tried) == 2


def test_known_fault_is_neither_tried_nor_cached(tried, cache, monkeypatch):
    monkeypatch.setattr(
        verdicts, "known_fault", lambda plugin: f"{plugin.name} has one" if plugin == BAD else None
    )
    assert probe_results()[BAD] == ProbeResult(works=False, platform=None, reason="bad-chip has one")
    assert tried == [[GOOD]]
    assert "bad-chip" not in cache.read_text()


def test_no_plugin_costs_nothing(tried, cache, monkeypatch):
    monkeypatch.setattr(verdicts, "installed_plugins", lambda: ())
    assert probe_results() == {}
    assert tried == []
    assert not cache.parent.exists()


def test_verdicts_that_another_process_is_about_to_write_are_waited_for(tried, cache, monkeypatch):
    found_none = threading.Event()
    known_verdicts = verdicts._known_verdicts

    def look(plugins):
        known = known_verdicts(plugins)
        found_none.set()
        return known

    monkeypatch.setattr(verdicts, "_known_verdicts", look)
    cache.parent.mkdir()
    judged = []
    waiting = threading.Thread(target=lambda: judged.append(probe_results()))
    with filelock.FileLock(cache.with_suffix(".lock")):
        waiting.start()
        assert found_none.wait(60)
        verdicts._cache(VERDICTS)
    waiting.join()
    assert judged == [VERDICTS]
    assert tried == []
