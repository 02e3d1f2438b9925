"""The stages that `experiments.speed.jit.compare` times: one function each, listed in `STAGES`.

A stage defines one item of work as a pure function, `step(inputs, state, i) -> state`. All JAX variants are made
from it, see `variants.py`. `numpy_stages.py` and `pytorch_stages.py` do the same items as users of these libraries
write them.

To add a stage, write a function `(Problem) -> Stage` and list it in `STAGES`, here or in your own `--stage-file`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import jaxlm
from experiments.shared.synthetic import zipf_ids
from jaxlm.models.counts_bigram import add_pairs
from jaxlm.models.interface import compute_logits

NUM_BATCHES = 8  # item i uses batch i modulo this, so that a loop cannot hoist the work
PAIRS = 16_384  # pairs per item of `count`
LEARNING_RATE = 0.1


@dataclass(frozen=True)
class Sizes:
    """Dimensions of the MLP, batch size, and items per call of a compiled variant."""

    vocab_size: int
    context_length: int
    embedding_dim: int
    hidden_dim: int
    batch_size: int
    items: int


@dataclass(frozen=True)
class Problem:
    """The input of the stages: a model, its variables, a token stream, and arrays with a row for each batch."""

    sizes: Sizes
    model: jaxlm.MLPLanguageModel
    variables: Any
    ids: np.ndarray[Any, Any]  # int32 [T]
    chunks: np.ndarray[Any, Any]  # the stream in pieces, int32 [NUM_BATCHES, PAIRS + 1]
    windows: np.ndarray[Any, Any]  # int32 [NUM_BATCHES, B, N + 1]
    logits: np.ndarray[Any, Any]  # float32 [NUM_BATCHES, B, V]


class Stage(NamedTuple):
    """One item of work as a pure function.

    Args:
        step: (inputs, state, i) -> state. The state must hold the result, since compilers remove what is unused.
        inputs: constant arrays.
        state: initial state.
        item: what an item is, such as "1 token".
    """

    step: Callable[[Any, Any, Any], Any]
    inputs: Any
    state: Any
    item: str = "1 item"


def make_problem(sizes: Sizes) -> Problem:
    """Return a new model and a fixed random stream whose token frequencies follow Zipf's law."""
    model = jaxlm.MLPLanguageModel(sizes.vocab_size, sizes.context_length, sizes.embedding_dim, sizes.hidden_dim)
    ids = zipf_ids(sizes.vocab_size, NUM_BATCHES * PAIRS + 1)
    chunks = np.lib.stride_tricks.sliding_window_view(ids, PAIRS + 1)[::PAIRS]
    shape = NUM_BATCHES, sizes.batch_size
    starts = np.random.default_rng(0).integers(len(ids) - sizes.context_length, size=(*shape, 1))
    windows = ids[starts + np.arange(sizes.context_length + 1)]
    logits = np.random.default_rng(2).normal(size=(*shape, sizes.vocab_size)).astype(np.float32)
    return Problem(sizes, model, jaxlm.init(model, jax.random.key(0)), ids, chunks, windows, logits)


def select_batch(windows: Any, i: Any) -> tuple[Any, Any]:
    """Return contexts [B, N] and targets [B] of item i. The windows may be of NumPy, JAX or PyTorch."""
    batch = windows[i % NUM_BATCHES]
    return batch[:, :-1], batch[:, -1]


def count(problem: Problem) -> Stage:
    """Count pairs of ids into the table of a counts bigram."""

    def step(chunks: Array, table: Array, i: Array) -> Array:
        return add_pairs(table, chunks[i % NUM_BATCHES], PAIRS)

    table = jnp.zeros((problem.sizes.vocab_size, problem.sizes.vocab_size), jnp.int32)
    return Stage(step, jnp.asarray(problem.chunks), table, f"{PAIRS:,} pairs")


def batch(problem: Problem) -> Stage:
    """Draw a batch of random windows from the stream."""
    sizes = problem.sizes

    def step(inputs: tuple[Array, Array], state: Any, i: Array) -> Any:
        ids, key = inputs
        return jaxlm.get_batch(ids, sizes.context_length, sizes.batch_size, key=jax.random.fold_in(key, i))

    inputs = jnp.asarray(problem.ids), jax.random.key(1)
    return Stage(step, inputs, step(inputs, None, jnp.int32(0)), f"{sizes.batch_size} windows")


def forward(problem: Problem) -> Stage:
    """Compute the logits of a batch."""

    def step(inputs: tuple[Any, Array], logits: Array, i: Array) -> Array:
        variables, windows = inputs
        return compute_logits(problem.model, variables, select_batch(windows, i)[0])

    inputs, logits = (problem.variables, jnp.asarray(problem.windows)), jnp.zeros(problem.logits.shape[1:])
    return Stage(step, inputs, logits, f"{problem.sizes.batch_size} contexts")


def loss(problem: Problem) -> Stage:
    """Compute the mean nats of a batch from its logits."""

    def step(inputs: tuple[Array, Array], mean: Array, i: Array) -> Array:
        logits, windows = inputs
        return jaxlm.token_nats(logits[i % NUM_BATCHES], select_batch(windows, i)[1]).mean()

    inputs = jnp.asarray(problem.logits), jnp.asarray(problem.windows)
    return Stage(step, inputs, jnp.float32(0), f"{problem.sizes.batch_size} rows of logits")


def training_step(problem: Problem) -> Stage:
    """Compute loss and gradient of a given batch, and update the variables by plain SGD."""
    optimizer, key = optax.sgd(LEARNING_RATE), jax.random.key(3)  # without dropout the key is not used

    def step(windows: Array, state: Any, i: Array) -> Any:
        return jaxlm.train_step(problem.model, optimizer, state[0], select_batch(windows, i), key=key)

    state = jaxlm.init_state(problem.model, optimizer, key=key, variables=problem.variables), jnp.float32(0)
    return Stage(step, jnp.asarray(problem.windows), state, f"{problem.sizes.batch_size} windows")


def sampling(problem: Problem) -> Stage:
    """Sample the next token of one text and shift it into the context."""

    def step(inputs: tuple[Any, Array], context: Array, i: Array) -> Array:
        variables, key = inputs
        token = jaxlm.generate(problem.model, variables, context, key=key, num_tokens=1, start=i)
        return jnp.concatenate([context, token], axis=1)[:, 1:]

    inputs, context = (problem.variables, jax.random.key(2)), jnp.asarray(problem.windows[0, :1, :-1])
    return Stage(step, inputs, context, "1 token")


STAGES = {stage.__name__: stage for stage in (count, batch, forward, loss, training_step, sampling)}
