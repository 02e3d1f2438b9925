"""A small part of what `scripts/fuzz` does, and that it sees what it is there to see."""

import importlib.util
import itertools
from pathlib import Path

import pytest

import jaxlm

SCRIPT = Path(__file__).parents[2] / "scripts" / "stress" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    if not SCRIPT.exists():
        pytest.skip("the scripts are not part of what is installed")
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(fuzz, inputs, seed=0):
    """The number of violations, and what was printed."""
    lines = []
    return fuzz.run(iter(inputs), seed, lines.append), "\n".join(lines)


@pytest.mark.slow
def test_mutated_inputs_are_refused_in_plain_words_or_mean_what_they_did(fuzz):
    violations, text = run(fuzz, range(300), seed=1)
    assert violations == 0, text
    total = text.splitlines()[-1].split()
    assert total[:2] == ["all", "300"]
    refused, same, other = map(int, total[2:5])
    assert refused + same + other == 300
    assert refused > 200
    assert same > 3
    assert other > 3


@pytest.fixture
def reading(fuzz, monkeypatch):
    """Runs one input, a tokenizer's file, through the given function; its original through the library's own."""

    def make_originals(folder):
        jaxlm.ByteTokenizer().save(folder / "tokenizer")
        return {"tokenizer": [folder / "tokenizer"]}

    monkeypatch.setattr(fuzz, "make_originals", make_originals)
    monkeypatch.setattr(fuzz, "TARGETS", {"tokenizer": 1})
    monkeypatch.setattr(fuzz, "KINDS", {"tokenizer": ["bits"]})

    def run_with(read):
        own = jaxlm.tokenizers.load_tokenizer
        load = lambda path: read(path) if path.parent.name == "inputs" else own(path)  # noqa: E731
        monkeypatch.setattr(jaxlm, "load_tokenizer", load)
        return run(fuzz, [0], seed=7)

    return run_with


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (KeyError("characters"), "KeyError: 'characters'"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "MemoryError"),
        (OSError(12, "Cannot allocate memory"), "memory ran out"),
        (BaseException("a panic"), "BaseException: a panic"),
    ],
    ids=repr,
)
def test_an_error_of_another_kind_is_a_violation_with_its_index(reading, fault, message):
    def fail(path):
        raise fault

    violations, text = reading(fail)
    assert violations == 1
    assert f"VIOLATION --seed 7 --only 0: {message}" in text


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda path: (path.parents[1] / "canary").write_text("x"), "files have changed"),
        (lambda path: (path.parents[1] / "new").touch(), "files have changed"),
        (lambda path: (path.parent / "beside").touch(), "files have changed"),
        (lambda path: [0] * 2**25, "MiB of memory for an input of"),
    ],
    ids=["a file written", "a file made", "a file made beside", "memory"],
)
def test_what_an_input_makes_its_reader_do_is_a_violation(reading, act, message):
    def act_and_refuse(path):
        act(path)
        raise ValueError("refused in the end")

    violations, text = reading(act_and_refuse)
    assert violations == 1
    assert message in text


def test_a_hang_is_a_violation(reading, fuzz, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.1)
    violations, text = reading(lambda path: next(number for number in itertools.count() if number < 0))
    assert violations == 1
    assert "no answer in 0 s" in text


class LossyTokenizer(jaxlm.ByteTokenizer):
    def decode(self, ids):
        return ""


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (jaxlm.CharTokenizer("xyz"), "accepted as another than it was"),
        (LossyTokenizer(), "what was accepted cannot be used: AssertionError"),
    ],
    ids=["another", "lossy"],
)
def test_a_wrong_result_is_a_violation(reading, found, message):
    violations, text = reading(lambda path: found)
    assert violations == 1
    assert message in text


def test_a_refusal_is_none(reading):
    def refuse(path):
        raise ValueError("it is damaged")

    violations, text = reading(refuse)
    assert violations == 0
    assert text.splitlines()[-1].split()[:5] == ["all", "1", "1", "0", "0"]
