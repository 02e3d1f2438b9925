"""The stages of `experiments.speed.jit.compare` in NumPy, written as NumPy users write them.

Each function returns `run(_, i)`, which does item i, keeps its own state, and returns the result. `params` are the
five arrays of `jaxlm.MLPLanguageModel`: embedding [V, D], hidden kernel [N * D, H] and bias [H], projection kernel
[H, V] and bias [V].
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.shared.training import Ids
from experiments.speed.jit.stages import LEARNING_RATE, NUM_BATCHES, Problem, select_batch

Floats = np.ndarray[Any, Any]
Run = Callable[[Any, int], Any]


def copy_params(problem: Problem) -> tuple[Floats, ...]:
    """Return copies of the model's five arrays."""
    params = problem.variables["params"]
    layers = [params[layer][name] for layer in ("hidden", "projection") for name in ("kernel", "bias")]
    return tuple(map(np.array, (params["embedding"]["embedding"], *layers)))


def compute_layers(params: tuple[Floats, ...], contexts: Ids) -> tuple[Floats, Floats, Floats]:
    """Return the outputs of the layers: concatenated embeddings [B, N * D], hidden [B, H], logits [B, V]."""
    embedding, hidden_kernel, hidden_bias, kernel, bias = params
    concatenated = embedding[contexts].reshape(len(contexts), -1)
    hidden = np.tanh(concatenated @ hidden_kernel + hidden_bias)
    return concatenated, hidden, hidden @ kernel + bias


def token_nats(logits: Floats, targets: Ids) -> Floats:
    """Return `-log softmax(logits)[target]` for each row, [B]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(targets)), targets]


def train(params: tuple[Floats, ...], contexts: Ids, targets: Ids, lr: float) -> Any:
    """Do one step of SGD in place, with hand-written gradients. Return the mean nats before the step."""
    embedding, hidden_kernel, _, kernel, _ = params
    concatenated, hidden, logits = compute_layers(params, contexts)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(targets))
    mean = -np.log(probabilities[rows, targets]).mean()
    d_logits = probabilities
    d_logits[rows, targets] -= 1
    d_logits /= len(targets)
    d_hidden = d_logits @ kernel.T * (1 - hidden**2)
    d_concatenated = d_hidden @ hidden_kernel.T
    d_embedding = np.zeros_like(embedding)
    np.add.at(d_embedding, contexts, d_concatenated.reshape(*contexts.shape, -1))
    d_hidden_kernel, d_kernel = concatenated.T @ d_hidden, hidden.T @ d_logits
    gradients = d_embedding, d_hidden_kernel, d_hidden.sum(axis=0), d_kernel, d_logits.sum(axis=0)
    for param, gradient in zip(params, gradients, strict=True):
        param -= lr * gradient
    return mean


def count(problem: Problem) -> Run:
    """Count pairs of ids."""
    table = np.zeros((problem.sizes.vocab_size, problem.sizes.vocab_size), np.int32)

    def run(_: Any, i: int) -> Ids:
        ids = problem.chunks[i % NUM_BATCHES]
        np.add.at(table, (ids[:-1], ids[1:]), 1)
        return table

    return run


def batch(problem: Problem) -> Run:
    """Draw a batch of random windows."""
    sizes, random, offsets = problem.sizes, np.random.default_rng(0), np.arange(problem.sizes.context_length + 1)

    def run(_: Any, i: int) -> tuple[Ids, Ids]:
        starts = random.integers(0, len(problem.ids) - sizes.context_length, sizes.batch_size)
        windows = problem.ids[starts[:, None] + offsets]
        return windows[:, :-1], windows[:, -1]

    return run


def forward(problem: Problem) -> Run:
    """Compute the logits of a batch."""
    params = copy_params(problem)
    return lambda _, i: compute_layers(params, select_batch(problem.windows, i)[0])[-1]


def loss(problem: Problem) -> Run:
    """Compute the mean nats of a batch from its logits."""
    return lambda _, i: token_nats(problem.logits[i % NUM_BATCHES], select_batch(problem.windows, i)[1]).mean()


def training_step(problem: Problem) -> Run:
    """Train on a given batch."""
    params = copy_params(problem)
    return lambda _, i: train(params, *select_batch(problem.windows, i), LEARNING_RATE)


def sampling(problem: Problem) -> Run:
    """Sample the next token and shift it into the context."""
    params, random, context = copy_params(problem), np.random.default_rng(0), problem.windows[0, :1, :-1].copy()

    def run(_: Any, i: int) -> Ids:
        logits = compute_layers(params, context)[-1][0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        context[0, :-1] = context[0, 1:]
        context[0, -1] = random.choice(len(weights), p=weights / weights.sum())
        return context

    return run


NUMPY_STAGES = {stage.__name__: stage for stage in (count, batch, forward, loss, training_step, sampling)}
