"""The laws of exercise 4: nats, perplexity and sampling."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.course.law import Comparisons, Implementation, Random, make_laws, outcome, snap

V = 4


def look_up(table: Any) -> Callable[[Any], Any]:
    """Return a bigram: the logits after a context are the row of its last token."""

    def predict(contexts: Any) -> Any:
        return jnp.asarray(table, jnp.float32)[contexts[:, -1]]

    return predict


def add_last_two(contexts: Any) -> Any:
    """Predict that the next token is the sum of the last two, modulo 4."""
    return 100 * jax.nn.one_hot(contexts[:, -2:].sum(axis=1) % V, V)


def nats_of(logits: Any, targets: Any) -> Any:
    """Return the nats in NumPy, float64."""
    centered = np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True)
    return np.log(np.exp(centered).sum(axis=1)) - centered[np.arange(len(targets)), targets]


def nats_are_minus_log_softmax(course: Implementation, random: Random) -> Comparisons:
    """The nats of a target are -log softmax(logits)[target]."""
    for scale in (0, 1, 10):
        logits, targets = scale * random.normal(size=(2, V)), random.integers(0, V, 2)
        yield nats_of(logits, targets), course.token_nats(jnp.asarray(logits, jnp.float32), jnp.asarray(targets))


def large_logits_do_not_overflow(course: Implementation, random: Random) -> Comparisons:
    """Adding a constant to all logits changes no nats, even if their exponentials overflow."""
    logits, targets = random.normal(size=(2, V)), random.integers(0, V, 2)
    expected = nats_of(logits, targets)
    for constant in (100, -1000):
        shifted = jnp.asarray(logits + constant, jnp.float32)
        yield expected, snap(course.token_nats(shifted, jnp.asarray(targets)), expected, 1e-3)


def impossible_targets_are_infinite(course: Implementation, random: Random) -> Comparisons:
    """A target whose logit is -inf has infinite nats, the others stay finite."""
    logits = jnp.array([[0, 0, -jnp.inf, -jnp.inf]] * 2)
    yield [math.inf, math.log(2)], course.token_nats(logits, jnp.array([2, 1]))


def uniform_perplexity_is_v(course: Implementation, random: Random) -> Comparisons:
    """A uniform model has perplexity V."""
    ids = jnp.asarray(random.integers(0, V, 8))
    yield float(V), course.perplexity(look_up(np.zeros((V, V))), ids, 1, 8)


def perfect_perplexity_is_1(course: Implementation, random: Random) -> Comparisons:
    """A model that is certain and right has perplexity 1."""
    yield 1.0, course.perplexity(look_up(1000 * np.roll(np.eye(V), 1, axis=1)), jnp.arange(8) % V, 1, 8)


def perplexity_weighs_windows_equally(course: Implementation, random: Random) -> Comparisons:
    """Perplexity is exp of the sum of all windows' nats over their number; the batch size changes nothing."""
    table, ids = 3 * random.normal(size=(V, V)), random.integers(0, V, 8)
    expected = np.exp(nats_of(table[ids[:-1]], ids[1:]).mean())
    for batch_size in (7, 2, 100):  # 2 + 2 + 2 + 1 windows: the last batch is short
        yield expected, course.perplexity(look_up(table), jnp.asarray(ids), 1, batch_size)


def perplexity_is_a_float(course: Implementation, random: Random) -> Comparisons:
    """Perplexity is a Python float, ready to print or to save."""
    result = course.perplexity(look_up(np.zeros((V, V))), jnp.arange(8) % V, 1, 8)
    yield "float", type(result).__name__


def perplexity_needs_a_window(course: Implementation, random: Random) -> Comparisons:
    """A text without a window, here of N tokens, has no perplexity: a ValueError, not NaN."""
    predict = look_up(np.zeros((V, V)))
    yield "ValueError", outcome(course.perplexity, predict, jnp.array([0]), 1, 8, error=ValueError)


