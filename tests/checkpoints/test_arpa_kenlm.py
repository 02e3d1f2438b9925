"""KenLM and jaxlm agree on ARPA files of either program. Needs `pip install kenlm`, which compiles C++."""

import shutil
import subprocess

import numpy as np
import pytest
from arpa_texts import ARPA

import jaxlm

kenlm = pytest.importorskip("kenlm", reason="the Python module kenlm is not installed")
WORDS = np.random.default_rng(0).zipf(1.5, 12_000) % 40


def sentences_nats(path, sentences):
    """Return the nats of each word and end of sentence, by the recipe in `read_arpa`."""
    model, variables, words = jaxlm.read_arpa(path)
    ids = {word: index for index, word in enumerate(words)}
    text = ["</s>"] * (model.context_length - 1)
    for sentence in sentences:
        text += ["<s>", *sentence.split(), "</s>"]
    stream = np.array([ids.get(word, ids["<unk>"]) for word in text])
    nats = jaxlm.window_nats(model, variables, stream)
    return nats[stream[model.context_length :] != ids["<s>"]]


def assert_same_perplexity(path, sentences):
    reference = kenlm.Model(str(path))
    num_words = sum(len(sentence.split()) + 1 for sentence in sentences)
    expected = 10 ** (-sum(map(reference.score, sentences)) / num_words)
    assert np.exp(sentences_nats(path, sentences).mean()) == pytest.approx(expected, rel=1e-5)


def test_kenlm_scores_a_small_file_alike(tmp_path):
    (tmp_path / "lm.arpa").write_text(ARPA)
    assert_same_perplexity(tmp_path / "lm.arpa", ["a b", "b a b a", "c a b", "b", "a a"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("lmplz") is None, reason="KenLM's lmplz is not in PATH")
@pytest.mark.parametrize("order", [2, 5])
def test_kenlm_scores_a_file_of_lmplz_alike(order, tmp_path):
    sentences = [" ".join(map(str, WORDS[begin : begin + 12])) for begin in range(0, len(WORDS), 12)]
    text, path = "\n".join(sentences[:800]).encode(), tmp_path / "lm.arpa"
    command = ["lmplz", "-o", str(order), "-S", "100M", "-T", str(tmp_path), "--discount_fallback"]
    path.write_bytes(subprocess.run(command, input=text, check=True, capture_output=True).stdout)
    assert_same_perplexity(path, sentences[800:])


@pytest.mark.slow
@pytest.mark.parametrize("context_length", [1, 4])
@pytest.mark.parametrize("smoothing", [jaxlm.AddK(0.1), jaxlm.WittenBell(), jaxlm.ModifiedKneserNey()], ids=str)
def test_kenlm_scores_each_position_alike(context_length, smoothing, tmp_path):
    tokenizer = jaxlm.ByteTokenizer()
    counts = jaxlm.count_ngrams(WORDS[:9000], context_length + 1, vocab_size=256)
    model, variables = jaxlm.CountsNgramLM.from_counts(counts, smoothing)
    jaxlm.write_arpa(tmp_path / "lm.arpa", model, variables, tokenizer)
    words = jaxlm.read_arpa(tmp_path / "lm.arpa", tokenizer).words
    reference = kenlm.Model(str(tmp_path / "lm.arpa"))
    state, after = kenlm.State(), kenlm.State()
    reference.NullContextWrite(state)
    scores = []
    for token in WORDS[-10_000 - context_length :]:
        scores.append(reference.BaseScore(state, words[token], after))
        state, after = after, state
    nats = jaxlm.window_nats(model, variables, WORDS[-10_000 - context_length :])
    np.testing.assert_allclose(nats / -np.log(10), scores[context_length:], atol=1e-4)
