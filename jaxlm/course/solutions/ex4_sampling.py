"""Exercise 4: perplexity and sampling.

The loss of one prediction is -log P(target), measured in nats. Perplexity is `exp` of the mean over all windows
of a text: a perplexity of 40 means "as hard as guessing among 40 equally likely tokens".

Sampling calls the same prediction again and again: predict, draw a token, append it, repeat. In JAX, that is one
`jax.lax.scan`. Its carry is the context, its input the number of the step, its output the new token. Each step
has a key of its own, `jax.random.fold_in(key, step)`.

`predict` is any function from contexts [B, N] to logits [B, V], so it hides the model and its parameters.

Questions. Write each answer after its `>`.

1. Two batches of 4 windows have mean nats 2.0 each; the last batch has 1 window with 7.0. What is the mean of all?
   > (4 * 2 + 4 * 2 + 1 * 7) / 9 = 2.56. The mean of the means, 3.67, counts the last window four times.
2. What does a temperature near 0 do, and a very high one?
   > The largest logit takes all the probability; a high one makes all tokens equally likely.
3. Why must each step have another key? What would a text look like if all steps had the same?
   > The same uniform number in each step: the same context would always continue alike, and the text soon repeats.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlm.course.solutions.ex1_windows import windows

Predict = Callable[[Array], Array]  # from contexts [B, N] to logits [B, V]


def token_nats(logits: Array, targets: Array) -> Array:
    """Return -log softmax(logits)[target] for logits [B, V] and targets [B], float32 [B].

    Large logits must not overflow: subtract the largest of each row first, or use `jax.nn.log_softmax`.
    """
    return -jax.nn.log_softmax(logits)[jnp.arange(len(targets)), targets]


def perplexity(predict: Predict, ids: Array, context_length: int, batch_size: int) -> float:
    """Return exp of the mean nats of all windows of `ids` [T] as a Python float, the same for every `batch_size`.

    Predict `batch_size` windows at a time; the last batch may be shorter. Without a window, raise a ValueError.
    """
    contexts, targets = windows(ids, context_length)
    if len(targets) == 0:
        raise ValueError(f"ids must have at least {context_length + 1} tokens, got {len(ids)}")
    total = 0.0
    for start in range(0, len(targets), batch_size):
        batch = slice(start, start + batch_size)
        total += float(token_nats(predict(contexts[batch]), targets[batch]).sum())
    return float(jnp.exp(total / len(targets)))


def sample(predict: Predict, prompt: Array, num_tokens: int, *, key: Array, temperature: float = 1.0) -> Array:
    """Continue each prompt [B, N], where N is the context length. Return int32 [B, N + num_tokens].

    A token is drawn from softmax(logits / temperature); `jax.random.categorical` takes logits. Step t uses the key
    `fold_in(key, t)`, so that a longer sample begins with the shorter one. The loop is one `lax.scan`.
    """

    def append(context: Array, step: Array) -> tuple[Array, Array]:
        logits = predict(context) / temperature
        token = jax.random.categorical(jax.random.fold_in(key, step), logits).astype(jnp.int32)  # [B]
        return jnp.concatenate([context[:, 1:], token[:, None]], axis=1), token

    prompt = prompt.astype(jnp.int32)
    tokens = lax.scan(append, prompt, jnp.arange(num_tokens))[1]  # [num_tokens, B]
    return jnp.concatenate([prompt, tokens.T], axis=1)


def own_law(course: Any, random: Any) -> Iterator[tuple[Any, Any]]:
    """If each token forces the next, a sample follows the chain, and its perplexity is 1.

    Write a law of your own for one of the three functions. It must hold for a correct solution, and catch at least
    3 of our wrong ones. For which `predict` do you know the sample, or the perplexity, without drawing?
    """

    def predict(contexts: Array) -> Array:  # (a + b) mod 5 follows a, b
        return 100 * jax.nn.one_hot(contexts.sum(axis=1) % 5, 5)

    chain = [random.integers(1, 5, 2).tolist()]
    while len(chain[0]) < 8:
        chain[0].append(sum(chain[0][-2:]) % 5)
    yield chain, course.sample(predict, jnp.array(chain)[:, :2], 6, key=jax.random.key(1))
    yield 1.0, course.perplexity(predict, jnp.array(chain[0]), 2, batch_size=4)
    wrong = [*chain[0][:-1], (chain[0][-1] + 1) % 5]
    yield jnp.exp(100 / 6), course.perplexity(predict, jnp.array(wrong), 2, batch_size=4)
