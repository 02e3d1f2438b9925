"""Perplexities of n-gram models on the classic tiny Shakespeare against published figures of KenLM."""

import functools

import jax
import pytest

import jaxlm
from jaxlm import CountsNgramLM, KneserNey, ModifiedKneserNey


def fit(model, ids):
    return model.fit(jaxlm.init(model, jax.random.key(0)), ids)


@functools.cache
def split_of(tokenizer, text):
    return jaxlm.split_ids(tokenizer.encode(text))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "smoothing", "at_most", "kenlm"),
    [(2, KneserNey(), 126, None), (2, ModifiedKneserNey(), 124, 123), (3, ModifiedKneserNey(), 104, 102.6)],
    ids=str,
)
def test_perplexity_on_tiny_shakespeare_is_kenlms(classic_shakespeare, order, smoothing, at_most, kenlm):
    tokenizer = jaxlm.BPETokenizer.train(classic_shakespeare, 4096)
    train_ids, val_ids = split_of(tokenizer, classic_shakespeare)
    model = CountsNgramLM(4096, order - 1, smoothing)
    perplexity = jaxlm.perplexity(model, fit(model, train_ids), val_ids)
    assert perplexity <= at_most
    if kenlm is not None:
        assert perplexity == pytest.approx(kenlm, rel=0.01)


@pytest.mark.slow
def test_perplexity_of_characters_at_order_5_is_kenlms(classic_shakespeare):
    tokenizer = jaxlm.CharTokenizer.train(classic_shakespeare)
    train_ids, val_ids = split_of(tokenizer, classic_shakespeare)
    model = CountsNgramLM(tokenizer.vocab_size, 4)
    assert jaxlm.perplexity(model, fit(model, train_ids), val_ids) == pytest.approx(4.76, rel=0.002)
