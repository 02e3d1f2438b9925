"""The stages that `experiments.speed.jit.compare` times: one function each, listed in `STAGES`.

A stage defines one item of work as a pure function, `step(inputs, state, i) -> state`. All JAX variants are made
from it: eager, one jitted call per item, one compiled loop, vmapped. The stage also does the item in NumPy and
in PyTorch, as their users write it.

To add a stage, write a function `(Problem) -> Stage` and list it in `STAGES`.
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
from experiments.speed.jit.numpy_reference import numpy_forward, numpy_nats, numpy_train
from jaxlm.models.counts_bigram import add_pairs
from jaxlm.models.interface import compute_logits
from jaxlm.sampling.distributions import compute_distributions, sample_tokens

VMAP_WIDTH = 8  # items that `vmap` processes side by side
NUM_BATCHES = 8  # item i uses batch i modulo this, so that a loop cannot hoist the work
PAIRS = 16_384  # pairs per item of `count`
LEARNING_RATE = 0.1
MAX_TABLE_BYTES = 2**28  # for the vmapped copies of a table of counts


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
    """The input of the stages: a model, its variables, a token stream, and batches of its windows."""

    sizes: Sizes
    model: jaxlm.MLPLanguageModel
    variables: Any
    ids: np.ndarray[Any, Any]  # int32 [T]
    contexts: np.ndarray[Any, Any]  # int32 [NUM_BATCHES, B, N]
    targets: np.ndarray[Any, Any]  # int32 [NUM_BATCHES, B]

    @property
    def arrays(self) -> tuple[np.ndarray[Any, Any], ...]:
        """The model's five arrays, copied to NumPy."""
        params = self.variables["params"]
        embedding = np.array(params["embedding"]["embedding"])
        layers = [params[layer][name] for layer in ("hidden", "projection") for name in ("kernel", "bias")]
        return embedding, *map(np.array, layers)

    def make_network(self, device: str) -> Any:
        """Return the model as a `torch.nn.Sequential`."""
        from experiments.speed.pytorch.reference import from_flax  # imports torch

        return from_flax(self.model, self.variables).to(device)

    def make_tensors(self, torch: Any, device: str) -> tuple[Any, Any]:
        """Return contexts and targets as tensors."""
        contexts, targets = (
            torch.tensor(array, dtype=torch.int64, device=device) for array in (self.contexts, self.targets)
        )
        return contexts, targets


class Stage(NamedTuple):
    """One item of work, as a pure function and in NumPy and PyTorch.

    Args:
        item: what an item is, such as "1 token".
        step: (inputs, state, i) -> state. The state must hold the result, since compilers remove what is unused.
        inputs: constant arrays.
        state: initial state.
        numpy: does item i, keeps its own state, and returns what `output` selects from a state of `step`.
        torch: (torch module, device) -> a function like `numpy`.
        output: selects the result from a state.
        no_vmap: why there is no vmapped variant, or "".
        needs_gradients: PyTorch must record the operations.
    """

    item: str
    step: Callable[[Any, Any, Any], Any]
    inputs: Any
    state: Any
    numpy: Callable[[int], Any]
    torch: Callable[[Any, str], Callable[[int], Any]]
    output: Callable[[Any], Any] = lambda state: state
    no_vmap: str = ""
    needs_gradients: bool = False


def make_problem(sizes: Sizes) -> Problem:
    """Return a fresh model and a random stream whose token frequencies follow Zipf's law, always the same."""
    model = jaxlm.MLPLanguageModel(sizes.vocab_size, sizes.context_length, sizes.embedding_dim, sizes.hidden_dim)
    ids = zipf_ids(sizes.vocab_size, NUM_BATCHES * PAIRS + 1)
    shape = NUM_BATCHES, sizes.batch_size, 1
    starts = np.random.default_rng(0).integers(0, len(ids) - sizes.context_length, shape)
    windows = ids[starts + np.arange(sizes.context_length + 1)]
    variables = jaxlm.init(model, jax.random.key(0))
    return Problem(sizes, model, variables, ids, windows[:, :, :-1], windows[:, :, -1])


