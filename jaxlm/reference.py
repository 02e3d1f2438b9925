"""The whole ladder in plain JAX: count, embed, score, train and sample. Read this file first.

All functions are pure and check no arguments. They return what the fast code returns, which
`tests/test_reference.py` checks, with two exceptions: `init_*` draw other initial parameters, and a row of logits
that are all -inf gives NaN. The letters: B batch, N context length, V vocabulary, D embedding, H hidden, T tokens.

>>> ids = jnp.array([0, 1, 2] * 9)
>>> log_probs = smooth(count_pairs(ids, vocab_size=3), k=0.5)
>>> sample(lambda contexts: log_probs[contexts[:, -1]], jnp.array([[0]]), 5, key=jax.random.key(1)).tolist()
[[1, 2, 0, 1, 2]]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

Params = dict[str, Array]
Predict = Callable[[Array], Array]  # from contexts [B, N] to logits [B, V]
Model = Callable[[Params, Array], Array]  # `bigram_logits` or `mlp_logits`

INIT_FOLD = 2**31 - 1  # the initial parameters come from `fold_in(key, INIT_FOLD)`, step i from `fold_in(key, i)`


def count_pairs(ids: Array, vocab_size: int) -> Array:
    """Return how often token w follows token v in `ids` [T]: int32 [V, V]."""
    return jnp.zeros((vocab_size, vocab_size), jnp.int32).at[ids[:-1], ids[1:]].add(1)


def smooth(counts: Array, k: float) -> Array:
    """Return `log (c(v, w) + k) / (c(v) + k V)`, float32 [V, V]: the counts bigram with add-k smoothing, k > 0."""
    return jnp.log(counts + k) - jnp.log(counts.sum(axis=1, keepdims=True) + k * len(counts))


def init_bigram(vocab_size: int, embedding_dim: int, *, key: Array) -> Params:
    """Return the parameters of a neural bigram. The small output layer makes it nearly uniform."""
    embedding_key, output_key = jax.random.split(jax.random.fold_in(key, INIT_FOLD))
    return {
        "embedding": jax.random.normal(embedding_key, (vocab_size, embedding_dim)) / embedding_dim**0.5,
        "output": 0.1 * jax.random.normal(output_key, (embedding_dim, vocab_size)) / embedding_dim**0.5,
        "output_bias": jnp.zeros(vocab_size),
    }


def bigram_logits(params: Params, contexts: Array) -> Array:
    """Return logits [B, V] of the neural bigram for contexts [B, 1]."""
    return params["embedding"][contexts[:, 0]] @ params["output"] + params["output_bias"][None, :]


def init_mlp(vocab_size: int, context_length: int, embedding_dim: int, hidden_dim: int, *, key: Array) -> Params:
    """Return the parameters of an MLP (Bengio et al. 2003)."""
    embedding_key, hidden_key, output_key = jax.random.split(jax.random.fold_in(key, INIT_FOLD), 3)
    width = context_length * embedding_dim
    return {
        "embedding": jax.random.normal(embedding_key, (vocab_size, embedding_dim)) / embedding_dim**0.5,
        "hidden": jax.random.normal(hidden_key, (width, hidden_dim)) / width**0.5,
        "hidden_bias": jnp.zeros(hidden_dim),
        "output": 0.1 * jax.random.normal(output_key, (hidden_dim, vocab_size)) / hidden_dim**0.5,
        "output_bias": jnp.zeros(vocab_size),
    }


def mlp_logits(params: Params, contexts: Array) -> Array:
    """Return logits [B, V] of the MLP for contexts [B, N]: embed, concatenate, tanh, project."""
    embedded = params["embedding"][contexts].reshape(len(contexts), -1)  # [B, N * D]
    hidden = jnp.tanh(embedded @ params["hidden"] + params["hidden_bias"][None, :])  # [B, H]
    return hidden @ params["output"] + params["output_bias"][None, :]


def token_nats(logits: Array, targets: Array) -> Array:
    """Return `-log softmax(logits)[target]`, in nats, [B]."""
    centered = logits - logits.max(axis=1, keepdims=True)  # so that exp cannot overflow
    return jnp.log(jnp.exp(centered).sum(axis=1)) - centered[jnp.arange(len(targets)), targets]


def cut_windows(ids: Array, starts: Array, context_length: int) -> tuple[Array, Array]:
    """Return the contexts [B, N] of `ids` [T] at the positions `starts` [B], and the token after each, [B]."""
    rows = ids[starts[:, None] + jnp.arange(context_length + 1)[None, :]]
    return rows[:, :-1], rows[:, -1]


def perplexity(predict: Predict, ids: Array, context_length: int) -> Array:
    """Return the exponential of the mean nats of all windows of `ids` [T]."""
    contexts, targets = cut_windows(ids, jnp.arange(len(ids) - context_length), context_length)
    return jnp.exp(token_nats(predict(contexts), targets).mean())


def draw_batches(
    ids: Array, context_length: int, batch_size: int, steps: Array, *, key: Array
) -> tuple[Array, Array]:
    """Draw random contexts [S, B, N] and targets [S, B] from `ids` [T], one batch for each of `steps` [S]."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, steps)
    starts = jax.vmap(lambda key: jax.random.randint(key, (batch_size,), 0, len(ids) - context_length))(keys)
    return jax.vmap(cut_windows, in_axes=(None, 0, None))(ids, starts, context_length)


def train(model: Model, params: Params, batches: tuple[Array, Array], lr: float) -> tuple[Params, Array]:
    """Take one SGD step on each batch. Return the parameters, and the loss of each batch before its step, [S]."""

    def mean_nats(params: Params, contexts: Array, targets: Array) -> Array:
        return token_nats(model(params, contexts), targets).mean()

    def train_step(params: Params, batch: tuple[Array, Array]) -> tuple[Params, Array]:
        loss, gradients = jax.value_and_grad(mean_nats)(params, *batch)
        return jax.tree.map(lambda param, gradient: param - lr * gradient, params, gradients), loss

    return lax.scan(train_step, params, batches)


def sample(predict: Predict, context: Array, num_tokens: int, *, key: Array, temperature: float = 1.0) -> Array:
    """Sample int32 [B, num_tokens] after contexts [B, N] by inverting the cumulative distribution."""

    def sample_one(context: Array, step: Array) -> tuple[Array, Array]:
        cumulative = jnp.cumsum(jax.nn.softmax(predict(context) / temperature), axis=1)  # [B, V]
        uniforms = jax.random.uniform(jax.random.fold_in(key, step), (len(context),), jnp.float32)
        tokens = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(axis=1)  # [B]
        return jnp.concatenate([context[:, 1:], tokens[:, None]], axis=1), tokens

    return lax.scan(sample_one, context, jnp.arange(num_tokens))[1].T
