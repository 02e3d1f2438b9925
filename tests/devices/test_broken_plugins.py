"""`jaxlm train --device auto` beside plugins that fail in every way, and beside one that works."""

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
from fake_plugins import FAKES, install

import jaxlm

pytestmark = pytest.mark.slow

# What the line that tells the device says of each.
REASONS = {
    "raises": "starts no device: RuntimeError: there is no such chip in this machine",
    "raises_in_factory": "raised RuntimeError: Unable to initialize backend 'fake_raises_in_factory': "
    "the chip does not answer",
    "hangs_in_import": "gave no answer in 4 s (JAXLM_PROBE_SECONDS=12 jaxlm devices --probe gives it more)",
    "hangs": "gave no answer in 4 s (JAXLM_PROBE_SECONDS=12 jaxlm devices --probe gives it more)",
    "hangs_in_factory": "gave no answer in 4 s (JAXLM_PROBE_SECONDS=12 jaxlm devices --probe gives it more)",
    "aborts": "ended its process by SIGABRT",
    "segfaults": "ended its process by SIGSEGV",
    "wrong": "has a wrong gradient of an embedding: ",
    "unimplemented": "UNIMPLEMENTED: default_memory_space is not supported.",
    "noisy": "prints more than 1,048,576 bytes",
    "zombie": "leaves processes behind",
}
# More weights than those from which `works`, a CPU, may be said to pay by the noise of a busy machine.
OPTIONS = {"works": ("--hidden-dim", "16384", "--batch-size", "8", "--lr", "0.01")}


class Ran(NamedTuple):
    """What came of a run: its exit code, what it printed, and the validation's nats per token."""

    code: int
    output: str
    nats: float | None

    @property
    def devices(self):
        return [line for line in self.output.splitlines() if "device:" in line]


