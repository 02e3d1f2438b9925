"""The scan of `generate`, alone and inside the caller's own transformations, and models from `tabulate`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.sampling.distributions import Options, compute_distributions
from jaxlm.sampling.generate import generate_block

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


def test_compiled_program_names_the_parts_of_generate():
    program = jax.jit(run).lower(KEY).compile().as_text()
    assert "/distributions/" in program
    assert "/sample_tokens/" in program


def test_generate_again_does_not_recompile():
    """A closure under `lax.scan` would be compiled in each call outside `jit`."""
    run()
    compiled = generate_block._cache_size()
    run(jax.random.key(6), temperature=0.5, start=7)
    assert generate_block._cache_size() == compiled


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
    equal = functools.partial(run, model=jaxlm.UniformLM(8), variables={}, context=jnp.zeros((1, 0), int))
    assert jax.jit(lambda temperature: equal(temperature=temperature))(0.0).tolist() == [[0] * 6]  # the first


@pytest.mark.parametrize("options", [{"top_p": 1.0}, {"top_p": 1}, {"top_k": 8}, {"top_k": 9}], ids=str)
def test_generate_equals_sample_with_the_widest_options(options):
    expected = jaxlm.sample(MODEL, VARIABLES, CONTEXT, 6, key=KEY, **options)[:, 3:]
    np.testing.assert_array_equal(run(**options), expected)


def test_traced_top_p_of_one_keeps_every_token():
    """After a weight of 1, a cumulative sum in float32 does not grow by 1e-9."""
    logits = jnp.log(jnp.array([[1.0, 1e-9]]))
    compute = jax.jit(lambda top_p: compute_distributions(logits, Options(top_p=top_p)))
    assert (compute(1.0).weights > 0).all()


@pytest.mark.parametrize(("context_length", "shape"), [(3, (3,)), (3, (2, 2)), (1, (2, 3))])
def test_generate_refuses_contexts_of_another_shape(context_length, shape):
    model = jaxlm.MLPLanguageModel(8, context_length, 4, 6)
    with pytest.raises(ValueError, match="contexts must have shape"):
        run(model=model, context=jnp.zeros(shape, int))
    with pytest.raises(ValueError, match="contexts: the rows have different lengths"):
        run(model=model, context=[[0], [1, 2]])


def test_generate_returns_minus_one_without_a_possible_token():
    model = jaxlm.CountsBigramLM(3, smoothing=0)
    variables = model.fit(jaxlm.init(model, KEY), [0, 1, 2])
    assert run(context=jnp.array([[0]]), num_tokens=3, model=model, variables=variables).tolist() == [[1, 2, -1]]


def test_tabulate_makes_a_model_with_the_same_distributions():
    table_model, table = jaxlm.tabulate(MODEL, VARIABLES)
    assert (table_model.vocab_size, table_model.context_length) == (8, 3)
    expected = jax.nn.softmax(MODEL.apply(VARIABLES, CONTEXT))
    np.testing.assert_allclose(jax.nn.softmax(table_model.apply(table, CONTEXT)), expected, rtol=1e-5)
    np.testing.assert_array_equal(run(model=table_model, variables=table), run())


def test_tabulate_refuses_what_memory_cannot_hold():
    with pytest.raises(ValueError, match=r"V\^N = 68,719,476,736 contexts .* more than 41,943,040"):
        jaxlm.tabulate(jaxlm.MLPLanguageModel(4096, 3, 4, 4), {})
    with pytest.raises(ValueError, match=r"V\^N = 524,288 contexts .* more than 41,943,040"):
        jaxlm.tabulate(jaxlm.MLPLanguageModel(2, 19, 4, 4), {})  # with padding, 130 numbers per context


def test_options_apply_to_a_table_too():
    table_model, table = jaxlm.tabulate(MODEL, VARIABLES)
    for options in ({"temperature": 0.5}, {"top_k": 2}, {"temperature": 0}):
        np.testing.assert_array_equal(run(model=table_model, variables=table, **options), run(**options))
