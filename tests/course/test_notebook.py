"""The notebook is valid, and runs on a student's functions, as a notebook and as a script."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from jaxlm.course.exercises import EXERCISES, read_solution
from jaxlm.course.folder import create_folder
from jaxlm.course.notebook import side_by_side, to_ipynb

PICTURES = {"counts.png", "curves of the neural bigram.png", "curves of the MLP.png"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a new folder of the course. Without corpora, the notebook trains on the folder's files."""
    create_folder(tmp_path / "my")
    monkeypatch.setenv("JAXLM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return tmp_path / "my"


def test_to_ipynb_makes_cells():
    notebook = json.loads(to_ipynb("# %% [markdown]\n# # Title\n#\n# Text\n\n# %%\nx = 1\n\nx + 1\n"))
    nbformat.validate(notebook)
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells == [("markdown", "# Title\n\nText"), ("code", "x = 1\n\nx + 1")]


def test_side_by_side():
    lines = list(side_by_side({"a": "12345\n6", "b": "7"}, width=3, height=4))
    assert lines == ["a   | b  ", "123 | 7  ", "45  |    ", "6   |    ", "    |    "]


@pytest.mark.slow
def test_notebook_runs_on_solutions(folder):
    for name in EXERCISES:
        (folder / f"{name}.py").write_text(read_solution(name))
    nbclient = importlib.import_module("nbclient")
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(
        output.text for output in outputs if output.output_type == "stream" and output.name == "stdout"
    )
    assert printed.count("your functions") == 7
    assert {output.output_type for output in outputs} == {"stream", "display_data"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == len(PICTURES)


@pytest.mark.slow
def test_notebook_runs_as_a_script_on_stubs(folder):
    command = [sys.executable, "notebook.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("our functions, until yours pass") == 7
    assert "real text" in done.stdout
    assert {path.name for path in Path(folder, "pictures").iterdir()} == PICTURES
