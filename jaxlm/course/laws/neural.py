"""The laws of exercise 3: parameters as a pytree, and logits as a pure function of them."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.course.law import Comparisons, Implementation, Random, make_laws, outcome

V, N, D, H = 5, 3, 2, 4
BIGRAM_SHAPES = {"embedding": (V, D), "output": (D, V), "output_bias": (V,)}
MLP_SHAPES = {
    "embedding": (V, D),
    "hidden": (N * D, H),
    "hidden_bias": (H,),
    "output": (H, V),
    "output_bias": (V,),
}


def draw_params(random: Random, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return normal parameters, biases included."""
    return {name: jnp.asarray(random.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def draw_contexts(random: Random, batch_size: int, context_length: int) -> Any:
    return jnp.asarray(random.integers(0, V, (batch_size, context_length)), jnp.int32)


def fresh_params(course: Implementation, seed: int) -> tuple[Any, Any]:
    """Return the fresh parameters of both models."""
    bigram = course.init_bigram(V, D, key=jax.random.key(seed))
    return bigram, course.init_mlp(V, N, D, H, key=jax.random.key(seed))


def parameter_shapes(course: Implementation, random: Random) -> Comparisons:
    """The parameters are a dict of float32 arrays with the names and shapes of the docstring, and no others."""
    bigram, mlp = fresh_params(course, 0)
    yield BIGRAM_SHAPES, {name: array.shape for name, array in bigram.items()}
    yield MLP_SHAPES, {name: array.shape for name, array in mlp.items()}
    yield "float32", ",".join({str(array.dtype) for array in (*bigram.values(), *mlp.values())})


def key_decides_the_parameters(course: Implementation, random: Random) -> Comparisons:
    """The same key gives equal parameters, another key gives others."""
    for seed in random.integers(1000, size=2).tolist():
        first, again, other = (fresh_params(course, number) for number in (seed, seed, seed + 1))
        yield first, again
        for params, others in zip(first, other, strict=True):
            is_same = bool((params["embedding"] == others["embedding"]).any())
            yield "other parameters", "the same" if is_same else "other parameters"


def layers_differ(course: Implementation, random: Random) -> Comparisons:
    """Each array is drawn with a key of its own, so no two arrays begin with the same numbers up to a factor."""
    for params in fresh_params(course, int(random.integers(1000))):
        starts = {name: np.ravel(array)[:4] for name, array in params.items() if np.any(array)}
        starts = {name: start / np.linalg.norm(start) for name, start in starts.items()}
        same = [
            pair for pair in itertools.combinations(starts, 2) if abs(starts[pair[0]] @ starts[pair[1]]) > 0.999
        ]
        yield "other numbers", " and ".join(same[0]) + " begin alike" if same else "other numbers"


def fresh_is_nearly_uniform(course: Implementation, random: Random) -> Comparisons:
    """A fresh model is nearly uniform: its perplexity is V within 5 %."""
    contexts = draw_contexts(random, 3, N)
    bigram, mlp = fresh_params(course, int(random.integers(1000)))
    for logits in (course.bigram_logits(bigram, contexts[:, :1]), course.mlp_logits(mlp, contexts)):
        nats = -jax.nn.log_softmax(logits).mean()
        yield float(V), snap_percent(float(jnp.exp(nats)), V, 0.05)


def snap_percent(actual: float, expected: float, fraction: float) -> float:
    return expected if abs(actual / expected - 1) <= fraction else actual


def bigram_equation(course: Implementation, random: Random) -> Comparisons:
    """The bigram's logits are [B, V]: row v of the embedding, times the output matrix, plus the bias."""
    for batch_size in (1, 3):
        params, contexts = draw_params(random, BIGRAM_SHAPES), draw_contexts(random, batch_size, 1)
        rows = np.asarray(params["embedding"])[np.asarray(contexts)[:, 0]]
        yield (
            rows @ params["output"] + np.asarray(params["output_bias"])[None, :],
            course.bigram_logits(params, contexts),
        )


def mlp_equation(course: Implementation, random: Random) -> Comparisons:
    """The MLP's logits are [B, V]: embed, concatenate in the order of the context, tanh, project."""
    for batch_size in (1, 3):
        params, contexts = draw_params(random, MLP_SHAPES), draw_contexts(random, batch_size, N)
        arrays = {name: np.asarray(array) for name, array in params.items()}
        expected = []
        for context in np.asarray(contexts):
            joined = np.concatenate([arrays["embedding"][token] for token in context])
            hidden = np.tanh(joined @ arrays["hidden"] + arrays["hidden_bias"])
            expected.append(hidden @ arrays["output"] + arrays["output_bias"])
        yield expected, course.mlp_logits(params, contexts)


def order_matters(course: Implementation, random: Random) -> Comparisons:
    """The order of the context matters: the same tokens in another order give other logits."""
    params = draw_params(random, MLP_SHAPES)
    logits = course.mlp_logits(params, jnp.array([[0, 1, 2], [2, 1, 0], [1, 0, 2]]))
    for other in (1, 2):
        yield "other logits", "other logits" if abs(logits[0] - logits[other]).max() > 1e-3 else "the same logits"


def rows_are_independent(course: Implementation, random: Random) -> Comparisons:
    """The logits of a context do not depend on the other rows of the batch."""
    bigram, mlp = draw_params(random, BIGRAM_SHAPES), draw_params(random, MLP_SHAPES)
    contexts = draw_contexts(random, 3, N)
    yield course.bigram_logits(bigram, contexts[:1, :1])[0], course.bigram_logits(bigram, contexts[:, :1])[0]
    yield course.mlp_logits(mlp, contexts[:1])[0], course.mlp_logits(mlp, contexts)[0]


def untouched_rows_have_no_gradient(course: Implementation, random: Random) -> Comparisons:
    """Only the embeddings of tokens in the batch get a gradient."""
    bigram, mlp = draw_params(random, BIGRAM_SHAPES), draw_params(random, MLP_SHAPES)
    contexts = jnp.array([[0, 1, 1], [1, 0, 3]])
    gradients = jax.jit(jax.grad(lambda params: (course.bigram_logits(params, contexts[:, :1]) ** 2).sum()))(
        bigram
    )
    yield [True, True, False, False, False], np.any(gradients["embedding"], axis=1)
    gradients = jax.jit(jax.grad(lambda params: (course.mlp_logits(params, contexts) ** 2).sum()))(mlp)
    yield [True, True, False, True, False], np.any(gradients["embedding"], axis=1)


def other_shapes_are_errors(course: Implementation, random: Random) -> Comparisons:
    """Contexts of another length than the model's are an error: of the bigram, a ValueError."""
    bigram, mlp = draw_params(random, BIGRAM_SHAPES), draw_params(random, MLP_SHAPES)
    contexts = draw_contexts(random, 3, 6)
    yield "ValueError", outcome(course.bigram_logits, bigram, contexts[:, :2], error=ValueError)
    for length in (2, 6):
        yield "an error", outcome(course.mlp_logits, mlp, contexts[:, :length])


LAWS = make_laws(
    3,
    parameter_shapes,
    key_decides_the_parameters,
    layers_differ,
    fresh_is_nearly_uniform,
    bigram_equation,
    mlp_equation,
    order_matters,
    rows_are_independent,
    untouched_rows_have_no_gradient,
    other_shapes_are_errors,
)
