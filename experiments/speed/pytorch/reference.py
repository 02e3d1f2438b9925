"""The models and their workloads in PyTorch: eager, compiled by `torch.compile`, and as courses write them.

Windows are integers [B, N + 1], a context and its target. This module imports torch.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jax import Array
from torch import nn
from torch.nn import functional

import jaxlm

Tensor = Any  # torch is optional, and mypy must give the same result without it
Function = Callable[..., Tensor]


def from_flax(model: jaxlm.LanguageModel, variables: Any) -> Any:
    """Return the neural bigram or the MLP as a `torch.nn.Sequential`: contexts [B, N] -> logits [B, V]."""
    params = variables["params"]
    embedding = nn.Embedding.from_pretrained(from_jax(params["embedding"]["embedding"]), freeze=False)
    layers = [embedding, nn.Flatten()]
    if isinstance(model, jaxlm.MLPLanguageModel):
        layers += [_linear(params["hidden"]), nn.Tanh()]
    return nn.Sequential(*layers, _linear(params["projection"]))


def from_jax(array: Array) -> Tensor:
    """Copy a JAX array to a tensor."""
    return torch.tensor(np.asarray(array))


def count_by_index_put(table: Tensor, ids: Tensor) -> None:
    """Add the pairs of `ids` [T] to `table`, int32 [V, V], by `index_put_`."""
    keys = ids[:-1] * len(table) + ids[1:]
    table.view(-1).index_put_((keys,), torch.ones((), dtype=table.dtype), accumulate=True)


def count_by_scatter_add(table: Tensor, ids: Tensor) -> None:
    """Add the pairs by `scatter_add_`."""
    keys = ids[:-1] * len(table) + ids[1:]
    table.view(-1).scatter_add_(0, keys, torch.ones(len(keys), dtype=table.dtype))


def count_by_bincount(table: Tensor, ids: Tensor) -> None:
    """Add a table of the pairs counted by `bincount`."""
    keys = ids[:-1] * len(table) + ids[1:]
    table.view(-1).add_(torch.bincount(keys, minlength=table.numel()))


def count_one_by_one(table: Tensor, ids: Sequence[int]) -> None:
    """Add the pairs in a Python loop, as in makemore's notebook."""
    for first, second in itertools.pairwise(ids):
        table[first, second] += 1


def window_nats(module: Any, windows: Tensor, reduction: str = "mean") -> Tensor:
    """Return the mean nats per token, or their sum."""
    return functional.cross_entropy(module(windows[:, :-1]), windows[:, -1], reduction=reduction)


def cut_by_gather(ids: Tensor, starts: Tensor, context_length: int) -> Tensor:
    """Return the windows of `ids` [T] that start at `starts` [B]."""
    return ids[starts[:, None] + torch.arange(context_length + 1)]


def cut_in_python(ids: Tensor, starts: Tensor, context_length: int) -> Tensor:
    """Cut the windows one by one, as in the lectures on nanoGPT and makemore."""
    contexts = torch.stack([ids[start : start + context_length] for start in starts])
    targets = torch.stack([ids[start + context_length] for start in starts])
    return torch.cat([contexts, targets[:, None]], dim=1)


def train(
    module: Any,
    ids: Any,
    *,
    context_length: int,
    batch_size: int,
    num_steps: int,
    lr: float,
    cut: Function = cut_by_gather,
    nats: Function = window_nats,
) -> None:
    """Train `module` in place by plain SGD on random windows."""
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    for _ in range(num_steps):
        starts = torch.randint(len(ids) - context_length, (batch_size,))
        train_step(module, optimizer, cut(ids, starts, context_length), nats)


def train_step(module: Any, optimizer: Any, windows: Tensor, nats: Function = window_nats) -> Tensor:
    """Update the module in place and return the loss before the update."""
    loss = nats(module, windows)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


