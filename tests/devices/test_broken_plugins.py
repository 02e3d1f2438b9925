"""`jaxlm train --device auto` with installed plugins that fail in different ways, and with one that works."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fake_plugins import FAKES, install_fakes

import jaxlm

AGREES = "computes the CPU's values"
TIMEOUT = "did not finish in 4 s (for more time: JAXLM_PROBE_SECONDS=12 jaxlm devices --probe)"
REASONS = {
    "raises": "provides no device: RuntimeError: there is no such chip in this machine",
    "raises_in_factory": "raised RuntimeError: Unable to initialize backend 'fake_raises_in_factory': "
    "the chip does not answer",
    "hangs_in_import": TIMEOUT,
    "hangs": TIMEOUT,
    "hangs_in_factory": TIMEOUT,
    "aborts": "was terminated by signal 6 (Aborted)",
    "segfaults": "was terminated by signal 11 (Segmentation fault)",
    "wrong": "has a wrong embedding gradient: ",
    "unimplemented": "UNIMPLEMENTED: default_memory_space is not supported.",
    "noisy": "printed more than 1,048,576 bytes",
    "zombie": "left processes running",
}
# `works` is a CPU, which may look slow on a busy machine. This model is larger than any limit that it may report.
OPTIONS = {"works": ("--hidden-dim", "16384", "--batch-size", "8", "--lr", "0.01")}


class Finished(NamedTuple):
    """A finished run: exit code, output, its lines about the device, validation loss in nats per token."""

    code: int
    output: str
    devices: list[str]
    nats: float | None


def run_jaxlm(directory, *words, plugins=None, **environment):
    """Run the `jaxlm` command in a subprocess with the plugins in this subdirectory."""
    path = [str(Path(jaxlm.__file__).parents[1]), *([str(directory / plugins / "site")] if plugins else [])]
    cleared = {"JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAXLM_DEVICE"}
    environment = {
        **{name: value for name, value in os.environ.items() if name not in cleared},
        "PYTHONPATH": os.pathsep.join(path),
        "JAXLM_DATA_DIR": str(directory / (plugins or "none") / "data"),
        "JAX_COMPILATION_CACHE_DIR": str(directory / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", "jaxlm", *words],
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def train(directory, *options, plugins=None, **environment):
    """Train 50 steps."""
    out = directory / (plugins or "none") / "run"
    words = ["--text", directory / "text.txt", "--tokenizer", "char", "--num-steps", "50", "--log-every", "50"]
    words += ["--out", out, "--overwrite", *options]
    done = run_jaxlm(directory, "train", *words, plugins=plugins, **environment)
    results = out / "results.json"
    nats = json.loads(results.read_text())["models"][0]["nats_per_token"] if results.exists() else None
    devices = [line for line in done.stdout.splitlines() if "device:" in line]
    return Finished(done.returncode, done.stdout, devices, nats)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plugins")
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat", "and", "ran", "far"], 3000)
    (directory / "text.txt").write_text("\n".join(" ".join(words[i : i + 8]) for i in range(0, len(words), 8)))
    return directory


@pytest.fixture(scope="module")
def on_cpu(directory):
    """The same run without plugins."""
    return train(directory, JAX_PLATFORMS="cpu")


@pytest.fixture(scope="module")
def first_runs(directory, on_cpu):
    """The first run with each fake, two at a time."""

    def run_first(kind):
        install_fakes(directory / kind / "site", kind)
        limit = "4" if kind.startswith("hangs") else "300"
        return train(directory, *OPTIONS.get(kind, ()), plugins=kind, JAXLM_PROBE_SECONDS=limit)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(FAKES, pool.map(run_first, FAKES), strict=True))


@pytest.mark.slow
def test_train_with_three_broken_plugins_uses_the_cpu(directory, on_cpu):
    """The second run uses the cached results: it has no time to probe."""
    kinds = ("aborts", "raises", "wrong")
    install_fakes(directory / "three" / "site", *kinds)
    first = train(directory, plugins="three", JAXLM_PROBE_SECONDS="300")
    assert (first.code, first.nats) == (0, on_cpu.nats), first.output
    (line,) = first.devices
    assert line.startswith("device: cpu:0 (cpu): ")
    assert all(f"fake-{kind} 1.0 {REASONS[kind]}" in line for kind in kinds), line
    second = train(directory, plugins="three", JAXLM_PROBE_SECONDS="0.001")
    assert second[2:] == first[2:], second.output


@pytest.mark.stress
@pytest.mark.parametrize("kind", REASONS)
def test_train_with_a_broken_plugin_uses_the_cpu(first_runs, on_cpu, kind):
    run = first_runs[kind]
    assert (run.code, run.nats) == (0, on_cpu.nats), run.output
    (line,) = run.devices
    assert line.startswith(f"device: cpu:0 (cpu): fake-{kind} 1.0 ")
    assert REASONS[kind] in line
    assert len(run.output) < 5_000


@pytest.mark.stress
def test_train_uses_the_accelerator_that_works(directory, first_runs):
    on_cpu = train(directory, *OPTIONS["works"], JAX_PLATFORMS="cpu")
    run = first_runs["works"]
    assert run.code == 0, run.output
    assert run.nats == pytest.approx(on_cpu.nats, rel=1e-4)
    assert run.devices == [f"device: cpu:0 (cpu): fake-works 1.0 {AGREES}"]


@pytest.mark.stress
@pytest.mark.parametrize("kind", FAKES)
def test_second_run_uses_cached_results(directory, first_runs, kind):
    second = train(directory, *OPTIONS.get(kind, ()), plugins=kind, JAXLM_PROBE_SECONDS="0.001")
    assert second == first_runs[kind]._replace(output=second.output), second.output


@pytest.mark.stress
def test_small_model_stays_on_the_cpu(directory, first_runs, on_cpu):
    run = train(directory, plugins="works")
    assert (run.code, run.nats) == (0, on_cpu.nats), run.output
    (line,) = run.devices
    assert re.fullmatch(r"device: cpu:0 \(cpu\): fake-works 1.0 is faster from .* weights, the model has .*", line)


@pytest.mark.stress
def test_cpu_does_not_start_a_plugin_that_hangs(directory, on_cpu):
    """An invalid time limit shows that nothing is probed."""
    install_fakes(directory / "hanging" / "site", "hangs_in_import")
    by_setting = train(directory, plugins="hanging", JAX_PLATFORMS="cpu")
    assert (by_setting.nats, by_setting.devices) == (on_cpu.nats, ["device: cpu:0 (cpu): JAX_PLATFORMS=cpu"])
    run = train(directory, "--device", "cpu", plugins="hanging", JAXLM_PROBE_SECONDS="invalid")
    assert (run.code, run.nats) == (0, on_cpu.nats), run.output
    assert run.devices == ["device: cpu:0 (cpu): requested"]
    path = directory / "hanging" / "run"
    for words in (
        ("train", "--resume", path, "--num-steps", "60"),
        ("evaluate", path, "--device", "cpu"),
        ("export", path, directory / "hanging" / "model.safetensors"),
    ):
        done = run_jaxlm(directory, *words, plugins="hanging", JAXLM_PROBE_SECONDS="invalid")
        assert done.returncode == 0, done.stdout


@pytest.mark.stress
def test_devices_lists_plugins_that_work_and_fail(directory):
    install_fakes(directory / "two" / "site", "works", "aborts")
    done = run_jaxlm(directory, "devices", plugins="two")
    assert done.returncode == 0, done.stdout
    failure = f"{REASONS['aborts']} (to try again: jaxlm devices --probe)"
    lines = done.stdout.splitlines()
    assert f"fake-aborts 1.0: fails: {failure}" in lines
    assert f"fake-works 1.0: works: {AGREES}" in lines
    *_, small, large = lines
    assert f"fake-aborts 1.0 {failure}; fake-works 1.0 is faster from" in small
    assert large.endswith(f"fake-works 1.0 {AGREES}")
    done = run_jaxlm(directory, "devices", "--json", plugins="two", JAXLM_PROBE_SECONDS="0.001")
    document = json.loads(done.stdout[done.stdout.index("{\n") :])
    rows = {row["platform"]: (row["plugin"], row["verdict"], row["auto"]) for row in document["devices"]}
    assert rows == {
        "cpu": (None, "built in", ["small"]),
        "fake_works": ("fake-works", "works", ["large"]),
        None: ("fake-aborts", "fails", []),
    }
