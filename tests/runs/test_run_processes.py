"""Runs of several processes: the same files as of one, stopped together, and resumed on another number."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import read_json

pytestmark = pytest.mark.slow

OPTIONS = (
    "--model mlp --tokenizer byte --num-steps 600 --log-every 100 --grad-shards 2 --save-every 100 --batch-size 8"
)


def start(run, *words, **variables):
    """Start `jaxlm train` with a small text, and environment variables."""
    text = run.with_name("text.txt")
    text.write_text("The quick brown fox jumps over the lazy dog. " * 50)
    command = [sys.executable, "-m", "jaxlm", "train", "--device", "cpu", *words]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | variables
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def train(run, *words, **variables):
    text = str(run.with_name("text.txt"))
    return start(run, "--text", text, "--out", str(run), *OPTIONS.split(), *words, **variables)


def slurm_variables(number, num_processes):
    """Return what `srun` sets on one machine. JAX derives the port from the last 12 bits of the job."""
    names = {"JOB_ID": os.getpid(), "NTASKS": num_processes, "PROCID": number, "LOCALID": number}
    names |= {"STEP_NUM_TASKS": num_processes, "STEP_NUM_NODES": 1, "STEP_NODELIST": "127.0.0.1"}
    return {f"SLURM_{name}": str(value) for name, value in names.items()}


def wait_for(process, pattern):
    """Read the output until a line matches."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return
    pytest.fail("".join(lines))


def finish(process):
    output, _ = process.communicate(timeout=120)
    return output


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    run = tmp_path_factory.mktemp("one") / "run"
    finish(train(run))
    return run


def assert_same_results(run, expected):
    assert (run / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    assert (run / "samples.txt").read_bytes() == (expected / "samples.txt").read_bytes()
    rows = [read_json(each / "results.json")["models"][0]["nats_per_token"] for each in (run, expected)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    "words", [["--devices", "2"], pytest.param(["--processes", "2"], marks=pytest.mark.stress)]
)
def test_devices_and_processes_write_the_same_results(words, one_process, tmp_path):
    output = finish(train(tmp_path / "run", *words))
    assert "2 cpu" in output
    assert_same_results(tmp_path / "run", one_process)


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
@pytest.mark.parametrize("killed", [0, pytest.param(1, marks=pytest.mark.stress)])
def test_a_killed_process_ends_the_others_and_the_run_resumes(killed, one_process, tmp_path):
    process = train(tmp_path / "run", "--processes", "2", "--json")
    wait_for(process, "step 200/")
    pids = children(process.pid)
    os.kill(pids[killed], signal.SIGKILL)
    output = finish(process)
    document = json.loads(output[output.index("\n{\n") :])  # the only one
    assert document["error"].startswith(f"process {killed} was ended by SIGKILL")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    finish(start(tmp_path / "run", "--resume", str(tmp_path / "run"), "--devices", "2"))
    assert_same_results(tmp_path / "run", one_process)


def test_processes_of_srun_with_different_texts_end(tmp_path):
    (tmp_path / "other.txt").write_text("The quick brown fox. " * 50)
    others = [[], ["--text", str(tmp_path / "other.txt")]]
    processes = [
        train(tmp_path / "run", *other, **slurm_variables(number, 2)) for number, other in enumerate(others)
    ]
    outputs = [finish(process) for process in processes]
    assert [process.returncode for process in processes] == [69, 2], outputs
    assert "for the 2 processes that the launcher started; --distributed no trains in each alone" in outputs[0]
    assert "lost another process of the run" in outputs[0]
    assert "process 1 must have the options and the text of process 0" in outputs[1]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
def test_a_signal_to_one_process_stops_all_at_the_same_step(one_process, tmp_path):
    process = train(tmp_path / "run", "--processes", "2")
    wait_for(process, "step 100/")
    os.kill(children(process.pid)[1], signal.SIGTERM)
    output = finish(process)
    assert process.returncode == 130, output
    assert "a signal to another process; resume with: jaxlm train --resume" in output
    assert read_json(tmp_path / "run" / "manifest.json")["state"] == "interrupted"
    finish(start(tmp_path / "run", "--resume", str(tmp_path / "run"), "--processes", "2"))
    assert_same_results(tmp_path / "run", one_process)
