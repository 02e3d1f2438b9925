"""`jaxlm course`: actions on a student's folder, exit codes and reports."""

import json
import time

import pytest

import jaxlm.cli.course as course_command
from jaxlm.cli import main
from jaxlm.course.exercises import EXERCISES, make_stub, read_solution
from jaxlm.course.judge import Report


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a new folder of the course, which is the working directory."""
    assert main(["course", "new", str(tmp_path / "my")]) == 0
    monkeypatch.chdir(tmp_path / "my")
    return tmp_path / "my"


@pytest.fixture
def judged(monkeypatch):
    """Judge without a process: a file passes if it has no hole. Return the calls."""
    calls = []

    def judge(folder, names, **options):
        calls.append((names, options))
        for name in names:
            failure = {"calls": "", "expected": "the function windows", "actual": "not written yet"}
            is_written = "NotImplementedError" not in (folder / f"{name}.py").read_text()
            law = {
                "law": "a_law",
                "sentence": "S.",
                "passed": is_written,
                "failure": None if is_written else failure,
            }
            yield Report(name, f"{name}.py", "0" * 64, list(options["borrowed"]), [law], None, "", 0.1)

    monkeypatch.setattr("jaxlm.course.judge.judge_exercises", judge)
    return calls


def test_new_writes_the_files_and_keeps_existing_ones(folder, capsys):
    names = {path.name for path in folder.iterdir()}
    assert names == {*(f"{name}.py" for name in EXERCISES), "notebook.py", "notebook.ipynb", "README.md"}
    (folder / "ex1_windows.py").write_text("mine")
    assert main(["course", "new", str(folder)]) == 0
    assert (folder / "ex1_windows.py").read_text() == "mine"
    assert "0 new files" in capsys.readouterr().out


def test_status_reads_the_files(folder, capsys):
    (folder / "ex1_windows.py").write_text(read_solution("ex1_windows"))
    (folder / "ex2_counts.py").write_text(make_stub("ex2_counts").replace("   >\n", "   > Because.\n", 2))
    (folder / "ex3_neural.py").write_text("def init_bigram(:")
    (folder / "ex4_sampling.py").unlink()
    capsys.readouterr()
    assert main(["course", "status", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["exercises"]
    assert [(row["state"], row["answers"]) for row in rows[:5]] == [
        ("written", 3),
        ("in progress", 2),
        ("not valid Python: line 1", 0),
        ("missing", 0),
        ("untouched", 0),
    ]


def test_check_exit_code_says_whether_all_pass(folder, judged, capsys):
    assert main(["course", "check", "1"]) == 1
    assert "ex1_windows: does not pass, 0 of 1 laws hold" in capsys.readouterr().out
    (folder / "ex1_windows.py").write_text(read_solution("ex1_windows"))
    assert main(["course", "check", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["passed"], document["exercises"][0]["passed"]) == (True, True)
    assert document["exercises"][0]["sha256"] == "0" * 64
    assert main(["course", "check"]) == 1
    assert [names for names, _ in judged] == [["ex1_windows"], ["ex1_windows"], list(EXERCISES)]


def test_check_passes_its_options_on(folder, judged, tmp_path, capsys):
    (tmp_path / "extra.py").write_text("LAWS = ()")
    words = ["check", "4", "--borrow", "1-2,6", "--seed", "7", "--laws", "../extra.py"]
    assert main(["course", *words]) == 1
    borrowed = ["ex1_windows", "ex2_counts", "ex6_reading"]
    assert judged == [(["ex4_sampling"], {"borrowed": borrowed, "seed": 7, "extra_laws": "LAWS = ()"})]
    assert "borrowed: ex1_windows, ex2_counts, ex6_reading" in capsys.readouterr().out


def test_check_of_a_borrowed_exercise_is_an_error(folder, judged, capsys):
    assert main(["course", "check", "1", "--borrow", "1"]) == 2
    assert "leaves no exercise to judge" in capsys.readouterr().err


def test_check_watch_judges_what_changed(folder, judged, monkeypatch):
    pauses = iter([lambda: (folder / "ex2_counts.py").write_text(read_solution("ex2_counts")), lambda: None])

    def sleep(seconds):
        try:
            next(pauses)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(course_command.time, "sleep", sleep)
    hashes = {name: course_command.hash_file(folder / f"{name}.py") for name in EXERCISES}
    changes = course_command.watch_files(folder, hashes)
    assert next(changes) == ["ex2_counts"]
    with pytest.raises(KeyboardInterrupt):
        next(changes)


def test_hint_has_three_steps(capsys):
    texts = []
    for step in "123":
        assert main(["course", "hint", "2", "--step", step]) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 3
    assert "--step 2" in texts[0]


def test_reset_archives_the_file(folder, capsys):
    (folder / "ex1_windows.py").write_text("mine")
    assert main(["course", "reset", "1"]) == 0
    (archived,) = (folder / "archive").iterdir()
    assert archived.read_text() == "mine"
    assert (folder / "ex1_windows.py").read_text() == make_stub("ex1_windows")
    assert str(archived.name) in capsys.readouterr().out


def test_solution_prints_our_file(capsys):
    assert main(["course", "solution", "6"]) == 0
    assert capsys.readouterr().out.strip() == read_solution("ex6_reading").strip()


def test_one_exercise_is_required_of_hint(capsys):
    assert main(["course", "hint", "1-2"]) == 2
    assert "EXERCISE must be one exercise, got 1-2" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "file"), [("--gradescope", "results.json"), ("--junit", "junit.xml")])
def test_export_writes_a_report(folder, judged, flag, file):
    assert main(["course", "export", flag]) == 1
    assert "ex7_curves: a_law" in (folder / file).read_text() or "<testsuites>" in (folder / file).read_text()


def test_export_without_a_format_is_an_error(folder, capsys):
    assert main(["course", "export"]) == 2
    assert "one of --gradescope and --junit" in capsys.readouterr().err


def test_untouched_stubs_pass_nothing(folder, capsys):
    begin = time.monotonic()
    assert main(["course", "check", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [(exercise["passed"], exercise["rows"]) for exercise in document["exercises"]] == [(False, [])] * 7
    assert time.monotonic() - begin < 5
