"""Reports of exercises as text, and in the formats of Gradescope and JUnit."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from jaxlm.course.exercises import number_of
from jaxlm.course.judge import Report

_MAX_SHOWN = 3  # failing laws of an exercise in a text; the other formats have all
_MAX_PRINTED = 10  # lines


def format_report(report: Report) -> str:
    """Return a report as text: the file, and the first laws that fail with the smallest input that breaks them."""
    verdict = "passes" if report.passed else "does not pass"
    num_kept = sum(row["passed"] for row in report.rows)
    laws = f", {num_kept} of {len(report.rows)} laws hold" if report.rows else ""
    lines = [f"{report.exercise}: {verdict}{laws}"]
    if report.sha256:
        lines.append(f"{report.file}, sha256 {report.sha256}")
    if report.borrowed:
        lines.append(f"borrowed: {', '.join(report.borrowed)}")
    if report.problem:
        lines.append(report.problem)
    failing = [row for row in report.rows if not row["passed"]]
    missing, untraced, broken = dict[str, None](), dict[str, list[str]](), []
    for row in failing:
        if row["failure"]["actual"] == "not written yet":
            missing[row["failure"]["expected"]] = None  # without duplicates
        elif row["failure"]["actual"].startswith("not judged"):
            untraced.setdefault(row["failure"]["actual"], []).append(row["law"])
        else:
            broken.append(row)
    if missing:
        lines.append("not written yet: " + ", ".join(missing).replace("the function ", ""))
    reasons: dict[str, dict[str, Any]] = {}
    for row in sorted(broken, key=_is_cause, reverse=True):
        reasons.setdefault(_reason_of(row), row)
    shown = list(reasons.values())[:_MAX_SHOWN]
    lines += [f"{row['law']}: {explain(row)}" for row in shown]
    if num_more := len(broken) - len(shown):
        lines.append(f"{num_more} more {'law fails' if num_more == 1 else 'laws fail'}; --json shows all")
    lines += [f"{reason}: {', '.join(laws)}" for reason, laws in untraced.items()]
    for row in [row for row in failing if row.get("borrow")][:1]:
        numbers = ",".join(str(number_of(name)) for name in row["borrow"])
        lines.append(
            f"{row['law']} holds with our {', '.join(row['borrow'])}: check them, or use --borrow {numbers}"
        )
    if printed := report.printed.strip().splitlines():
        lines += ["printed (the end):", *printed[-_MAX_PRINTED:]]
    return "\n    ".join("\n".join(lines).splitlines())


def _reason_of(row: dict[str, Any]) -> str:
    """Return what laws have in common that fail for one reason: the exception, else the law itself."""
    return str(row["failure"]["actual"] if row["failure"]["expected"] == "no exception" else row["law"])


def _is_cause(row: dict[str, Any]) -> bool:
    """Return whether a failure makes other laws fail: a changed argument, or a tracer that is read."""
    changes_argument = row["law"] == "arguments_do_not_change" and row["failure"]["expected"] != "no exception"
    return changes_argument or "is a tracer" in row["failure"]["actual"]


def explain(row: dict[str, Any]) -> str:
    """Return the sentence of a law that fails, then the input, the expected and the actual value."""
    failure = row["failure"]
    calls = f"{failure['calls']}: " if failure["calls"] else ""
    return f"{row['sentence']}\n{calls}expected {failure['expected']}, got {failure['actual']}"


def _cases(report: Report) -> list[tuple[str, str]]:
    """Return the name of each law, and why it does not count, "" if it holds. Without laws, there is one case."""
    problem = report.problem or ("" if report.rows else "no law was judged")
    cases = [(row["law"], problem or ("" if row["passed"] else explain(row))) for row in report.rows]
    return cases or [("judged", problem)]


def to_gradescope(reports: Sequence[Report]) -> str:
    """Return the `results.json` of a Gradescope autograder: a test with one point for each law."""
    tests = []
    for report in reports:
        header = f"{report.file}, sha256 {report.sha256}, borrowed: {', '.join(report.borrowed) or 'nothing'}"
        for law, reason in _cases(report):
            test = {"name": f"{report.exercise}: {law}", "output": f"{reason}\n{header}".strip()}
            verdict = {"score": 0, "status": "failed"} if reason else {"score": 1, "status": "passed"}
            tests.append(test | verdict | {"max_score": 1})
    return json.dumps({"tests": tests}, indent=2) + "\n"


def to_junit(reports: Sequence[Report]) -> str:
    """Return a JUnit XML document: a suite for each exercise, and a case for each law."""
    root = ET.Element("testsuites")
    for report in reports:
        cases = _cases(report)
        suite = ET.SubElement(root, "testsuite", name=report.exercise, time=f"{report.seconds:.3f}")
        suite.attrib |= {"tests": str(len(cases)), "failures": str(sum(bool(reason) for _, reason in cases))}
        properties = ET.SubElement(suite, "properties")
        facts = {"file": report.file, "sha256": report.sha256, "borrowed": " ".join(report.borrowed)}
        for name, value in facts.items():
            ET.SubElement(properties, "property", name=name, value=value)
        for law, reason in cases:
            case = ET.SubElement(suite, "testcase", classname=report.exercise, name=law)
            if reason:
                ET.SubElement(case, "failure", message=_printable(reason))
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """Replace the characters that XML forbids."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)
