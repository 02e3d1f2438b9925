"""Training that is killed at random moments ends as if nobody had; scripts/torture kills it more often."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TORTURE = Path(__file__).parents[2] / "scripts" / "stress" / "kill_and_resume.py"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there, no signal kills, and no process forks")
def test_four_runs_that_were_killed_end_with_the_same_bits(tmp_path):
    command = [sys.executable, str(TORTURE), "--kills", "4", "--most-kills", "1", "--seed", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path / "runs")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = {
        name: numbers.split() for name, numbers in re.findall(r"^(\D+?) +([\d ]+)$", done.stdout, re.MULTILINE)
    }
    killed = [[*map(int, row)] for row in table.values()]
    assert [sum(column) for column in zip(*killed, strict=True)] == [
        4,
        4,
        4,
        0,
    ]  # kills, resumed, identical, unreadable
    assert done.stdout.endswith("4 of 4 identical, 0 unreadable folders\n")
