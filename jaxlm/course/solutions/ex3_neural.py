"""Exercise 3: the neural bigram and the MLP.

A neural model is a pure function `logits(params, contexts)`. The parameters are a pytree, here a dict of arrays,
and live outside of the function. The bigram looks up a vector for its token and multiplies it by a matrix. The
MLP (Bengio et al. 2003) does the same with N tokens, and puts a hidden layer between:

    bigram   contexts [B, 1] -> embedding [B, D] -> logits [B, V]
    MLP      contexts [B, N] -> embeddings [B, N, D] -> joined [B, N D] -> tanh, hidden [B, H] -> logits [B, V]

`embedding[contexts]` looks up all tokens at once. A layer is `x @ matrix + bias[None, :]`.

Questions. Write each answer after its `>`.

1. A table of counts of N + 1 tokens has V^(N+1) cells. Which of N, V, H makes it grow, and which makes the MLP
   grow?
   > The table: V, and N in the exponent. The MLP, V D + N D H + H + H V + V parameters: all three, linearly.
2. Why are the N embeddings concatenated and not averaged?
   > An average is the same for "dog bites man" and "man bites dog". Each place needs weights of its own.
3. A fresh model should be nearly uniform. How does its first loss show that, and how do you get there?
   > The loss is log V. Small output weights and zero biases make all logits nearly equal.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Params = dict[str, Array]


def init_bigram(vocab_size: int, embedding_dim: int, *, key: Array) -> Params:
    """Return random parameters: "embedding" [V, D], "output" [D, V] and "output_bias" [V].

    Split `key` so that each random array has its own. A fresh model is nearly uniform: 0.1 * normal / sqrt(D) is a
    good scale for "output", and normal / sqrt(D) for "embedding". The bias is zero.
    """
    embedding_key, output_key = jax.random.split(key)
    return {
        "embedding": jax.random.normal(embedding_key, (vocab_size, embedding_dim)) / embedding_dim**0.5,
        "output": 0.1 * jax.random.normal(output_key, (embedding_dim, vocab_size)) / embedding_dim**0.5,
        "output_bias": jnp.zeros(vocab_size),
    }


def bigram_logits(params: Params, contexts: Array) -> Array:
    """Return logits [B, V] for contexts [B, 1]. Raise a ValueError for contexts of another shape."""
    if contexts.ndim != 2 or contexts.shape[1] != 1:
        raise ValueError(f"contexts must have shape [B, 1], got {list(contexts.shape)}")
    return params["embedding"][contexts[:, 0]] @ params["output"] + params["output_bias"][None, :]


def init_mlp(vocab_size: int, context_length: int, embedding_dim: int, hidden_dim: int, *, key: Array) -> Params:
    """Return random parameters, and zeros for the biases, each random array from a key of its own.

    "embedding" [V, D] is normal / sqrt(D), "hidden" [N D, H] is normal / sqrt(N D), and "output" [H, V] is
    0.1 normal / sqrt(H). "hidden_bias" [H] and "output_bias" [V] are zero.
    """
    embedding_key, hidden_key, output_key = jax.random.split(key, 3)
    width = context_length * embedding_dim
    return {
        "embedding": jax.random.normal(embedding_key, (vocab_size, embedding_dim)) / embedding_dim**0.5,
        "hidden": jax.random.normal(hidden_key, (width, hidden_dim)) / width**0.5,
        "hidden_bias": jnp.zeros(hidden_dim),
        "output": 0.1 * jax.random.normal(output_key, (hidden_dim, vocab_size)) / hidden_dim**0.5,
        "output_bias": jnp.zeros(vocab_size),
    }


def mlp_logits(params: Params, contexts: Array) -> Array:
    """Return logits [B, V] for contexts [B, N]. Contexts of another shape are an error."""
    embedded = params["embedding"][contexts]  # [B, N, D]
    concatenated = embedded.reshape(len(contexts), -1)  # [B, N D]
    hidden = jnp.tanh(concatenated @ params["hidden"] + params["hidden_bias"][None, :])
    return hidden @ params["output"] + params["output_bias"][None, :]


def own_law(course: Any, random: Any) -> Iterator[tuple[Any, Any]]:
    """Doubling the output layer and its bias doubles the logits, and swapping two tokens changes them.

    Write a law of your own for one of the four functions. It must hold for a correct solution, and catch at
    least 3 of our wrong ones. What changes in the logits if you change one array, or the order of a context?
    """
    for batch_size in (1, 3):
        contexts = jnp.asarray(random.integers(0, 5, (batch_size, 2)))
        params = course.init_mlp(5, 2, 3, 4, key=jax.random.key(int(random.integers(100))))
        params |= {"output_bias": jnp.asarray(random.normal(size=5), "float32")}
        doubled = params | {name: 2 * params[name] for name in ("output", "output_bias")}
        yield 2 * course.mlp_logits(params, contexts), course.mlp_logits(doubled, contexts)
        yield (
            [params["output_bias"]] * batch_size,
            course.mlp_logits(params | {"output": 0 * params["output"]}, contexts),
        )
        swapped = course.mlp_logits(params, jnp.array([[3, 1]])) - course.mlp_logits(params, jnp.array([[1, 3]]))
        yield True, bool(abs(swapped).max() > 1e-3)
