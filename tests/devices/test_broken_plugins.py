"""`jaxlm train --device auto` with installed plugins that fail in different ways, and with one that works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_plugins import FAKES, install_fakes

import jaxlm

REASONS = {
    "raises": "provides no device; JAX logged: there is no such chip in this machine",
    "raises_in_factory": "raised RuntimeError: Unable to initialize backend 'fake_raises_in_factory': the",
    "hangs": "did not finish in 4 s (for more time: JAXLM_PROBE_SECONDS=12 jaxlm devices --probe)",
    "aborts": "was terminated by signal 6 (Aborted)",
    "segfaults": "was terminated by signal 11 (Segmentation fault)",
    "wrong": "has a wrong embedding gradient: ",
    "unimplemented": "raised JaxRuntimeError: UNIMPLEMENTED: default_memory_space is not supported.",
    "noisy": "printed more than 1,048,576 bytes",
    "zombie": "left processes running",
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat", "and", "ran", "far"], 3000)
    path.write_text("\n".join(" ".join(words[i : i + 8]) for i in range(0, len(words), 8)))
    return path


@pytest.fixture(scope="module")
def run_jaxlm():
    """Return a function that runs the `jaxlm` command, with the plugins in `directory`, and returns its output."""

    def run(directory, *words, **environment):
        cleared = {"JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAXLM_DEVICE"}
        environment = {
            **{name: value for name, value in os.environ.items() if name not in cleared},
            "PYTHONPATH": os.pathsep.join([str(Path(jaxlm.__file__).parents[1]), str(directory)]),
            "JAXLM_DATA_DIR": str(directory / "data"),
            **environment,
        }
        command = [sys.executable, "-m", "jaxlm", *words]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, env=environment, cwd=directory, text=True, timeout=600, **options)
        assert done.returncode == 0, done.stdout
        assert len(done.stdout) < 5_000
        return done.stdout

    return run


@pytest.fixture(scope="module")
def train(run_jaxlm, text):
    """Return a function that trains 50 steps, and returns the validation loss and the line about the device."""

    def run(directory, *options, **environment):
        words = ["--text", text, "--tokenizer", "char", "--num-steps", "50", "--log-every", "50", *options]
        output = run_jaxlm(directory, "train", "--out", directory / "run", "--overwrite", *words, **environment)
        (line,) = [line for line in output.splitlines() if "device:" in line]
        return nats_of(directory / "run"), line

    return run


def nats_of(run):
    return json.loads((run / "results.json").read_text())["models"][0]["nats_per_token"]


@pytest.fixture(scope="module")
def cpu_nats(text, tmp_path_factory):
    """The validation loss without plugins."""
    config = jaxlm.TrainConfig(text=text, tokenizer="char", num_steps=50, log_every=50, device="cpu")
    return nats_of(jaxlm.start_run(config, tmp_path_factory.mktemp("no_plugins")))


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(("aborts", "raises", "wrong"), marks=pytest.mark.slow),
        *[pytest.param((kind,), marks=pytest.mark.stress) for kind in REASONS],
    ],
    ids="-".join,
)
def test_train_with_broken_plugins_uses_the_cpu(train, run_jaxlm, cpu_nats, tmp_path, kinds):
    """The second command uses the cached results: it has no time to probe."""
    install_fakes(tmp_path, *kinds)
    limit = "4" if kinds[0] == "hangs" else "300"
    nats, line = train(tmp_path, JAXLM_PROBE_SECONDS=limit)
    assert nats == cpu_nats
    assert line.startswith(f"device: cpu:0 (cpu): fake-{kinds[0]} 1.0 ")
    assert all(f"fake-{kind} 1.0 {REASONS[kind]}" in line for kind in kinds)
    assert line.removeprefix("device: ") in run_jaxlm(tmp_path, "devices", JAXLM_PROBE_SECONDS="0.001")


@pytest.mark.stress
def test_train_with_a_working_plugin_uses_it_for_large_models(train, run_jaxlm, cpu_nats, tmp_path):
    """The plugin is a CPU, which can measure slow on a busy machine, so the model is larger than any threshold."""
    assert set(FAKES) == {*REASONS, "works"}
    install_fakes(tmp_path, "works", "aborts")
    large = ("--hidden-dim", "16384", "--batch-size", "8", "--lr", "0.01")
    expected, _ = train(tmp_path, *large, JAX_PLATFORMS="cpu")
    nats, line = train(tmp_path, *large, JAXLM_PROBE_SECONDS="300")
    assert nats == pytest.approx(expected, rel=1e-4)
    assert line == "device: cpu:0 (cpu): fake-works 1.0 computes the CPU's values"
    nats, line = train(tmp_path)
    assert nats == cpu_nats
    assert "fake-works 1.0 is faster only from" in line
    assert "fake-works 1.0 computes the CPU's values\nauto chooses cpu:0" in run_jaxlm(tmp_path, "devices")


@pytest.mark.stress
def test_cpu_does_not_start_a_plugin_that_hangs(train, run_jaxlm, cpu_nats, tmp_path):
    """An invalid time limit shows that nothing is probed."""
    install_fakes(tmp_path, "hangs")
    assert train(tmp_path, JAX_PLATFORMS="cpu") == (cpu_nats, "device: cpu:0 (cpu): JAX_PLATFORMS=cpu")
    limit = {"JAXLM_PROBE_SECONDS": "invalid"}
    assert train(tmp_path, "--device", "cpu", **limit) == (cpu_nats, "device: cpu:0 (cpu): requested")
    run = tmp_path / "run"
    run_jaxlm(tmp_path, "train", "--resume", run, "--num-steps", "60", **limit)
    run_jaxlm(tmp_path, "evaluate", run, "--device", "cpu", **limit)
    run_jaxlm(tmp_path, "export", run, tmp_path / "model.safetensors", **limit)
    for number, platforms in enumerate(("", "cpu")):
        words = "import", tmp_path / "model.safetensors", tmp_path / f"imported-{number}"
        run_jaxlm(tmp_path, *words, JAX_PLATFORMS=platforms, **limit)