def jaxlm_command(folder, *words, plugins=None, **environment):
    """Runs `jaxlm` in a process of its own; standard output and error are one text."""
    path = [str(folder / plugins / "installed")] if plugins else []
    cleared = {"JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAXLM_DEVICE"}
    environment = {
        **{name: value for name, value in os.environ.items() if name not in cleared},
        "PYTHONPATH": os.pathsep.join([str(Path(jaxlm.__file__).parents[1]), *path]),
        "JAXLM_DATA_DIR": str(folder / (plugins or "none") / "data"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", "jaxlm", *words],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def train(folder, *options, plugins=None, **environment):
    """Trains 50 steps."""
    out = folder / (plugins or "none") / "run"
    words = ["--text", folder / "text.txt", "--tokenizer", "char", "--num-steps", "50", "--log-every", "50"]
    words += ["--out", out, "--overwrite", *options]
    finished = jaxlm_command(folder, "train", *words, plugins=plugins, **environment)
    results = out / "results.json"
    nats = json.loads(results.read_text())["models"][0]["nats_per_token"] if results.exists() else None
    return Ran(finished.returncode, finished.stdout, nats)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat", "and", "ran", "far"], 3000)
    (folder / "text.txt").write_text("\n".join(" ".join(words[i : i + 8]) for i in range(0, len(words), 8)))
    return folder


@pytest.fixture(scope="module")
def on_cpu(folder):
    """The same run where JAX is told to take the CPU, and no plugin is installed."""
    return train(folder, JAX_PLATFORMS="cpu")


@pytest.fixture(scope="module")
def runs(folder, on_cpu):
    """The first run beside each fake, two at a time."""

    def run_first(kind):
        install(folder / kind, kind)
        limit = "4" if kind.startswith("hangs") else "300"
        return train(folder, *OPTIONS.get(kind, ()), plugins=kind, JAXLM_PROBE_SECONDS=limit)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(FAKES, pool.map(run_first, FAKES), strict=True))


def test_every_fake_is_expected_to_fail_but_one():
    assert {*REASONS, "works"} == set(FAKES)


@pytest.mark.parametrize("kind", REASONS)
def test_run_beside_a_broken_plugin_is_the_cpus(runs, on_cpu, kind):
    ran = runs[kind]
    assert ran.code == 0, ran.output
    assert ran.nats == on_cpu.nats
    (line,) = ran.devices
    assert line.startswith(f"device: cpu:0 (cpu): fake-{kind} 1.0 ")
    assert REASONS[kind] in line
    assert len(ran.output) < 5_000


def test_run_is_on_the_accelerator_that_works(folder, runs):
    on_cpu = train(folder, *OPTIONS["works"], JAX_PLATFORMS="cpu")
    ran = runs["works"]
    assert ran.code == 0, ran.output
    assert ran.nats == pytest.approx(on_cpu.nats, rel=1e-4)
    assert ran.devices == ["device: cpu:0 (cpu): fake-works 1.0 gives the CPU's values"]


@pytest.mark.parametrize("kind", ["aborts", "hangs_in_import", "raises", "wrong", "works", "zombie"])
def test_second_run_knows_without_a_probe(folder, runs, kind):
    """For which it would have no time."""
    second = train(folder, *OPTIONS.get(kind, ()), plugins=kind, JAXLM_PROBE_SECONDS="0.001")
    assert second == runs[kind]._replace(output=second.output), second.output
    assert second.devices == runs[kind].devices


def test_small_model_beside_an_accelerator_that_works_is_on_the_cpu(folder, runs, on_cpu):
    ran = train(folder, plugins="works")
    assert ran == on_cpu._replace(output=ran.output), ran.output
    (line,) = ran.devices
    assert re.fullmatch(r"device: cpu:0 \(cpu\): fake-works 1.0 pays from .* weights, the model has .*", line)


def test_cpu_that_is_asked_for_is_had_at_once_beside_a_plugin_that_hangs(folder, on_cpu):
    install(folder / "unasked", "hangs_in_import")
    ran = train(folder, "--device", "cpu", plugins="unasked", JAXLM_PROBE_SECONDS="soon")
    assert ran == on_cpu._replace(output=ran.output), ran.output
    assert ran.devices == ["device: cpu:0 (cpu): it was asked for"]
    run = folder / "unasked" / "run"
    for words in (
        ("train", "--resume", run, "--num-steps", "60"),
        ("evaluate", run, "--device", "cpu"),
        ("export", run, folder / "unasked" / "model.safetensors"),
    ):
        finished = jaxlm_command(folder, *words, plugins="unasked", JAXLM_PROBE_SECONDS="soon")
        assert finished.returncode == 0, finished.stdout


def test_devices_are_told_beside_plugins_that_work_and_fail(folder):
    install(folder / "several", "works", "aborts")
    table = jaxlm_command(folder, "devices", plugins="several")
    assert table.returncode == 0, table.stdout
    failing = "ended its process by SIGABRT (jaxlm devices --probe tries it again)"
    lines = table.stdout.splitlines()
    assert f"fake-aborts 1.0: fails: {failing}" in lines
    assert "fake-works 1.0: works: gives the CPU's values" in lines
    *_, small, large = lines
    assert small.startswith(f"auto (for a model of 1,000 weights) takes cpu:0 (cpu): fake-aborts 1.0 {failing}; ")
    assert "fake-works 1.0 pays from" in small
    assert (
        large
        == "auto (for a model of 10,000,000 weights) takes cpu:0 (cpu): fake-works 1.0 gives the CPU's values"
    )
    told = jaxlm_command(folder, "devices", "--json", plugins="several", JAXLM_PROBE_SECONDS="0.001").stdout
    document = json.loads(told[told.index("{\n") :])
    rows = {row["platform"]: row for row in document["devices"]}
    assert {platform: (row["plugin"], row["verdict"], row["auto"]) for platform, row in rows.items()} == {
        "cpu": (None, "built in", ["small"]),
        "fake_works": ("fake-works", "works", ["large"]),
        None: ("fake-aborts", "fails", []),
    }
    assert rows["cpu"]["gflops"] > 0.1
    assert rows["fake_works"]["gbytes"] > 0.1


def test_cpu_that_jax_is_told_is_had_beside_a_plugin_that_hangs(folder, on_cpu):
    install(folder / "unmet", "hangs_in_import")
    ran = train(folder, plugins="unmet", JAX_PLATFORMS="cpu")
    assert ran == on_cpu._replace(output=ran.output), ran.output
    assert ran.devices == ["device: cpu:0 (cpu): JAX_PLATFORMS=cpu"]
