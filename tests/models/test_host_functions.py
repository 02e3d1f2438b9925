"""Host functions that are traced raise one sentence, which names the function and its pure alternative."""

import re

import jax
import numpy as np
import pytest

import jaxlm

IDS = jax.numpy.array([0, 1, 2, 1])
MODEL, COUNTS, NGRAMS = jaxlm.UniformLM(3), jaxlm.CountsBigramLM(3), jaxlm.CountsNgramLM(3, 1)
COUNTED = {"counts": {"table": np.ones((3, 3), np.int32)}}
PURE_NATS = "jaxlm.token_nats(jaxlm.compute_logits("

CALLS = {
    "perplexity": (lambda ids: jaxlm.perplexity(MODEL, {}, ids), PURE_NATS),
    "evaluate": (lambda ids: jaxlm.evaluate(MODEL, {}, ids), PURE_NATS),
    "window_nats": (lambda ids: jaxlm.window_nats(MODEL, {}, ids), PURE_NATS),
    "score": (lambda ids: jaxlm.score(MODEL, {}, ids), "jaxlm.compute_logits("),
    "mixture_weights": (lambda ids: jaxlm.mixture_weights([MODEL], [{}], ids), PURE_NATS),
    "fit": (lambda ids: COUNTS.fit(COUNTED, ids), "table + jaxlm.reference.count_pairs(ids, V)"),
    "fit of n-grams": (lambda ids: NGRAMS.fit(COUNTED, ids), "variables that were fitted outside"),
    "sample": (lambda ids: jaxlm.sample(MODEL, {}, ids, 1, key=jax.random.key(0)), "generate"),
    "count_ngrams": (lambda ids: jaxlm.count_ngrams(ids, 2), "counts that were made outside"),
    "train_many": (
        lambda ids: jaxlm.train_many(MODEL, ids, keys=jax.random.split(jax.random.key(0), 2), hyperparams={}),
        "vmap over init_state and train_step",
    ),
    "train": (lambda ids: jaxlm.train_lm(MODEL, ids, key=jax.random.key(0)), "init_state and train_step"),
}
TRACES = {
    "jit_without_traced_arguments": lambda call: jax.jit(lambda: call(IDS))(),
    "jit": lambda call: jax.jit(call)(IDS),
    "vmap": lambda call: jax.vmap(call)(IDS[None]),
}


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
@pytest.mark.parametrize("name", CALLS)
def test_host_functions_name_a_pure_function(name, trace):
    call, alternative = CALLS[name]
    message = re.escape(f"{name.split()[0]} does not work inside jit, vmap or grad; use {alternative}")
    with pytest.raises(TypeError, match=f"^{message}"):
        trace(call)
