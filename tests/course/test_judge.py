"""Exercises are judged in a process of their own, and no hostile file passes."""

import hashlib
import os
import signal
import threading
import time

import pytest

from jaxlm.course.exercises import EXERCISES, make_stub, read_solution
from jaxlm.course.judge import Limits, judge_exercises

pytestmark = pytest.mark.slow
WRONG = read_solution("ex1_windows").replace("- context_length)", "- context_length - 1)")
TAIL = "def own_law"


@pytest.fixture
def judge(tmp_path):
    """Return a function that judges the text of an exercise, with solutions of the others."""

    def run(text, name="ex1_windows", **options):
        for other in EXERCISES:
            (tmp_path / f"{other}.py").write_text(text if other == name else read_solution(other))
        (report,) = judge_exercises(tmp_path, [name], **options)
        return report

    return run


def failures(report):
    return {row["law"]: row["failure"] for row in report.rows if not row["passed"]}


def test_solution_passes_with_its_checksum(judge):
    text = read_solution("ex1_windows")
    report = judge(text)
    assert report.passed, report
    assert report.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert len(report.rows) == 16


def test_stub_does_not_pass_and_is_not_run(judge):
    report = judge(make_stub("ex1_windows").replace("   >\n", "   > Because.\n"))
    assert (report.passed, report.rows) == (False, [])
    assert report.problem.startswith("not written yet")
    assert report.seconds < 0.5


def test_half_written_file_passes_the_laws_of_its_functions(judge):
    text = read_solution("ex1_windows").replace(
        "    starts = jax.random", "    raise NotImplementedError\n    starts = jax.random"
    )
    report = judge(text)
    assert {failure["expected"] for failure in failures(report).values()} == {"the function get_batch"}
    assert {"every_window_once", "own_law"} <= {row["law"] for row in report.rows if row["passed"]}


def test_missing_file_does_not_pass(tmp_path):
    (report,) = judge_exercises(tmp_path, ["ex1_windows"])
    assert not report.passed
    assert "jaxlm course new" in report.problem


def test_later_exercise_uses_the_borrowed_earlier_one(tmp_path):
    (tmp_path / "ex1_windows.py").write_text(make_stub("ex1_windows"))
    (tmp_path / "ex4_sampling.py").write_text(read_solution("ex4_sampling"))
    (own,) = judge_exercises(tmp_path, ["ex4_sampling"])
    assert failures(own)["uniform_perplexity_is_v"]["expected"] == "the function windows"
    (borrowing,) = judge_exercises(tmp_path, ["ex4_sampling"], borrowed=["ex1_windows"])
    assert borrowing.passed, borrowing
    assert borrowing.borrowed == ["ex1_windows"]


@pytest.mark.parametrize("name", ["ex1_windows", "ex4_sampling"])
def test_fault_is_found_in_the_exercise_that_is_used(tmp_path, name):
    for other in ("ex1_windows", "ex4_sampling"):
        text = read_solution(other)
        faulty = text.replace("return rows[:, :-1]", "return 0 * rows[:, :-1]").replace(
            "exp(total", "exp(2 * total"
        )
        (tmp_path / f"{other}.py").write_text(faulty if other == name else text)
    (report,) = judge_exercises(tmp_path, ["ex4_sampling"])
    row = next(row for row in report.rows if row["law"] == "perplexity_weighs_windows_equally")
    assert not row["passed"]
    assert row.get("borrow") == (["ex1_windows"] if name == "ex1_windows" else None)


HOSTILE = {
    "exit": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "exit_at_once": ("import os; os._exit(0)", "ended (code 0)"),
    "own_exception": ("class E(BaseException): pass\ndef windows(ids, n): raise E", "ended (code 1)"),
    "syntax": ("def windows(:", "SyntaxError"),
    "output": ("for _ in range(2**14): print('x' * 2**16)", "File too large"),
    "memory": ("def windows(ids, n): return [0] * 10**10", "MemoryError"),
    "fork": ("import os; os.fork()", "must not use os.fork"),
    "subprocess": ("import subprocess; subprocess.run(['true'])", "must not use subprocess.Popen"),
    "multiprocessing": (
        "import multiprocessing as m; m.get_context('spawn').Process(target=print).start()",
        "must not use multiprocessing",
    ),
    "kill_parent": ("import os; os.kill(os.getppid(), 9)", "must not use os.kill"),
    "models": ("import jaxlm.models", "must not import jaxlm"),
    "solutions": ("from jaxlm.course.solutions.ex1_windows import *", "must not import jaxlm"),
    "reference": ("import importlib; importlib.import_module('jaxlm.reference')", "must not import jaxlm"),
    "read_solution": (
        "import sys; open(sys.path[-1] + '/jaxlm/course/solutions/ex1_windows.py')",
        "must not use the files of jaxlm",
    ),
    "read_solution_by_bytes": (
        "import os, sys; open(os.fsencode(sys.path[-1]) + b'/jaxlm/course/solutions/ex1_windows.py')",
        "must not use the files of jaxlm",
    ),
    "open_parent_folder": (
        "import os, sys; os.open(sys.path[-1], os.O_RDONLY)",
        "must not use the files of jaxlm",
    ),
    "find_solution": ("import gc; gc.get_objects()", "must not use gc.get_objects"),
    "result_pipe": (
        "import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'{}')\n  except OSError: pass",
        "the result is damaged",
    ),
    "close_all": ("import os; os.closerange(3, 64)", ""),
    "patched_writer": (
        "from json import encoder\n"
        'encoder.JSONEncoder.encode = lambda *a: \'{"rows": [{"passed": true}], "problem": null}\'\n'
        "raise SystemExit",
        "must not change JSONEncoder.encode",
    ),
    "redirected_messages": (
        "import os\npipes = [os.dup(fd) for fd in range(3, 9) if os.path.exists(f'/dev/fd/{fd}')]\n"
        "for fd in range(3, 9): os.dup2(2, fd)\n"
        "def own_law(*_):\n"
        "  signature = os.pread(2, 10**6, 0).split()[0]\n"
        '  for fd in pipes: os.write(fd, signature + b\' {"rows": [{"passed": true}], "problem": null}\\n\')\n'
        "  os._exit(0)",
        "",
    ),
    "patched_numpy": (
        "import numpy as np\nnp.allclose = np.testing.assert_allclose = lambda *a, **k: True",
        "must not change numpy.",
    ),
    "patched_checker": (
        "def windows(*_):\n  import sys\n  checker = sys._getframe(1)\n"
        "  while 'is_equal' not in checker.f_globals: checker = checker.f_back\n"
        "  checker.f_globals['is_equal'].__code__ = (lambda a, b: True).__code__\n  return 1, 2",
        "must not change jaxlm.course.law.is_equal",
    ),
    "forged_eq": (
        "class A:\n  def __eq__(self, o): return True\n  __hash__ = None\ndef windows(ids, n): return A(), A()",
        "a result must consist of arrays",
    ),
}


