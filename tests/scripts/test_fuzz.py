"""Mutated files are refused or keep their meaning, and the fuzzer reports each kind of violation."""

import itertools
import sys
from pathlib import Path

import pytest

import jaxlm
from jaxlm.text.tokenizer_files import load_tokenizer

FOLDER = Path(__file__).parents[2] / "scripts" / "stress"


@pytest.fixture(scope="module")
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        import fuzz

        yield fuzz
        for name in ("fuzz", "targets", "mutations", "model_mutations"):
            sys.modules.pop(name, None)


def run(fuzz, inputs, seed):
    """Return the number of violations and what was printed."""
    lines = []
    return fuzz.run(iter(inputs), seed, lines.append), "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("num_inputs", [80, pytest.param(3000, marks=pytest.mark.stress)])
def test_mutated_files_cause_no_violation(fuzz, num_inputs):
    violations, text = run(fuzz, range(num_inputs), seed=1)
    assert violations == 0, text
    inputs, refused, same, other = map(int, text.splitlines()[-1].split()[1:5])
    assert inputs == refused + same + other == num_inputs
    assert refused > num_inputs / 2
    assert min(same, other) > 1


@pytest.fixture
def run_one(fuzz, monkeypatch):
    """Run one mutated tokenizer file through a given reader."""

    def make_originals(folder):
        jaxlm.ByteTokenizer().save(folder / "tokenizer")
        return {"tokenizer": [folder / "tokenizer"]}

    monkeypatch.setattr(fuzz, "make_originals", make_originals)
    monkeypatch.setattr(fuzz, "TARGETS", {"tokenizer": 1})
    monkeypatch.setattr(fuzz, "KINDS", {"tokenizer": ["bits"]})

    def run_with(read):
        def load(target, path):
            return read(path) if path.parent.name == "inputs" else load_tokenizer(path)

        monkeypatch.setattr(fuzz, "load", load)
        return run(fuzz, [0], seed=7)

    return run_with


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("characters"), "KeyError: 'characters'"),
        (MemoryError(), "MemoryError"),
        (OSError(12, "Cannot allocate memory"), "out of memory"),
        (BaseException("a panic"), "BaseException: a panic"),
    ],
    ids=repr,
)
def test_run_reports_an_unexpected_error(run_one, error, message):
    def fail(path):
        raise error

    violations, text = run_one(fail)
    assert violations == 1
    assert f"VIOLATION --seed 7 --only 0: {message}" in text


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda path: (path.parents[1] / "canary").write_text("x"), "files changed"),
        (lambda path: (path.parent / "new").touch(), "files changed"),
        (lambda path: [0] * 2**25, "MiB of memory for an input of"),
    ],
    ids=["file written", "file created", "memory"],
)
def test_run_reports_a_side_effect(run_one, act, message):
    def act_and_refuse(path):
        act(path)
        raise ValueError("refused")

    violations, text = run_one(act_and_refuse)
    assert violations == 1
    assert message in text


def test_run_reports_a_hang(run_one, fuzz, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.1)
    violations, text = run_one(lambda path: next(number for number in itertools.count() if number < 0))
    assert violations == 1
    assert "no result after 0 s" in text


class LossyTokenizer(jaxlm.ByteTokenizer):
    def decode(self, ids):
        return ""


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (jaxlm.CharTokenizer("xyz"), "accepted with other content"),
        (LossyTokenizer(), "the accepted input cannot be used: AssertionError"),
    ],
    ids=["other", "lossy"],
)
def test_run_reports_a_wrong_result(run_one, result, message):
    violations, text = run_one(lambda path: result)
    assert violations == 1
    assert message in text


def test_run_accepts_a_refusal(run_one):
    def refuse(path):
        raise ValueError("checksum mismatch")

    violations, text = run_one(refuse)
    assert violations == 0
    assert text.splitlines()[-1].split()[:5] == ["all", "1", "1", "0", "0"]
