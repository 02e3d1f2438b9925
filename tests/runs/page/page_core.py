"""Run the core of the page under Node, and compare it with Python."""

import json
import shutil
import subprocess

import pytest

from jaxlm.runs.page.build import read_scripts


def run_core(expression, **values):
    """Return the value of a JavaScript expression, which can use the functions of the core and `values`."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    program = f"""{read_scripts("core")}
const {{ {", ".join(values)} }} = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify({expression}));"""
    text = json.dumps(values)
    finished = subprocess.run([node, "--eval", program], input=text, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)