def next_probabilities(module: Any, window: Tensor) -> Tensor:
    """Return the next-token probabilities [B, V] after contexts [B, N]."""
    return functional.softmax(module(window), dim=1)


def generate(module: Any, window: Tensor, num_tokens: int, probabilities: Function = next_probabilities) -> Tensor:
    """Sample `num_tokens` tokens after contexts [B, N]: [B, num_tokens]."""
    drawn = []
    with torch.inference_mode():
        for _ in range(num_tokens):
            window = append_token(module, window, probabilities)
            drawn.append(window[:, -1:])
    return torch.cat(drawn, dim=1)


def append_token(module: Any, window: Tensor, probabilities: Function = next_probabilities) -> Tensor:
    """Sample a token after each context [B, N] and return the contexts that end with it, [B, N]."""
    token = torch.multinomial(probabilities(module, window), 1)
    return torch.cat([window[:, 1:], token], dim=1)


def generate_in_python(module: Any, context: Sequence[int], num_tokens: int) -> list[int]:
    """Sample one stream with the context in a list, reading each token, as in makemore's notebook."""
    context, drawn = list(context), []
    for _ in range(num_tokens):
        with torch.no_grad():
            probabilities = next_probabilities(module, torch.tensor([context]))
        token = torch.multinomial(probabilities, 1).item()
        context = [*context[1:], token]
        drawn.append(token)
    return drawn


def normalize_counts(table: Tensor) -> Tensor:
    """Return the add-one smoothed probabilities [V, V] of a table of counts."""
    probabilities = (table + 1).float()
    probabilities /= probabilities.sum(1, keepdim=True)
    return probabilities


def generate_from_table(probabilities: Tensor, token: int, num_tokens: int) -> Tensor:
    """Sample `num_tokens` tokens after `token` from a table of probabilities [V, V]: [num_tokens]."""
    drawn = [torch.tensor([token])]
    with torch.inference_mode():
        for _ in range(num_tokens):
            drawn.append(torch.multinomial(probabilities[drawn[-1][0]], 1))
    return torch.cat(drawn[1:])


def generate_from_table_in_python(probabilities: Tensor, token: int, num_tokens: int) -> list[int]:
    """Sample from the table, reading each token, as in makemore's notebook."""
    drawn = []
    for _ in range(num_tokens):
        token = torch.multinomial(probabilities[token], num_samples=1, replacement=True).item()
        drawn.append(token)
    return drawn


def perplexity(
    module: Any, ids: Tensor, *, context_length: int, batch_size: int, nats: Function = window_nats
) -> float:
    """Return `exp` of the mean nats over all windows of `ids` [T]."""
    windows = ids.unfold(0, context_length + 1, 1)
    total = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for batch in windows.split(batch_size):
            total += nats(module, batch, "sum")
    return math.exp(float(total) / len(windows))


def perplexity_in_python(module: Any, ids: Sequence[int], *, context_length: int, batch_size: int) -> float:
    """Return the same perplexity with windows cut in a Python list, reading the nats of each batch."""
    total, num_windows = 0.0, len(ids) - context_length
    for start in range(0, num_windows, batch_size):
        starts = range(start, min(start + batch_size, num_windows))
        with torch.no_grad():
            windows = torch.tensor([ids[each : each + context_length + 1] for each in starts])
            total += window_nats(module, windows, "sum").item()
    return math.exp(total / num_windows)


def table_perplexity(table: Tensor, ids: Tensor) -> float:
    """Normalize the whole table, as in makemore's notebook, and return the perplexity."""
    return math.exp(float(-normalize_counts(table)[ids[:-1], ids[1:]].log().mean(dtype=torch.float64)))


def _linear(params: Any) -> Any:
    layer = nn.Linear(*params["kernel"].shape)
    with torch.no_grad():
        layer.weight.copy_(from_jax(params["kernel"]).T)
        layer.bias.copy_(from_jax(params["bias"]))
    return layer