def count(problem: Problem) -> Stage:
    """Count pairs of ids into the table of a counts bigram."""
    shape = problem.sizes.vocab_size, problem.sizes.vocab_size
    chunks = np.stack([problem.ids[start : start + PAIRS + 1] for start in range(0, len(problem.ids) - 1, PAIRS)])

    def step(chunks: Array, table: Array, i: Array) -> Array:
        return add_pairs(table, chunks[i % NUM_BATCHES], PAIRS)

    numpy_table = np.zeros(shape, np.int32)

    def with_numpy(i: int) -> Any:
        ids = chunks[i % NUM_BATCHES]
        np.add.at(numpy_table, (ids[:-1], ids[1:]), 1)
        return numpy_table

    def with_torch(torch: Any, device: str) -> Callable[[int], Any]:
        table = torch.zeros(shape, dtype=torch.int32, device=device)
        ones = torch.ones(PAIRS, dtype=torch.int32, device=device)
        all_ids = torch.tensor(chunks, dtype=torch.int64, device=device)

        def run(i: int) -> Any:
            ids = all_ids[i % NUM_BATCHES]
            return table.index_put_((ids[:-1], ids[1:]), ones, accumulate=True)

        return run

    table_bytes = VMAP_WIDTH * numpy_table.nbytes
    no_vmap = f"{VMAP_WIDTH} tables take {table_bytes / 2**20:,.0f} MiB" if table_bytes > MAX_TABLE_BYTES else ""
    inputs, state = jnp.asarray(chunks), jnp.zeros(shape, jnp.int32)
    return Stage(f"{PAIRS:,} pairs", step, inputs, state, with_numpy, with_torch, no_vmap=no_vmap)


def batch(problem: Problem) -> Stage:
    """Draw a batch of random windows from the stream."""
    sizes, num_starts = problem.sizes, len(problem.ids) - problem.sizes.context_length

    def step(inputs: tuple[Array, Array], state: Any, i: Array) -> tuple[Array, Array]:
        ids, key = inputs
        return jaxlm.get_batch(ids, sizes.context_length, sizes.batch_size, key=jax.random.fold_in(key, i))

    random, offsets = np.random.default_rng(0), np.arange(sizes.context_length + 1)

    def with_numpy(i: int) -> Any:
        starts = random.integers(0, num_starts, sizes.batch_size)
        windows = problem.ids[starts[:, None] + offsets]
        return windows[:, :-1], windows[:, -1]

    def with_torch(torch: Any, device: str) -> Callable[[int], Any]:
        ids = torch.tensor(problem.ids, dtype=torch.int64, device=device)
        all_windows = ids.unfold(0, sizes.context_length + 1, 1)  # a view

        def run(i: int) -> Any:
            windows = all_windows[torch.randint(num_starts, (sizes.batch_size,), device=device)]
            return windows[:, :-1], windows[:, -1]

        return run

    inputs = jnp.asarray(problem.ids), jax.random.key(1)
    state = jnp.asarray(problem.contexts[0]), jnp.asarray(problem.targets[0])
    return Stage(f"{sizes.batch_size} windows", step, inputs, state, with_numpy, with_torch)


def forward(problem: Problem) -> Stage:
    """Compute the logits of a batch."""
    sizes, arrays = problem.sizes, problem.arrays

    def step(inputs: tuple[Any, Array], logits: Array, i: Array) -> Array:
        variables, contexts = inputs
        return compute_logits(problem.model, variables, contexts[i % NUM_BATCHES])

    def with_numpy(i: int) -> Any:
        return numpy_forward(arrays, problem.contexts[i % NUM_BATCHES])[-1]

    def with_torch(torch: Any, device: str) -> Callable[[int], Any]:
        network, (contexts, _) = problem.make_network(device), problem.make_tensors(torch, device)
        return lambda i: network(contexts[i % NUM_BATCHES])

    inputs, state = (
        (problem.variables, jnp.asarray(problem.contexts)),
        jnp.zeros((sizes.batch_size, sizes.vocab_size)),
    )
    return Stage(f"{sizes.batch_size} contexts", step, inputs, state, with_numpy, with_torch)


def loss(problem: Problem) -> Stage:
    """Compute the mean nats of a batch from its logits."""
    batch_size = problem.sizes.batch_size
    shape = NUM_BATCHES, batch_size, problem.sizes.vocab_size
    all_logits = np.random.default_rng(2).normal(size=shape).astype(np.float32)

    def step(inputs: tuple[Array, Array], mean: Array, i: Array) -> Array:
        logits, targets = inputs
        return jaxlm.token_nats(logits[i % NUM_BATCHES], targets[i % NUM_BATCHES]).mean()

    def with_numpy(i: int) -> Any:
        return numpy_nats(all_logits[i % NUM_BATCHES], problem.targets[i % NUM_BATCHES]).mean()

    def with_torch(torch: Any, device: str) -> Callable[[int], Any]:
        logits, (_, targets) = torch.tensor(all_logits, device=device), problem.make_tensors(torch, device)
        nats = torch.nn.functional.cross_entropy
        return lambda i: nats(logits[i % NUM_BATCHES], targets[i % NUM_BATCHES])

    inputs = jnp.asarray(all_logits), jnp.asarray(problem.targets)
    return Stage(f"{batch_size} rows of logits", step, inputs, jnp.float32(0), with_numpy, with_torch)


