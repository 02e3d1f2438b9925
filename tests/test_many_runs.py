"""Many runs in one process compile once, and their memory does not grow."""

import subprocess
import sys
from pathlib import Path

import pytest

# Of 1,000 runs, none after the third compiled. From the 10th run on, the number of maps grew by 1 %. The memory
# grew by 6 % until the 300th, then by 1 %: TensorStore 0.1.86 never frees the results of `KvStore.Spec.to_json`.
PROGRAM = """
import pathlib, sys
import jax
from tiny_runs import tiny_config
from jaxlm import start_run

compilations = []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compilations.append(event))
folder = pathlib.Path(sys.argv[1])
for number in range(60):
    rates = {"lr": 0.1 + number / 1000, "dropout": 0.1 + number / 3000, "momentum": 0.5 + number / 4000}
    config = tiny_config(folder, seed=number, num_steps=6 + number % 5, save_every=None, **rates)
    start_run(config, folder / "run", overwrite=True)
    if number % 10 == 9:
        maps = len(pathlib.Path("/proc/self/maps").read_text().splitlines())
        kilobytes = pathlib.Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]
        print(sum("backend_compile" in event for event in compilations), maps, kilobytes)
"""


@pytest.mark.stress
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts memory maps in /proc")
def test_many_runs_compile_once_and_keep_their_memory(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    output = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True).stdout
    compilations, maps, kilobytes = zip(*(map(int, line.split()) for line in output.splitlines()), strict=True)
    assert len(maps) == 6
    assert compilations[-1] == compilations[0] > 5
    assert max(maps) < 1.05 * maps[0]
    assert max(kilobytes) < 1.1 * kilobytes[0]
