"""ARPA files are read as models with the probabilities that the lines give."""

import tracemalloc

import jax
import numpy as np
import pytest
from arpa_texts import ARPA, log_prob, parse

import jaxlm


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA, "utf-8")
    return path


def test_read_arpa_gives_the_probabilities_of_the_lines(path):
    model, variables, words = jaxlm.read_arpa(path)
    assert words == ["<unk>", "<s>", "</s>", "a", "b"]
    assert (model.vocab_size, model.context_length) == (5, 2)
    contexts = np.stack(np.meshgrid(range(5), range(5)), axis=-1).reshape(-1, 2)
    found = np.asarray(jax.jit(model.apply)(variables, contexts))
    lines = parse(ARPA)
    for context, row in zip(contexts.tolist(), found, strict=True):
        expected = [log_prob(lines, [words[token] for token in context], word) for word in words]
        expected[1] = -np.inf  # <s> is never predicted
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_read_arpa_accepts_backoffs_of_0_in_the_highest_order(path):
    expected = jaxlm.read_arpa(path).variables
    path.write_text(replace("b a b", "b a b\t0"))
    jax.tree.map(np.testing.assert_array_equal, jaxlm.read_arpa(path).variables, expected)


def test_read_arpa_of_a_windows_editor(path):
    expected = jaxlm.read_arpa(path)
    path.write_bytes(b"\xef\xbb\xbf" + ARPA.replace("\n", "\r\n").encode())
    model, variables, words = jaxlm.read_arpa(path)
    assert (model, words) == (expected.model, expected.words)
    jax.tree.map(np.testing.assert_array_equal, variables, expected.variables)


def test_read_arpa_keeps_special_words_without_a_backoff(path):
    path.write_text(replace("0\t<s>\t-0.4", "-99\t<s>"))
    _, variables, words = jaxlm.read_arpa(path)
    assert words == ["<unk>", "<s>", "</s>", "a", "b"]
    assert variables["unigrams"][1] == -99


def test_read_arpa_targets_equal_apply(path):
    model, variables, _ = jaxlm.read_arpa(path)
    ids = np.random.default_rng(0).choice([0, 2, 3, 4], 500)
    batch = jaxlm.windows(ids, 2)
    expected = -np.asarray(jax.jit(model.apply)(variables, batch.contexts))[np.arange(498), batch.targets]
    np.testing.assert_allclose(jaxlm.window_nats(model, variables, ids), expected, rtol=1e-6)


def test_read_arpa_samples(path):
    model, variables, words = jaxlm.read_arpa(path)
    ids = jaxlm.sample(model, variables, [2, 1], 300, key=jax.random.key(0))
    assert words.index("<s>") not in ids[2:]


def test_read_arpa_with_a_tokenizer(path):
    tokenizer = jaxlm.CharTokenizer("abc")
    model, variables, words = jaxlm.read_arpa(path, tokenizer)
    assert words == ["a", "b", "c", "<unk>", "<s>", "</s>"]
    row = np.asarray(model.apply(variables, np.array([[0, 1]])))[0]
    lines = parse(ARPA)
    expected = [log_prob(lines, ["a", "b"], word) for word in ("a", "b", "<unk>", "<unk>", "<s>", "</s>")]
    np.testing.assert_allclose(row, [*expected[:4], -np.inf, expected[5]], rtol=1e-5)


def test_read_arpa_refuses_tokens_that_are_not_listed(tmp_path):
    (tmp_path / "lm.arpa").write_text(replace("a b\t", "a c\t"))
    with pytest.raises(ValueError, match="line 16: 'c' is not among the 1-grams"):
        jaxlm.read_arpa(tmp_path / "lm.arpa", jaxlm.CharTokenizer("abc"))


def test_read_arpa_accepts_pruned_contexts_and_suffixes(tmp_path):
    text = "\\data\\\nngram 1=2\nngram 2=0\nngram 3=1\n\n\\1-grams:\n-.3\ta\t-.2\n-.4\tb\n\n\\2-grams:\n\n"
    (tmp_path / "lm.arpa").write_text(text + "\\3-grams:\n-0.1\ta b a\n\n\\end\\\n")
    model, variables, _ = jaxlm.read_arpa(tmp_path / "lm.arpa")
    found = np.asarray(model.apply(variables, np.array([[0, 1], [1, 0], [0, 0]])))
    np.testing.assert_allclose(found / np.log(10), [[-0.1, -0.4], [-0.5, -0.6], [-0.5, -0.6]], rtol=1e-5)


