"""The laws of exercise 5: one SGD step, and the loop over steps."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.course.law import Comparisons, Implementation, Random, make_laws, outcome

V = 4


def table_model(params: Any, contexts: Any) -> Any:
    """A bigram whose parameters are its logits."""
    return params["table"][contexts[:, 0]]


def draw_batch(key: Any) -> tuple[Any, Any]:
    """Return a random batch of 3 windows."""
    # A training loop with these bits compiles in 0.4 s, with `randint` in 0.56 s.
    pairs = (jax.random.bits(key, (3, 2)) % V).astype(jnp.int32)
    return pairs[:, :1], pairs[:, 1]


def sgd_step(table: Any, batch: tuple[Any, Any], lr: float) -> tuple[Any, Any]:
    """Return the table after one step and the loss, in NumPy: the gradient is softmax minus one-hot."""
    contexts, targets = np.asarray(batch[0])[:, 0], np.asarray(batch[1])
    weights = np.exp(table[contexts])
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    gradient = np.zeros_like(table)
    np.add.at(gradient, contexts, (probabilities - np.eye(V)[targets]) / len(targets))
    return table - lr * gradient, -np.log(probabilities[np.arange(len(targets)), targets]).mean()


def draw_table(random: Random) -> Any:
    return random.normal(size=(V, V))


def step_is_sgd(course: Implementation, random: Random) -> Comparisons:
    """A step subtracts the learning rate times the gradient of the batch's mean nats."""
    for lr in (0.0, 1.0, 0.1):
        table, batch = draw_table(random), draw_batch(jax.random.key(int(random.integers(1000))))
        params, _ = course.train_step(table_model, {"table": jnp.asarray(table, jnp.float32)}, batch, lr)
        yield sgd_step(table, batch, lr)[0], params["table"]


def loss_is_before_the_step(course: Implementation, random: Random) -> Comparisons:
    """The loss is the mean nats of the batch before the step."""
    table, batch = draw_table(random), draw_batch(jax.random.key(int(random.integers(1000))))
    _, loss = course.train_step(table_model, {"table": jnp.asarray(table, jnp.float32)}, batch, 1.0)
    yield sgd_step(table, batch, 1.0)[1], loss


def steps_keep_no_state(course: Implementation, random: Random) -> Comparisons:
    """The gradient of a step is that of its batch alone: calling the step before leaves nothing behind."""
    table, batch = draw_table(random), draw_batch(jax.random.key(int(random.integers(1000))))
    params = {"table": jnp.asarray(table, jnp.float32)}
    for _ in range(3):
        yield sgd_step(table, batch, 0.5)[0], course.train_step(table_model, params, batch, 0.5)[0]["table"]


def loss_is_a_mean(course: Implementation, random: Random) -> Comparisons:
    """Three equal rows take the step of one row, because the loss is a mean and not a sum."""
    table, row = draw_table(random), random.integers(0, V, 2).astype(np.int32)
    params, batch = {"table": jnp.asarray(table, jnp.float32)}, (np.full((3, 1), row[0]), np.full(3, row[1]))
    params, loss = course.train_step(table_model, params, jax.tree.map(jnp.asarray, batch), 0.5)
    yield sgd_step(table, batch, 0.5), (params["table"], loss)


def counts_are_not_trained(course: Implementation, random: Random) -> Comparisons:
    """Integer counts have no gradient: training them is an error."""
    params, batch = {"table": jnp.ones((V, V), jnp.int32)}, draw_batch(jax.random.key(0))
    yield "an error", outcome(course.train_step, table_model, params, batch, 0.5)


def train(course: Implementation, table: Any, first: int, num_steps: int, seed: int = 7) -> tuple[Any, Any]:
    params = {"table": jnp.asarray(table, jnp.float32)}
    return course.train(table_model, draw_batch, params, first, num_steps, 0.5, key=jax.random.key(seed))


def step_i_trains_on_batch_i(course: Implementation, random: Random) -> Comparisons:
    """Step i trains on draw(fold_in(key, i)). The result is the last parameters, and the loss of each step."""
    table = start = draw_table(random)
    losses = []
    for number in range(3, 7):
        table, loss = sgd_step(table, draw_batch(jax.random.fold_in(jax.random.key(7), number)), 0.5)
        losses.append(loss)
    params, actual = train(course, start, 3, 4)
    yield losses, actual
    yield table, params["table"]


def pauses_change_no_bit(course: Implementation, random: Random) -> Comparisons:
    """Training with a pause gives the same bits as training without one."""
    start = draw_table(random)
    whole, losses = train(course, start, 0, 8)
    half, first = train(course, start, 0, 4)
    rest, second = train(course, half["table"], 4, 4)
    yield losses, np.concatenate([first, second])
    difference = abs(np.asarray(whole["table"]) - np.asarray(rest["table"])).max()
    yield "the same parameters", f"a difference of {difference}" if difference else "the same parameters"


def key_decides_the_training(course: Implementation, random: Random) -> Comparisons:
    """The batches depend on the key: another key gives other losses."""
    start = draw_table(random)
    first, other = (train(course, start, 0, 4, seed)[1] for seed in (1, 2))
    yield "other losses", "the same losses" if (first == other).all() else "other losses"


def train_long(course: Implementation, model: Any, draw: Any, params: Any, num_steps: int) -> tuple[Any, Any]:
    """Train in compiled pieces of 20 steps. Return the parameters, and the first and the last loss."""
    key = jax.random.key(1)
    run = jax.jit(lambda params, first: course.train(model, draw, params, first, 20, 1.0, key=key))
    losses = []
    for first in range(0, num_steps, 20):
        params, piece = run(params, first)
        losses += [float(piece[0]), float(piece[-1])]
    return params, (losses[0], losses[-1])


def loss_falls(course: Implementation, random: Random) -> Comparisons:
    """On the stream 0101... the loss of your bigram, on your batches, falls below a tenth of its first value."""
    ids, key = jnp.arange(40) % 2, jax.random.key(int(random.integers(1000)))
    draw = functools.partial(course.get_batch, ids, 1, 16)
    params = jax.jit(lambda key: course.init_bigram(2, 4, key=key))(key)
    _, (first, last) = train_long(course, course.bigram_logits, lambda key: draw(key=key), params, 200)
    yield "below a tenth", "below a tenth" if last < 0.1 * first else f"from {first:.2f} to {last:.2f}"


def longer_contexts_help(course: Implementation, random: Random) -> Comparisons:
    """On 00110011... one token of context leaves log 2 nats, and your MLP with two tokens learns it."""
    ids, key = jnp.arange(80) // 2 % 2, jax.random.key(int(random.integers(1000)))
    draw = functools.partial(course.get_batch, ids, 2, 16)
    params = jax.jit(lambda key: course.init_mlp(2, 2, 4, 8, key=key))(key)
    _, (_, last) = train_long(course, course.mlp_logits, lambda key: draw(key=key), params, 400)
    yield "below 0.2 nats", "below 0.2 nats" if last < 0.2 else f"{last:.2f} nats"


LAWS = make_laws(
    5,
    step_is_sgd,
    loss_is_before_the_step,
    steps_keep_no_state,
    loss_is_a_mean,
    counts_are_not_trained,
    step_i_trains_on_batch_i,
    pauses_change_no_bit,
    key_decides_the_training,
    loss_falls,
    longer_contexts_help,
)
