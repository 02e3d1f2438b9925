"""Sweeps that are killed and repeated end with the results of an undisturbed sweep."""

import os
import random
import subprocess
import sys
import time

import pytest
from tiny_runs import assert_same_run, tiny_config

from jaxlm.runs.sweeps.plan import plan_sweep
from jaxlm.runs.sweeps.run import run_sweep
from jaxlm.runs.sweeps.summary import list_sweep_runs, summarize_sweep

_TIMES = {"started", "path", "train_seconds", "train_seconds_half_width"}


def table_of(sweep):
    """Return the rows of the runs and of the settings, without times and places."""
    rows = list_sweep_runs(sweep) + summarize_sweep(sweep)
    return [{name: value for name, value in row.items() if name not in _TIMES} for row in rows]


@pytest.mark.stress
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("kills", [2, 10])
def test_a_killed_sweep_ends_with_the_same_results(kills, text_folder, tmp_path):
    config = tiny_config(text_folder, save_every=None, save_seconds=0.0, num_steps=200, log_every=10)
    configs = plan_sweep(config, {"optimizer": ["sgd", "adam"], "seed": [0, 1]})
    expected = run_sweep(tmp_path / "expected", configs)
    sweep, generator, num_killed = tmp_path / "sweep", random.Random(kills), 0
    run_sweep(sweep, configs, index=len(configs) - 1)  # which writes the plan
    command = [sys.executable, "-m", "jaxlm", "sweep", "--out", str(sweep)]
    while num_killed < kills and not all(row["state"] == "done" for row in list_sweep_runs(sweep)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if "validation perplexity" in line:
                    break
            time.sleep(generator.uniform(0, 0.5))
            process.kill()
        num_killed += process.returncode != 0
    assert num_killed == kills
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert table_of(sweep) == table_of(expected)
    assert sorted(entry.name for entry in sweep.iterdir()) == sorted(entry.name for entry in expected.iterdir())
    for row in list_sweep_runs(sweep):
        assert_same_run(sweep / row["run"], expected / row["run"])