def training_step(problem: Problem) -> Stage:
    """Compute loss and gradient of a given batch, and update the variables by plain SGD."""
    model, optimizer = problem.model, optax.sgd(LEARNING_RATE)

    def step(inputs: tuple[Array, Array], state: Any, i: Array) -> Any:
        contexts, targets = (each[i % NUM_BATCHES] for each in inputs)
        variables, opt_state, _ = state

        def mean_nats(variables: Any) -> Array:
            return jaxlm.token_nats(compute_logits(model, variables, contexts), targets).mean()

        mean, gradients = jax.value_and_grad(mean_nats)(variables)
        updates, opt_state = optimizer.update(gradients, opt_state, variables)
        return optax.apply_updates(variables, updates), opt_state, mean

    numpy_params = problem.arrays

    def with_numpy(i: int) -> Any:
        batch = problem.contexts[i % NUM_BATCHES], problem.targets[i % NUM_BATCHES]
        return numpy_train(numpy_params, *batch, LEARNING_RATE)

    def with_torch(torch: Any, device: str) -> Callable[[int], Any]:
        network, (contexts, targets) = problem.make_network(device), problem.make_tensors(torch, device)
        sgd = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)

        def run(i: int) -> Any:
            logits = network(contexts[i % NUM_BATCHES])
            mean = torch.nn.functional.cross_entropy(logits, targets[i % NUM_BATCHES])
            sgd.zero_grad(set_to_none=True)
            mean.backward()
            sgd.step()
            return mean.detach()

        return run

    return Stage(
        f"{problem.sizes.batch_size} windows",
        step,
        inputs=(jnp.asarray(problem.contexts), jnp.asarray(problem.targets)),
        state=(problem.variables, optimizer.init(problem.variables), jnp.float32(0)),
        numpy=with_numpy,
        torch=with_torch,
        output=lambda state: state[2],
        needs_gradients=True,
    )


def evaluation(problem: Problem) -> Stage:
    """Add the nats of a batch to a running total."""
    arrays, numpy_total = problem.arrays, np.zeros((), np.float32)

    def step(inputs: tuple[Any, Array, Array], total: Array, i: Array) -> Array:
        variables, contexts, targets = inputs
        logits = compute_logits(problem.model, variables, contexts[i % NUM_BATCHES])
        return total + jaxlm.token_nats(logits, targets[i % NUM_BATCHES]).sum()

    def with_numpy(i: int) -> Any:
        logits = numpy_forward(arrays, problem.contexts[i % NUM_BATCHES])[-1]
        numpy_total[...] += numpy_nats(logits, problem.targets[i % NUM_BATCHES]).sum()
        return numpy_total

    def with_torch(torch: Any, device: str) -> Callable[[int], Any]:
        network, (contexts, targets) = problem.make_network(device), problem.make_tensors(torch, device)
        total = torch.zeros((), device=device)

        def run(i: int) -> Any:
            logits = network(contexts[i % NUM_BATCHES])
            return total.add_(torch.nn.functional.cross_entropy(logits, targets[i % NUM_BATCHES], reduction="sum"))

        return run

    item = f"{problem.sizes.batch_size} windows"
    inputs = problem.variables, jnp.asarray(problem.contexts), jnp.asarray(problem.targets)
    return Stage(item, step, inputs, jnp.float32(0), with_numpy, with_torch)


def sampling(problem: Problem) -> Stage:
    """Sample the next token of one text and shift it into the context."""
    arrays, first = problem.arrays, problem.contexts[0, :1]

    def step(inputs: tuple[Any, Array], window: Array, i: Array) -> Array:
        variables, key = inputs
        logits = compute_logits(problem.model, variables, window)
        uniforms = jax.random.uniform(jax.random.fold_in(key, i), (1,))
        token = sample_tokens(compute_distributions(logits), uniforms)
        return jnp.concatenate([window, token[:, None]], axis=1)[:, 1:]

    random, numpy_window = np.random.default_rng(0), first.copy()

    def with_numpy(i: int) -> Any:
        logits = numpy_forward(arrays, numpy_window)[-1][0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        numpy_window[0, :-1] = numpy_window[0, 1:]
        numpy_window[0, -1] = random.choice(len(weights), p=weights / weights.sum())
        return numpy_window

    def with_torch(torch: Any, device: str) -> Callable[[int], Any]:
        network, window = problem.make_network(device), torch.tensor(first, dtype=torch.int64, device=device)

        def run(i: int) -> Any:
            nonlocal window
            probabilities = torch.softmax(network(window), dim=1)
            token = torch.multinomial(probabilities, num_samples=1)
            window = torch.cat((window[:, 1:], token), dim=1)
            return window

        return run

    inputs = problem.variables, jax.random.key(2)
    return Stage("1 token", step, inputs, jnp.asarray(first), with_numpy, with_torch)


STAGES = {stage.__name__: stage for stage in (count, batch, forward, loss, training_step, evaluation, sampling)}
