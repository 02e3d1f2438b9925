"""The workloads of `experiments.speed.scaling`, and the panels that vary one dimension of them at a time."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

import jaxlm
from experiments.shared.synthetic import zipf_ids


@dataclass(frozen=True)
class Shape:
    """The dimensions that the cost of a workload may depend on."""

    vocab_size: int = 4096
    context_length: int = 3
    embedding_dim: int = 32
    hidden_dim: int = 64
    batch_size: int = 64
    corpus_length: int = 309_843
    num_windows: int = 34_410
    num_streams: int = 1
    num_tokens: int = 2_000
    num_steps: int = 100


class Workload(NamedTuple):
    """A workload: its unit, a function that makes a call and its number of units, and the operations per unit."""

    unit: str
    build: Callable[[Shape], tuple[Callable[[], Any], int]]
    work: Callable[[Shape], float]


class Panel(NamedTuple):
    """The cost of a workload (`time`, `compile` or `memory`) by one field of its shape."""

    workload: str
    cost: str
    field: str
    values: Sequence[int]

    @property
    def title(self) -> str:
        return f"{self.workload}, {self.cost} by {self.field}"


def time_training(shape: Shape) -> tuple[Callable[[], Any], int]:
    """Train the MLP."""
    ids = zipf_ids(shape.vocab_size, shape.corpus_length)
    train = functools.partial(
        jaxlm.train_lm,
        make_mlp(shape),
        ids,
        key=jax.random.key(0),
        variables=jaxlm.init(make_mlp(shape), jax.random.key(1)),
        batch_size=shape.batch_size,
        num_steps=shape.num_steps,
        log_every=shape.num_steps,
    )
    return lambda: train()[0], shape.num_steps


def time_sampling(shape: Shape) -> tuple[Callable[[], Any], int]:
    """Sample from the MLP."""
    return make_sampling(make_mlp(shape), jaxlm.init(make_mlp(shape), jax.random.key(1)), shape)


def time_counts_sampling(shape: Shape) -> tuple[Callable[[], Any], int]:
    """Sample from the counts bigram."""
    return make_sampling(jaxlm.CountsBigramLM(shape.vocab_size), fit_counts(shape), shape)


def time_scoring(shape: Shape) -> tuple[Callable[[], Any], int]:
    """Compute the perplexity of the MLP."""
    ids = zipf_ids(shape.vocab_size, shape.num_windows + shape.context_length)
    variables = jaxlm.init(make_mlp(shape), jax.random.key(1))
    return functools.partial(jaxlm.perplexity, make_mlp(shape), variables, ids), shape.num_windows


def time_counts_scoring(shape: Shape) -> tuple[Callable[[], Any], int]:
    """Compute the perplexity of the counts bigram."""
    ids, model = zipf_ids(shape.vocab_size, shape.num_windows + 1, seed=1), jaxlm.CountsBigramLM(shape.vocab_size)
    return functools.partial(jaxlm.perplexity, model, fit_counts(shape), ids), shape.num_windows


def time_counting(shape: Shape) -> tuple[Callable[[], Any], int]:
    """Count pairs into a table that each call donates to the next."""
    model, ids = jaxlm.CountsBigramLM(shape.vocab_size), zipf_ids(shape.vocab_size, shape.corpus_length)
    kept = [jaxlm.init(model, jax.random.key(0))]

    def fit() -> Any:
        kept[0] = model.fit(kept[0], ids)
        return kept[0]

    return fit, shape.corpus_length - 1


def make_sampling(model: jaxlm.LanguageModel, variables: Any, shape: Shape) -> tuple[Callable[[], Any], int]:
    """Sample after prompts of one context each."""
    prompt = zipf_ids(shape.vocab_size, shape.num_streams * model.context_length)
    prompts = prompt.reshape(shape.num_streams, model.context_length)
    call = functools.partial(jaxlm.sample, model, variables, prompts, shape.num_tokens, key=jax.random.key(0))
    return call, shape.num_tokens * shape.num_streams


def make_mlp(shape: Shape) -> jaxlm.MLPLanguageModel:
    """Return the MLP of the shape."""
    return jaxlm.MLPLanguageModel(shape.vocab_size, shape.context_length, shape.embedding_dim, shape.hidden_dim)


def fit_counts(shape: Shape) -> Any:
    """Return the counts of a text of the shape."""
    fit, _ = time_counting(shape)
    return fit()


def count_products(shape: Shape) -> float:
    """Count the multiplications in the MLP's matrix products for one context."""
    return shape.hidden_dim * (shape.context_length * shape.embedding_dim + shape.vocab_size)


def constant_work(shape: Shape) -> float:
    """Return 1: a unit of work is always the same."""
    return 1.0


WORKLOADS = {
    "training step": Workload("step", time_training, lambda shape: shape.batch_size * count_products(shape)),
    "sampled token": Workload("token", time_sampling, count_products),
    "sampled token, counts": Workload("token", time_counts_sampling, lambda shape: shape.vocab_size),
    "scored window": Workload("window", time_scoring, count_products),
    "scored window, counts": Workload("window", time_counts_scoring, lambda shape: shape.vocab_size),
    "counted pair": Workload("pair", time_counting, constant_work),
}

PANELS = (
    Panel("training step", "time", "vocab_size", (1024, 2048, 4096, 8192, 16_384)),
    Panel("training step", "time", "batch_size", (16, 64, 256, 1024)),
    Panel("training step", "time", "context_length", (1, 4, 16, 64)),
    Panel("training step", "time", "hidden_dim", (32, 64, 128, 256, 512)),
    Panel("training step", "time", "corpus_length", (10_000, 100_000, 1_000_000, 10_000_000)),
    Panel("sampled token", "time", "vocab_size", (1024, 2048, 4096, 8192, 16_384)),
    Panel("sampled token", "time", "context_length", (1, 4, 16, 64)),
    Panel("sampled token", "time", "hidden_dim", (32, 64, 128, 256, 512)),
    Panel("sampled token", "time", "num_streams", (1, 4, 16, 64, 256)),
    Panel("sampled token", "time", "num_tokens", (500, 2000, 8000, 32_000)),
    Panel("scored window", "time", "vocab_size", (1024, 2048, 4096, 8192, 16_384)),
    Panel("scored window", "time", "context_length", (1, 4, 16, 64)),
    Panel("scored window", "time", "hidden_dim", (32, 64, 128, 256, 512)),
    Panel("scored window", "time", "num_windows", (1000, 10_000, 100_000, 400_000)),
    Panel("sampled token, counts", "time", "vocab_size", (1024, 2048, 4096, 8192)),
    Panel("scored window, counts", "time", "vocab_size", (1024, 2048, 4096, 8192)),
    Panel("counted pair", "time", "vocab_size", (256, 1024, 4096, 8192)),
    Panel("counted pair", "time", "corpus_length", (100_000, 1_000_000, 10_000_000)),
    Panel("training step", "compile", "num_steps", (10, 100, 1000)),
    Panel("sampled token", "compile", "num_tokens", (10, 100, 1000, 10_000)),
    Panel("scored window", "compile", "num_windows", (1000, 10_000, 100_000)),
    Panel("counted pair", "compile", "corpus_length", (10_000, 100_000, 1_000_000)),
    Panel("scored window", "memory", "num_windows", (10_000, 100_000, 1_000_000)),
    Panel("counted pair", "memory", "corpus_length", (1_000_000, 10_000_000, 100_000_000)),
)