def draw(course: Implementation, predict: Any, prompt: Any, num_tokens: int, seed: int, **options: Any) -> Any:
    return course.sample(predict, jnp.asarray(prompt), num_tokens, key=jax.random.key(seed), **options)


def sample_starts_with_the_prompt(course: Implementation, random: Random) -> Comparisons:
    """A sample is int32 [B, N + num_tokens] and starts with the prompt."""
    prompt = random.integers(0, V, (2, 2))
    ids = draw(course, look_up(np.zeros((V, V))), prompt, 5, 0)
    yield ((2, 7), "int32"), (ids.shape, str(ids.dtype))
    yield prompt, np.asarray(ids)[:, :2]


def longer_starts_with_shorter(course: Implementation, random: Random) -> Comparisons:
    """With the same key, a longer sample starts with the shorter one."""
    predict = look_up(random.normal(size=(V, V)))
    short, long = (draw(course, predict, [[0], [1]], number, 3) for number in (4, 24))
    yield short, np.asarray(long)[:, :5]


def key_decides_the_sample(course: Implementation, random: Random) -> Comparisons:
    """The sample depends on the key: the same key gives it again, another key gives another one."""
    predict = look_up(random.normal(size=(V, V)))
    first, again, other = (np.asarray(draw(course, predict, [[0], [0]], 24, seed)) for seed in (1, 1, 2))
    yield first, again
    yield "another sample", "the same sample" if (first == other).all() else "another sample"


def steps_and_streams_differ(course: Implementation, random: Random) -> Comparisons:
    """Each step has a key of its own, and each stream draws for itself: a uniform model does not repeat."""
    ids = np.asarray(draw(course, look_up(np.zeros((V, V))), [[0], [0]], 24, int(random.integers(1000))))[:, 1:]
    yield "different tokens", "different tokens" if len({*ids[0].tolist()}) > 1 else "one token, repeated"
    yield "different streams", "different streams" if (ids[0] != ids[1]).any() else "equal streams"


def low_temperature_is_greedy(course: Implementation, random: Random) -> Comparisons:
    """As the temperature goes to 0, the most likely token is taken."""
    table, chain = np.array([random.permutation(V) for _ in range(V)]), [[0]]
    for _ in range(5):
        chain[0].append(int(table[chain[0][-1]].argmax()))
    yield chain, draw(course, look_up(table), [[0]], 5, 0, temperature=1e-3)


def frequencies_are_softmax(course: Implementation, random: Random) -> Comparisons:
    """Tokens are drawn with the probabilities softmax(logits / temperature), up to chance."""
    logits = random.normal(size=V)
    for temperature in (2.0, 0.5):
        weights = np.exp(logits / temperature)
        ids = draw(
            course, look_up(np.tile(logits, (V, 1))), np.zeros((4000, 1), int), 1, 5, temperature=temperature
        )
        expected = weights / weights.sum()
        yield expected, snap(np.bincount(np.asarray(ids)[:, 1], minlength=V) / 4000, expected, 0.04)


def context_moves(course: Implementation, random: Random) -> Comparisons:
    """Each step predicts from the last N tokens, those it has drawn included."""
    prompts = random.integers(0, V, (2, 2))
    expected = prompts.tolist()
    for row in expected:
        for _ in range(5):
            row.append(sum(row[-2:]) % V)
    yield expected, draw(course, add_last_two, prompts, 5, 0)


LAWS = make_laws(
    4,
    nats_are_minus_log_softmax,
    large_logits_do_not_overflow,
    impossible_targets_are_infinite,
    uniform_perplexity_is_v,
    perfect_perplexity_is_1,
    perplexity_weighs_windows_equally,
    perplexity_is_a_float,
    perplexity_needs_a_window,
    sample_starts_with_the_prompt,
    longer_starts_with_shorter,
    key_decides_the_sample,
    steps_and_streams_differ,
    low_temperature_is_greedy,
    frequencies_are_softmax,
    context_moves,
)