def test_read_arpa_survives_save_and_load(path, tmp_path):
    model, variables, _ = jaxlm.read_arpa(path)
    jaxlm.save_model(tmp_path / "model", model, variables)
    loaded, loaded_variables, _ = jaxlm.load_model(tmp_path / "model")
    assert loaded == model
    jax.tree.map(np.testing.assert_array_equal, variables, loaded_variables)


def replace(old, new):
    return ARPA.replace(old, new, 1)


INVALID = {
    "empty": ("", r"is truncated: it ends after line 0, before \\end\\"),
    "no head": ("hello\n", r"line 1: expected \\data\\, got 'hello'"),
    "a missing order": (replace("ngram 2=4\n", ""), r"line 4: expected ngram 2=SIZE, .*got 'ngram 3=2'"),
    "no orders": ("\\data\\\n\\end\\\n", "line 2: expected at least one 1-gram before"),
    "no words": ("\\data\\\nngram 1=0\n\\1-grams:\n\\end\\\n", "line 4: expected at least one 1-gram before"),
    "a missing section": (
        replace("\\3-grams:", "\\4-grams:"),
        r"line 20: expected \\3-grams:, got '\\\\4-grams:'",
    ),
    "a line too few": (
        replace("-0.9\t</s>\t0\n", ""),
        r"line 12: expected the log-probability and words of a 1-gram, and perhaps a backoff, got ''",
    ),
    "a line too many": (replace("-0.7\tb", "-9\tc\n-0.7\tb"), r"line 13: expected \\2-grams:, got '-0.7"),
    "truncated": (ARPA[:-10], r"line 22: expected the log-probability and words of a 3-gram, .*got '-0.15.*tb a'"),
    "no end": (replace("\\end\\\n", ""), r"is truncated: it ends after line 23"),
    "above 1": (replace("-0.5", "0.5"), "line 11: a log-probability must be at most 0.*got '0.5"),
    "not a number": (replace("-0.5", "nan"), "line 11: a log-probability must be at most 0"),
    **{
        f"not a number on line {line}: {text}": (
            replace(old, text),
            f"line {line}: expected numbers as log-probability and backoff",
        )
        for text in ("x", "-0_5", "-\u0660.\u0665", "-1e", "-0x1", "--1", "-.")
        for old, line in (("-0.5", 11), ("-0.05", 16))
    },
    "nan as a backoff": (replace("-0.25", "nan"), "line 11: .*a backoff at most 99"),
    "inf": (replace("-0.5", "inf"), "line 11: a log-probability must be at most 0"),
    "an unknown word": (replace("a b\t", "a c\t"), "line 16: 'c' is not among the 1-grams, got '-0.6"),
    "a word twice": (replace("\tb\t", "\ta\t"), "line 12: this 1-gram is listed twice"),
    "an n-gram twice": (replace("-0.15\tb a b", "-9\t<s> a b"), "line 22: this 3-gram is listed twice"),
    "a backoff at the top": (
        replace("b a b", "b a b\t-1"),
        "line 22: expected no backoff, or 0, in the highest order, got",
    ),
    "an infinite backoff": (replace("-0.25", "inf"), "line 11: .*a backoff at most 99"),
    "too many orders": (
        "\\data\\\n" + "".join(f"ngram {order}=1\n" for order in range(1, 12)),
        "line 12: expected ngram 11=SIZE, with orders of at most 10",
    ),
    "another encoding": (replace("a b", "é b").encode("latin-1"), "line 16 is not UTF-8: byte 0xe9"),
}


@pytest.mark.parametrize(("content", "problem"), INVALID.values(), ids=INVALID)
def test_read_arpa_invalid(content, problem, tmp_path):
    (tmp_path / "lm.arpa").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"lm\.arpa(, | ){problem}") as caught:
        jaxlm.read_arpa(tmp_path / "lm.arpa")
    assert "\n" not in str(caught.value)


def test_read_arpa_does_not_trust_sizes(tmp_path):
    (tmp_path / "lm.arpa").write_text(ARPA.replace("ngram 3=2", "ngram 3=999999999999"))
    tracemalloc.start()
    with pytest.raises(ValueError, match="line 23: expected the log-probability and words of a 3-gram"):
        jaxlm.read_arpa(tmp_path / "lm.arpa")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
