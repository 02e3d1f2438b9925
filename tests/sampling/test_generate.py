"""The scan of `generate`, alone and inside the caller's own transformations, and models from `tabulate`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm

KEY = jax.random.key(5)
CONTEXT = jnp.array([[0, 1, 2], [3, 4, 5]])
MODEL = jaxlm.MLPLanguageModel(8, context_length=3, embedding_dim=4, hidden_dim=6)
VARIABLES = jax.tree.map(lambda leaf: 9 * leaf, jaxlm.init(MODEL, jax.random.key(0)))


def run(key=KEY, context=CONTEXT, num_tokens=6, model=MODEL, variables=VARIABLES, **options):
    return jaxlm.generate(model, variables, context, key=key, num_tokens=num_tokens, **options)


@pytest.mark.parametrize(
    ("options", "golden"),
    [
        ({}, [[6, 0, 7, 0, 6, 0], [7, 1, 6, 4, 4, 1]]),
        ({"temperature": 0.7, "top_k": 5, "top_p": 0.9}, [[0, 3, 5, 1, 4, 7], [3, 7, 7, 5, 0, 2]]),
    ],
    ids=str,
)
def test_generate_and_sample_match_the_golden_tokens(options, golden):
    """The tokens that version 0.1.0 sampled with this key. Other tokens break everybody's saved samples."""
    assert run(**options).tolist() == golden
    assert jaxlm.sample(MODEL, VARIABLES, CONTEXT, 6, key=KEY, **options)[:, 3:].tolist() == golden


def count_primitives(jaxpr, name):
    inner = [
        each for eqn in jaxpr.eqns for each in jax.tree.leaves(list(eqn.params.values())) if hasattr(each, "jaxpr")
    ]
    return sum(eqn.primitive.name == name for eqn in jaxpr.eqns) + sum(
        count_primitives(each.jaxpr, name) for each in inner
    )


def test_generate_is_one_scan_of_every_length():
    jaxprs = [jax.make_jaxpr(functools.partial(run, num_tokens=n, top_p=0.9))().jaxpr for n in (2, 2000)]
    for jaxpr in jaxprs:
        assert count_primitives(jaxpr, "scan") == 1
        assert count_primitives(jaxpr, "while") == 0
    assert len(jaxprs[0].eqns) == len(jaxprs[1].eqns)


def test_generate_continues_from_a_traced_start():
    def generate_four(context, start):
        tokens = run(context=context, num_tokens=4, start=start)
        return jnp.concatenate([context, tokens], axis=1)[:, 4:], tokens

    _, blocks = jax.lax.scan(generate_four, CONTEXT, jnp.arange(0, 12, 4))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), run(num_tokens=12))


def test_generate_works_inside_jit_and_vmap():
    keys = jax.random.split(KEY, 3)
    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(keys), [run(key) for key in keys])


def test_traced_temperature_of_zero_is_greedy():
    expected = run(temperature=0)
    np.testing.assert_array_equal(jax.jit(lambda temperature: run(temperature=temperature))(0.0), expected)
    contexts = CONTEXT
    for token in expected.T:
        np.testing.assert_array_equal(token, MODEL.apply(VARIABLES, contexts).argmax(axis=1))
        contexts = jnp.concatenate([contexts[:, 1:], token[:, None]], axis=1)


def test_generate_returns_minus_one_without_a_possible_token():
    model = jaxlm.CountsBigramLM(3, smoothing=0)
    variables = model.fit(jaxlm.init(model, KEY), [0, 1, 2])
    assert run(context=jnp.array([[0]]), num_tokens=3, model=model, variables=variables).tolist() == [[1, 2, -1]]


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6, "top_k": 5, "top_p": 0.9}], ids=str)
def test_tabulate_makes_a_model_with_the_same_distributions(options):
    table_model, table = jaxlm.tabulate(MODEL, VARIABLES, **options)
    assert (table_model.vocab_size, table_model.context_length) == (8, 3)
    logits = np.asarray(MODEL.apply(VARIABLES, CONTEXT), np.float64) / options.get("temperature", 1)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row in probs if options else ():
        ranked = np.argsort(-row)
        row[ranked[5:]] = 0
        row[ranked[np.searchsorted(np.cumsum(row[ranked]) / row.sum(), 0.9) + 1 :]] = 0
    expected = probs / probs.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(jax.nn.softmax(table_model.apply(table, CONTEXT)), expected, rtol=1e-5)
    np.testing.assert_array_equal(run(model=table_model, variables=table), run(**options))


def test_options_apply_to_a_table_too():
    table_model, table = jaxlm.tabulate(MODEL, VARIABLES)
    for options in ({"temperature": 0.5}, {"top_k": 2}, {"temperature": 0}):
        np.testing.assert_array_equal(run(model=table_model, variables=table, **options), run(**options))
