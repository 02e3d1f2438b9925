"""What the README shows, runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=["library", "own_model"])
def test_a_block_of_code_runs_as_it_stands(block, tmp_path, request):
    if "load_corpus" in block:
        request.getfixturevalue("tinyshakespeare")
    (tmp_path / "block.py").write_text(block, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "block.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "# 11.96" in block:
        assert float(done.stdout.split()[0]) == pytest.approx(11.96, abs=0.005)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_a_link_leads_somewhere(path):
    assert (ROOT / path).exists()


def test_every_script_is_named():
    for script in (ROOT / "scripts").iterdir():
        assert script.suffix or f"`{script.name}`" in README or f"scripts/{script.name}" in README
