"""Create a student's folder, describe it, and start an exercise again. Progress is derived from the files."""

import hashlib
from pathlib import Path
from typing import Any

from jaxlm.course.exercises import COURSE, EXERCISES, count_answers, find_unwritten, make_stub, read_student_readme
from jaxlm.course.notebook import to_ipynb
from jaxlm.utils.atomic_files import write_atomically


def create_folder(folder: Path) -> list[Path]:
    """Write the seven exercises, the notebook and a README. Existing files are kept. Return the new files."""
    walk = (COURSE / "notebook.py.txt").read_text("utf-8")
    contents = {f"{name}.py": make_stub(name) for name in EXERCISES}
    contents |= {"notebook.py": walk, "notebook.ipynb": to_ipynb(walk), "README.md": read_student_readme()}
    folder.mkdir(parents=True, exist_ok=True)
    created = [folder / name for name in contents if not (folder / name).exists()]
    for path in created:
        write_atomically(path, contents[path.name])
    return created


def describe_folder(folder: Path) -> list[dict[str, Any]]:
    """Return the state of each exercise: its unwritten functions and the number of answers, without running it."""
    rows = []
    for name, functions in EXERCISES.items():
        path, unwritten, num_answers = folder / f"{name}.py", [*functions, "own_law"], 0
        state = "missing"
        if path.exists():
            text = path.read_text("utf-8", "replace")
            num_answers = count_answers(text)
            try:
                unwritten = find_unwritten(text)
                state = "written" if not unwritten else "untouched" if text == make_stub(name) else "in progress"
            except SyntaxError as error:
                state = f"not valid Python: line {error.lineno}"
        rows.append({"exercise": name, "state": state, "unwritten": unwritten, "answers": num_answers})
    return rows


def reset_exercise(folder: Path, name: str) -> Path | None:
    """Write the stub of an exercise. Return where the student's file, if there is one, was moved to."""
    path, archived = folder / f"{name}.py", None
    if path.exists():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        archived = folder / "archive" / f"{name}-{digest}.py"
        archived.parent.mkdir(exist_ok=True)
        path.rename(archived)
    write_atomically(path, make_stub(name))
    return archived
