"""`jaxlm course`."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from jaxlm.cli.shared import CommandOptions, Console
from jaxlm.course.exercises import EXERCISES, find_exercises, read_hints, read_solution
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.terminal import escape_controls, print_plain

if TYPE_CHECKING:
    from jaxlm.course.judge import Report

Exercise = Annotated[str, Positional, arg(metavar="EXERCISE")]
Exercises = Annotated[tuple[str, ...], Positional, arg(metavar="[EXERCISE ...]")]


@dataclass(frozen=True)
class NewOptions(CommandOptions):
    """Create a folder with the exercises, a notebook and a README. Existing files are kept."""

    folder: Annotated[Path, Positional, arg(metavar="DIR")]


@dataclass(frozen=True)
class StatusOptions(CommandOptions):
    """Show what is written and answered. Nothing runs: `check` says what passes."""

    folder: Path = Path()  # Directory with the exercises.


@dataclass(frozen=True)
class JudgeOptions(CommandOptions):
    """Options of judging exercises."""

    exercises: Exercises = ()  # Numbers, ranges such as 1-3, or file names. None means all.
    folder: Path = Path()  # Directory with the exercises.
    seed: int = 0  # Seed of the laws' random inputs.
    borrow: str | None = None  # Exercises for which our solutions are used, such as 1-3 or 1,4.
    laws: Path | None = None  # Python file with more laws, a tuple LAWS.


@dataclass(frozen=True)
class CheckOptions(JudgeOptions):
    """Judge exercises. The exit code is 1 if one does not pass."""

    watch: bool = False  # Judge again after each change of a file, until Ctrl-C.


@dataclass(frozen=True)
class ExportOptions(JudgeOptions):
    """Judge exercises, and write the reports to a file. The exit code is 1 if one does not pass."""

    gradescope: bool = False  # Write the JSON of a Gradescope autograder, results.json.
    junit: bool = False  # Write JUnit XML, junit.xml.
    out: Path | None = None  # Another path of the file.


@dataclass(frozen=True)
class HintOptions(CommandOptions):
    """Print a hint for an exercise."""

    exercise: Exercise
    step: Literal[1, 2, 3] = 1  # From the idea (1) to almost the code (3).


@dataclass(frozen=True)
class ResetOptions(CommandOptions):
    """Start an exercise again. Your file moves to archive/."""

    exercise: Exercise
    folder: Path = Path()  # Directory with the exercises.


@dataclass(frozen=True)
class SolutionOptions(CommandOptions):
    """Print our solution of an exercise."""

    exercise: Exercise


@dataclass(frozen=True)
class CourseOptions:
    """Learn with seven exercises, judged by laws: create, check, and get hints."""

    action: OmitSubcommandPrefixes[
        Annotated[NewOptions, subcommand("new")]
        | Annotated[StatusOptions, subcommand("status")]
        | Annotated[CheckOptions, subcommand("check")]
        | Annotated[HintOptions, subcommand("hint")]
        | Annotated[ResetOptions, subcommand("reset")]
        | Annotated[SolutionOptions, subcommand("solution")]
        | Annotated[ExportOptions, subcommand("export")]
    ]

    @property
    def json(self) -> bool:
        """Whether to print a JSON document."""
        return self.action.json


def run_course(options: CourseOptions, console: Console) -> dict[str, Any]:
    """Run an action of the coursework. The document has "passed" if exercises are judged."""
    from jaxlm.course.folder import create_folder, describe_folder, reset_exercise

    match options.action:
        case NewOptions(folder=folder):
            created = [str(path) for path in create_folder(folder)]
            next_step = "Read README.md, then `jaxlm course check 1`"
            print_plain(console, f"{folder}: {len(created)} new files. {next_step}")
            return {"created": created}
        case StatusOptions(folder=folder):
            rows = describe_folder(folder)
            for row in rows:
                answers = f"{row['answers']} of 3 answers"
                unwritten = f"; to write: {', '.join(row['unwritten'])}" if row["unwritten"] else ""
                print_plain(console, f"{row['exercise']}: {row['state']}, {answers}{unwritten}")
            print_plain(console, "`jaxlm course check` says which exercises pass")
            return {"exercises": rows}
        case HintOptions(exercise=exercise, step=step):
            name = _find_one(exercise)
            hint = read_hints(name)[step - 1].strip()
            print_plain(console, hint if step == 3 else f"{hint}\n(more: --step {step + 1})")
            return {"exercise": name, "step": step, "hint": hint}
        case ResetOptions(exercise=exercise, folder=folder):
            name = _find_one(exercise)
            archived = reset_exercise(folder, name)
            print_plain(console, f"{name}.py is new{f'; your file is {archived}' if archived else ''}")
            return {"exercise": name, "archived": None if archived is None else str(archived)}
        case SolutionOptions(exercise=exercise):
            name = _find_one(exercise)
            print_plain(console, read_solution(name))
            return {"exercise": name, "solution": read_solution(name)}
        case JudgeOptions() as judging:
            return _judge(judging, console)


def _find_one(word: str) -> str:
    """Return the name of one exercise."""
    names = find_exercises([word])
    if len(names) != 1:
        raise ValueError(f"EXERCISE must be one exercise, got {word}")
    return names[0]


def _judge(options: JudgeOptions, console: Console) -> dict[str, Any]:
    """Judge and show exercises, and write them to a file if requested."""
    from jaxlm.course.export import to_gradescope, to_junit

    if isinstance(options, ExportOptions) and options.gradescope == options.junit:
        raise ValueError("export needs one of --gradescope and --junit")
    names = find_exercises(options.exercises) or list(EXERCISES)
    reports = list(_judge_and_show(options, names, console))
    if isinstance(options, ExportOptions):
        convert, name = (to_junit, "junit.xml") if options.junit else (to_gradescope, "results.json")
        path = options.out or Path(name)
        write_atomically(path, convert(reports))
        print_plain(console, f"wrote {path}")
    if isinstance(options, CheckOptions) and options.watch:
        for changed in watch_files(options.folder, {report.exercise: report.sha256 for report in reports}):
            list(_judge_and_show(options, changed, console))
    passed = all(report.passed for report in reports)
    return {"passed": passed, "exercises": [report.as_json() for report in reports]}


def watch_files(folder: Path, seen: dict[str, str]) -> Iterator[list[str]]:
    """Yield the exercises whose checksum is not the one in `seen` or the last one. Never ends."""
    while True:
        now = {name: hash_file(folder / f"{name}.py") for name in seen}
        if changed := [name for name in seen if now[name] != seen[name]]:
            yield changed
        seen = now
        time.sleep(0.5)


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, or "" if it does not exist."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _judge_and_show(options: JudgeOptions, names: Sequence[str], console: Console) -> "Iterator[Report]":
    """Judge exercises and print each report."""
    from jaxlm.course.export import format_report
    from jaxlm.course.judge import judge_exercises

    borrowed = find_exercises(options.borrow.split(",")) if options.borrow else []
    names = [name for name in names if name not in borrowed]
    if not names:
        raise ValueError(f"--borrow {options.borrow} leaves no exercise to judge; name another one")
    laws = "" if options.laws is None else options.laws.read_text("utf-8")
    for report in judge_exercises(options.folder, names, borrowed=borrowed, seed=options.seed, extra_laws=laws):
        print_plain(console, escape_controls(format_report(report)))
        yield report
