"""ARPA files hold the probabilities of the model, and read back as the same model."""

import jax
import numpy as np
import pytest
from arpa_texts import log_prob, parse

import jaxlm
from jaxlm.checkpoints.arpa_words import spell_tokens

IDS = np.append([3, 5, 6], np.random.default_rng(0).integers(0, 6, 400) ** 2 % 7)  # its start does not recur


def fit(context_length, smoothing):
    return jaxlm.CountsNgramLM.from_counts(jaxlm.count_ngrams(IDS, context_length + 1, vocab_size=8), smoothing)


def bigram():
    model = jaxlm.CountsBigramLM(8, smoothing=0.5)
    return model, model.fit(jaxlm.init(model, jax.random.key(0)), IDS)


MODELS = {
    "unigrams": (0, jaxlm.WittenBell()),
    "maximum likelihood": (1, jaxlm.AddK(0)),
    "add k": (3, jaxlm.AddK(0.5)),
    "Witten-Bell": (1, jaxlm.WittenBell()),
    "Kneser-Ney": (3, jaxlm.ModifiedKneserNey()),
}


@pytest.fixture(params=[*MODELS, "bigram"], scope="module")
def fitted(request):
    return bigram() if request.param == "bigram" else fit(*MODELS[request.param])


def test_write_arpa_lines_give_the_models_probabilities(fitted, tmp_path):
    model, variables = fitted
    jaxlm.write_arpa(tmp_path / "lm.arpa", model, variables)
    lines = parse((tmp_path / "lm.arpa").read_text("utf-8"))
    contexts = np.random.default_rng(1).integers(0, 8, (20, model.context_length))  # 7 was never seen
    found = np.asarray(model.apply(variables, contexts))
    for context, row in zip(contexts.astype(str).tolist(), found, strict=True):
        expected = [log_prob(lines, context, str(word)) for word in range(8)]
        np.testing.assert_allclose(row, expected, rtol=2e-6)


def test_write_arpa_there_and_back_keeps_the_perplexity(fitted, tmp_path):
    model, variables = fitted
    jaxlm.write_arpa(tmp_path / "new" / "lm.arpa", model, variables)
    loaded, loaded_variables, words = jaxlm.read_arpa(tmp_path / "new" / "lm.arpa")
    assert words == [*"01234567"]
    expected = jaxlm.perplexity(model, variables, IDS)
    assert jaxlm.perplexity(loaded, loaded_variables, IDS) == pytest.approx(expected, rel=1e-6)


def test_write_arpa_is_what_kenlm_requires(tmp_path):
    model, variables = fit(3, jaxlm.ModifiedKneserNey())
    jaxlm.write_arpa(tmp_path / "lm.arpa", model, variables)
    text = (tmp_path / "lm.arpa").read_text("utf-8")
    lines = parse(text)
    assert {("<unk>",), ("<s>",), ("</s>",)} <= lines.keys()
    sizes = [sum(len(ngram) == order for ngram in lines) for order in range(1, 5)]
    assert text.startswith("\\data\\\n" + "".join(f"ngram {order}={n}\n" for order, n in enumerate(sizes, 1)))
    for ngram, (probability, _) in lines.items():
        assert probability <= 0
        assert len(ngram) == 1 or {ngram[1:], ngram[:-1]} <= lines.keys()
    highest = text.partition("\\4-grams:\n")[2].partition("\n\n")[0].splitlines()
    assert {line.count("\t") for line in highest} == {1}


TOKENIZERS = {
    "char": jaxlm.CharTokenizer("\n <é日😀"),
    "byte": jaxlm.ByteTokenizer(),
    "bpe": jaxlm.BPETokenizer((("<", "s"), ("<s", ">"), ("Ġ", "t"))),
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_write_arpa_spells_tokens_reversibly(tokenizer, tmp_path):
    vocab_size = tokenizer.vocab_size + 2  # padded
    ids = np.random.default_rng(0).integers(0, vocab_size, 2000)
    model, variables = jaxlm.CountsNgramLM.from_counts(jaxlm.count_ngrams(ids, 2, vocab_size=vocab_size))
    jaxlm.write_arpa(tmp_path / "lm.arpa", model, variables, tokenizer)
    loaded, loaded_variables, words = jaxlm.read_arpa(tmp_path / "lm.arpa", tokenizer)
    assert (loaded.vocab_size, len(set(words))) == (vocab_size, vocab_size)
    assert not any(word in ("<unk>", "<s>", "</s>") or word.split() != [word] for word in words)
    contexts = ids[:50, None]
    expected = np.asarray(model.apply(variables, contexts))
    np.testing.assert_allclose(loaded.apply(loaded_variables, contexts), expected, rtol=2e-6)


def test_spell_tokens_uses_the_alphabet_of_gpt2():
    assert spell_tokens(259, TOKENIZERS["bpe"])[-3:] == ["<s", "⟨s>", "Ġt"]
    assert spell_tokens(2, None) == ["0", "1"]


def test_write_arpa_refuses_what_does_not_fit(tmp_path):
    model, variables = fit(1, 1.0)
    with pytest.raises(ValueError, match="not a UniformLM"):
        jaxlm.write_arpa(tmp_path / "lm.arpa", jaxlm.UniformLM(3), {})
    with pytest.raises(ValueError, match="the tokenizer has 256 tokens, more than the model's vocab_size=8"):
        jaxlm.write_arpa(tmp_path / "lm.arpa", model, variables, jaxlm.ByteTokenizer())
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder") as caught:
        jaxlm.write_arpa(tmp_path / "folder", model, variables, overwrite=True)
    assert caught.value.filename == str(tmp_path / "folder")
    (tmp_path / "folder").rmdir()
    (tmp_path / "lm.arpa").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite"):
        jaxlm.write_arpa(tmp_path / "lm.arpa", model, variables)
    jaxlm.write_arpa(tmp_path / "lm.arpa", model, variables, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["lm.arpa"]
