"""The stages of `experiments.speed.jit.compare` in eager PyTorch on the CPU. This module imports torch.

Each function returns `run(_, i)`, which does item i, keeps its own state, and returns the result.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from experiments.speed.jit.stages import LEARNING_RATE, NUM_BATCHES, Problem, select_batch
from experiments.speed.pytorch import reference

Run = Callable[[Any, int], Any]


def to_tensor(ids: Any) -> Any:
    """Copy ids to a tensor."""
    return torch.tensor(ids, dtype=torch.int64)


def count(problem: Problem) -> Run:
    """Count pairs of ids."""
    table = torch.zeros((problem.sizes.vocab_size, problem.sizes.vocab_size), dtype=torch.int32)
    chunks = to_tensor(problem.chunks)

    def run(_: Any, i: int) -> Any:
        reference.count_by_index_put(table, chunks[i % NUM_BATCHES])
        return table

    return run


def batch(problem: Problem) -> Run:
    """Draw a batch of random windows."""
    sizes, ids = problem.sizes, to_tensor(problem.ids)

    def run(_: Any, i: int) -> Any:
        starts = torch.randint(len(ids) - sizes.context_length, (sizes.batch_size,))
        windows = reference.cut_by_gather(ids, starts, sizes.context_length)
        return windows[:, :-1], windows[:, -1]

    return run


def forward(problem: Problem) -> Run:
    """Compute the logits of a batch."""
    network, windows = reference.from_flax(problem.model, problem.variables), to_tensor(problem.windows)
    return lambda _, i: network(select_batch(windows, i)[0])


def loss(problem: Problem) -> Run:
    """Compute the mean nats of a batch from its logits."""
    logits, windows = torch.tensor(problem.logits), to_tensor(problem.windows)
    return lambda _, i: functional.cross_entropy(logits[i % NUM_BATCHES], select_batch(windows, i)[1])


def training_step(problem: Problem) -> Run:
    """Train on a given batch."""
    network, windows = reference.from_flax(problem.model, problem.variables), to_tensor(problem.windows)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    step = torch.enable_grad()(reference.train_step)
    return lambda _, i: step(network, optimizer, windows[i % NUM_BATCHES])


def sampling(problem: Problem) -> Run:
    """Sample the next token and shift it into the context."""
    network = reference.from_flax(problem.model, problem.variables)
    context = to_tensor(problem.windows[0, :1, :-1])

    def run(_: Any, i: int) -> Any:
        nonlocal context
        context = reference.append_token(network, context)
        return context

    return run


STAGES = count, batch, forward, loss, training_step, sampling
PYTORCH_STAGES = {stage.__name__: lambda problem, stage=stage: torch.no_grad()(stage(problem)) for stage in STAGES}