# The others take a minute together.
IN_CI = {"exit", "fork", "forged_eq", "models", "output", "patched_numpy", "result_pipe"}
HOSTILE_FILES = [pytest.param(name, marks=() if name in IN_CI else pytest.mark.stress) for name in HOSTILE]


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_hostile_file_does_not_pass(judge, name):
    code, reason = HOSTILE[name]
    report = judge(f"{WRONG}\n{code}\n")
    assert not report.passed
    assert reason in str((report.problem, failures(report)))
    assert report.seconds < 120


def test_endless_loop_ends_within_its_limit(judge):
    loop = "\ndef windows(*_):\n  while True: pass\n"
    report = judge(WRONG + loop, limits=Limits(seconds_per_law=5))
    assert report.problem.startswith("stopped in every_window_once, after 5 s")
    assert report.seconds < 20


@pytest.mark.stress
def test_exercise_ends_within_its_limit(judge):
    report = judge(WRONG + "\nimport time; time.sleep(100)\n", limits=Limits(seconds=10))
    assert report.problem.startswith("stopped in the import of ex1_windows.py, after 10 s")
    assert report.seconds < 15


def test_interrupt_ends_the_exercises(judge):
    main_thread = threading.main_thread().ident
    threading.Timer(4, signal.pthread_kill, [main_thread, signal.SIGINT]).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        judge(WRONG + "\nwhile True: pass\n")
    assert time.monotonic() - begin < 20


def test_modules_in_the_folder_are_not_imported(judge, tmp_path):
    for name in ("jax", "numpy", "pytest", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(0)")
    assert judge(read_solution("ex1_windows")).passed


def test_environment_is_not_passed_on(judge, monkeypatch):
    monkeypatch.setenv("JAXLM_TEST_SECRET", "1")
    report = judge(read_solution("ex1_windows") + "\nimport os; print(sorted(os.environ))\n")
    assert "HOME" in report.printed or "HOME" not in os.environ
    assert "JAXLM_TEST_SECRET" not in report.printed


OWN_LAWS = {
    "true": ("yield True, True", "0 caught"),
    "none": ("yield from ()", "none"),
    "false": ("yield 0, 1", "1"),
    "return": ("return [(1, 1)]", "TypeError: own_law must `yield` pairs (expected, actual)"),
    "asserts": ("assert True", "TypeError: own_law must `yield` pairs (expected, actual)"),
    "no_pairs": ("yield 1", "TypeError: own_law must `yield` pairs (expected, actual)"),
    "counting": ("calls.append(1)\n    yield True, len(calls) == 1", "False"),
    "endless": ("while True: yield 0, 0", "0 caught"),
}


LAWS_IN_CI = [
    pytest.param(name, marks=() if name in {"return", "counting"} else pytest.mark.stress) for name in OWN_LAWS
]


@pytest.mark.parametrize("name", LAWS_IN_CI)
def test_own_law_that_says_nothing_is_refused(judge, name):
    body, actual = OWN_LAWS[name]
    text = read_solution("ex1_windows").partition(TAIL)[0]
    report = judge(f"{text}calls = []\n\n\ndef own_law(course, random):\n    {body}\n")
    assert failures(report).keys() == {"own_law"}
    assert failures(report)["own_law"]["actual"].startswith(actual)
    is_false = report.rows[-1]["sentence"] == "Your law is false for a correct solution."
    assert is_false == (name in {"false", "counting"})


@pytest.mark.stress
def test_seed_draws_other_inputs(judge):
    shown = [failures(judge(WRONG, seed=seed))["every_window_once"]["calls"] for seed in (0, 1)]
    assert shown[0] != shown[1]


def test_extra_laws_are_judged(judge):
    extra = (
        "from jaxlm.course.law import make_laws\n"
        "def windows_are_many(course, random):\n"
        "    '''There are a hundred windows.'''\n"
        "    yield 100, len(course.windows(random.integers(0, 9, 5), 2)[1])\n"
        "LAWS = make_laws(1, windows_are_many)\n"
    )
    report = judge(read_solution("ex1_windows"), extra_laws=extra)
    assert failures(report).keys() == {"windows_are_many"}
    assert len(report.rows) == 17
