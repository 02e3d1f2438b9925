"""Reports as text, Gradescope's JSON and JUnit's XML."""

import json
import xml.etree.ElementTree as ET

import pytest

from jaxlm.course.export import format_report, to_gradescope, to_junit
from jaxlm.course.judge import Report


def row(law, actual=None):
    failure = None if actual is None else {"calls": f"{law}(1)", "expected": "2", "actual": actual}
    return {"law": law, "sentence": f"The sentence of {law}.", "passed": actual is None, "failure": failure}


def report(*rows, problem=None):
    return Report("ex1_windows", "a/ex1_windows.py", "abc", ["ex2_counts"], list(rows), problem, "hello\n", 1.5)


def test_format_report_shows_what_the_student_needs():
    missing = {"calls": "", "expected": "the function get_batch", "actual": "not written yet"}
    rows = [row("good"), row("bad", "3\x1b"), {**row("open", "3"), "failure": missing}]
    rows += [row("other", "4"), row("third", "4"), row("fourth", "4")]
    assert format_report(report(*rows)).splitlines() == [
        "ex1_windows: does not pass, 1 of 6 laws hold",
        "    a/ex1_windows.py, sha256 abc",
        "    borrowed: ex2_counts",
        "    not written yet: get_batch",
        "    bad: The sentence of bad.",
        "    bad(1): expected 2, got 3\x1b",
        "    other: The sentence of other.",
        "    other(1): expected 2, got 4",
        "    third: The sentence of third.",
        "    third(1): expected 2, got 4",
        "    1 more law fails; --json shows all",
        "    printed (the end):",
        "    hello",
    ]


def test_format_report_shows_an_exception_once():
    rows = [row("bad", "TypeError: x"), row("worse", "TypeError: x")]
    for each in rows:
        each["failure"]["expected"] = "no exception"
    text = format_report(report(*rows))
    assert text.count("TypeError") == 1
    assert "bad(1)" in text
    assert "1 more law fails" in text


def test_format_report_shows_causes_first():
    rows = [row("bad", "3"), row("unjudged", "not judged: needs jit"), row("jit_changes_nothing", "is a tracer")]
    lines = format_report(report(*rows, row("arguments_do_not_change", "4"))).splitlines()
    laws = [line.split(":")[0].strip() for line in lines if ": The sentence" in line]
    assert laws == ["jit_changes_nothing", "arguments_do_not_change", "bad"]
    assert "    not judged: needs jit: unjudged" in lines
    assert "0 of 4 laws hold" in lines[0]


def test_format_report_names_the_exercises_that_are_used():
    assert "--borrow" not in format_report(report(row("bad", "3")))
    text = format_report(report(row("bad", "3") | {"borrow": ["ex1_windows", "ex4_sampling"]}))
    assert "bad holds with our ex1_windows, ex4_sampling: check them, or use --borrow 1,4" in text


@pytest.mark.parametrize(
    ("judged", "passed"),
    [
        (report(), False),
        (report(row("good")), True),
        (report(row("good"), row("bad", "3")), False),
        (report(row("good"), problem="damaged"), False),
    ],
)
def test_report_passed(judged, passed):
    assert judged.passed is passed
    assert ("does not pass" in format_report(judged)) is not passed


def test_format_report_of_no_laws():
    assert format_report(report(problem="damaged")).startswith("ex1_windows: does not pass\n")


def test_to_gradescope_scores_each_law():
    tests = json.loads(to_gradescope([report(row("good"), row("bad", "3")), report()]))["tests"]
    assert [(test["name"], test["score"], test["status"]) for test in tests] == [
        ("ex1_windows: good", 1, "passed"),
        ("ex1_windows: bad", 0, "failed"),
        ("ex1_windows: judged", 0, "failed"),
    ]
    assert "bad(1): expected 2, got 3" in tests[1]["output"]
    assert "sha256 abc, borrowed: ex2_counts" in tests[0]["output"]


def test_to_gradescope_gives_no_point_to_a_damaged_result():
    (test,) = json.loads(to_gradescope([report(row("good"), problem="the result is damaged")]))["tests"]
    assert (test["score"], test["output"].splitlines()[0]) == (0, "the result is damaged")


def test_to_junit_counts_failures():
    (suite,) = ET.fromstring(to_junit([report(row("good"), row("bad", "3\x00"))]))
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("2", "1", "1.500")
    assert [case.get("name") for case in suite.findall("testcase[failure]")] == ["bad"]
    assert "got 3?" in suite.find("testcase/failure").get("message")
