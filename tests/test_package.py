"""Folders import downwards, public names resolve and have examples, and importing jaxlm is cheap."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import jaxlm

PACKAGE = Path(jaxlm.__file__).parent
EXPERIMENTS = PACKAGE.parent / "experiments"
# A folder imports only itself and the folders before it.
FOLDERS = [
    "utils",
    "text",
    "devices",
    "models",
    "evaluation",
    "training",
    "sampling",
    "checkpoints",
    "runs",
    "course",
    "cli",
]
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports_of(path):
    """Yield every module that a file imports, at the top, in a function, or for types."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import on line {node.lineno}"
            yield from [node.module] if node.module != "jaxlm" else []
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_package_holds_only_known_folders():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(FOLDERS)


@pytest.mark.parametrize("file", [file for file in FILES if "/" in file])
def test_folder_imports_downwards(file):
    folder = file.split("/")[0]
    allowed = FOLDERS[: FOLDERS.index(folder) + 1]
    for module in imports_of(PACKAGE / file):
        parts = module.split(".")
        assert module != "jaxlm" or folder == "cli", f"{file} imports the whole package"
        if parts[0] == "jaxlm" and len(parts) > 1 and parts[1] in FOLDERS:
            assert parts[1] in allowed, f"{file} imports {module}"


@pytest.mark.parametrize(("library", "folder"), [("flax", "models/"), ("orbax", "checkpoints/")])
def test_library_has_one_importing_folder(library, folder):
    importers = [file for file in FILES if library in {name.split(".")[0] for name in imports_of(PACKAGE / file)}]
    assert importers
    assert all(file.startswith(folder) for file in importers)


def test_experiments_import_no_other():
    paths = sorted(EXPERIMENTS.rglob("*.py"))
    names = {path: ".".join(path.relative_to(EXPERIMENTS.parent).with_suffix("").parts) for path in paths}
    runnable = {names[path] for path in paths if '\nif __name__ == "__main__":' in path.read_text("utf-8")}
    assert len(runnable) >= 10
    for path in paths:
        assert not runnable & set(imports_of(path)), path


@pytest.mark.parametrize("file", FILES)
def test_package_executes_nothing_it_reads(file):
    unpicklers = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    assert not unpicklers & {module.split(".")[0] for module in imports_of(PACKAGE / file)}
    for node in ast.walk(ast.parse((PACKAGE / file).read_text("utf-8"))):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec", "__import__"})
            assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize("name", jaxlm.__all__)
def test_public_name_resolves_and_has_an_example(name):
    assert name in dir(jaxlm)
    documentation = getattr(jaxlm, name).__doc__
    assert ">>>" in documentation or name == "TrainConfig"  # whose docstring is the help text of `jaxlm train`


@pytest.mark.skipif(os.environ.get("JAXTYPING_DISABLE") == "1", reason="array types are not checked")
def test_array_types_of_the_core_are_checked():
    contexts = np.zeros((1, 1), np.float32)
    with pytest.raises(TypeCheckError, match="'contexts'"):
        jaxlm.compute_logits(jaxlm.UniformLM(3), {}, contexts)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="trigram"):
        jaxlm.trigram  # noqa: B018


def test_version_is_that_of_the_project():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == jaxlm.__version__


@pytest.mark.slow
def test_import_loads_no_heavy_library():
    heavy = "{'jax', 'numpy', 'flax', 'optax', 'orbax', 'matplotlib', 'tokenizers', 'rich'}"
    program = f"import sys, jaxlm; dir(jaxlm); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
