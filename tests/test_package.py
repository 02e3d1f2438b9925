"""The shape of the package: imports go one way, names resolve, and importing it costs nothing."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jaxlm

PACKAGE = Path(jaxlm.__file__).parent
# A folder imports only folders before it in this list.
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
    "cli",
]
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
each_file = pytest.mark.parametrize("file", FILES)


def tree_of(file):
    return ast.parse((PACKAGE / file).read_text("utf-8"))


def imports_of(file):
    """Every module that `file` imports, wherever the statement stands: at the top, in a function, for types."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import on line {node.lineno}"
            if node.module == "jaxlm":
                yield from (f"jaxlm.{alias.name}" for alias in node.names if alias.name != "__version__")
            else:
                yield node.module


def test_package_holds_only_known_folders():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(FOLDERS)


@pytest.mark.parametrize("file", [file for file in FILES if "/" in file])
def test_imports_go_downwards(file):
    folder = file.split("/")[0]
    allowed = FOLDERS[: FOLDERS.index(folder) + 1]
    for module in imports_of(file):
        package, _, rest = module.partition(".")
        if package == "jaxlm" and rest:
            assert rest.split(".")[0] in allowed, f"{file} imports {module}"


@pytest.mark.parametrize(("library", "home"), [("flax", "models/"), ("orbax", "checkpoints/")])
def test_library_stays_behind_one_part(library, home):
    importers = {file for file in FILES for module in imports_of(file) if module.split(".")[0] == library}
    assert importers
    assert all(file.startswith(home) for file in importers)


@each_file
def test_nothing_runs_what_it_reads(file):
    unpicklers = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    assert not unpicklers & {module.split(".")[0] for module in imports_of(file)}
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec", "__import__"})
            assert "allow_pickle" not in {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize("name", jaxlm.__all__)
def test_public_name_resolves(name):
    assert getattr(jaxlm, name) is not None
    assert name in dir(jaxlm)


def test_all_is_what_type_checkers_see():
    """The imports under TYPE_CHECKING and `__all__` say the same, and both mean the same objects."""
    seen = [
        (node.module, alias.name)
        for node in ast.walk(tree_of("__init__.py"))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("jaxlm.")
        for alias in node.names
    ]
    assert sorted(name for _, name in seen) == jaxlm.__all__ == sorted(set(jaxlm.__all__))
    for module, name in seen:
        assert getattr(jaxlm, name) is getattr(importlib.import_module(module), name)


def test_dir_names_each_thing_once_and_all_of_it_resolves():
    names = dir(jaxlm)
    assert set(jaxlm.__all__) <= set(names)
    assert len(set(names)) == len(names)
    assert all(hasattr(jaxlm, name) for name in names)


@pytest.mark.slow
def test_star_import_gives_every_public_name():
    program = "import jaxlm; from jaxlm import *; print(sorted(set(jaxlm.__all__) - set(globals())))"
    finished = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert finished.stdout.strip() == "[]"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"'jaxlm' has no attribute 'trigram'"):
        jaxlm.trigram  # noqa: B018


def test_version_is_that_of_the_project():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert project.get("version", jaxlm.__version__) == jaxlm.__version__


def test_importing_the_package_imports_no_library():
    heavy = "{'jax', 'numpy', 'flax', 'optax', 'orbax', 'matplotlib', 'tokenizers', 'rich'}"
    program = f"import sys, jaxlm; dir(jaxlm); print(sorted({heavy} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert finished.stdout.strip() == "[]"
