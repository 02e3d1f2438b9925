"""Runs that are killed and resumed end with the bits of an undisturbed run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "stress" / "kill_and_resume.py"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has neither SIGKILL nor fork")
@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.stress)])
def test_torture_ends_with_the_same_bits(kills, tmp_path):
    options = ["--kills", str(kills), "--most-kills", "1", "--seed", "1", "--out", str(tmp_path / "runs")]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\D+? +(\d+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    num_kills, resumed, identical, unreadable = (sum(map(int, column)) for column in zip(*rows, strict=True))
    assert (num_kills, resumed, identical, unreadable) == (kills, kills, kills, 0)
    assert done.stdout.endswith(f"{kills} of {kills} identical, 0 unreadable directories\n")
