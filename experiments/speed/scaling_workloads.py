"""The workloads of `experiments.speed.scaling`, and the panels that vary one dimension of them at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax

import jaxlm
from experiments.shared.synthetic import zipf_ids
from experiments.shared.training import fit_counts, make_count_call


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


Call = tuple[Callable[[], Any], int]  # a function without arguments, and the units of work in one call


class Workload(NamedTuple):
    """A workload: its unit, a function that builds its call, and the operations per unit."""

    unit: str
    build: Callable[[Shape], Call]
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


def make_mlp(shape: Shape) -> tuple[jaxlm.MLPLanguageModel, Any]:
    """Return the MLP of the shape and its initial variables."""
    mlp = jaxlm.MLPLanguageModel(shape.vocab_size, shape.context_length, shape.embedding_dim, shape.hidden_dim)
    return mlp, jaxlm.init(mlp, jax.random.key(1))


def make_counts(shape: Shape) -> tuple[jaxlm.CountsBigramLM, Any]:
    """Return the counts bigram of a text of the shape."""
    model = jaxlm.CountsBigramLM(shape.vocab_size)
    return model, fit_counts(model, zipf_ids(shape.vocab_size, shape.corpus_length))


def train_mlp(shape: Shape) -> Call:
    """Train the MLP."""
    (mlp, variables), num_steps = make_mlp(shape), shape.num_steps
    options: dict[str, Any] = {"variables": variables, "batch_size": shape.batch_size, "key": jax.random.key(0)}
    ids = zipf_ids(shape.vocab_size, shape.corpus_length)
    return lambda: jaxlm.train_lm(mlp, ids, num_steps=num_steps, log_every=num_steps, **options)[0], num_steps


def sample(model: jaxlm.LanguageModel, variables: Any, shape: Shape) -> Call:
    """Sample after prompts of one context each."""
    prompt = zipf_ids(shape.vocab_size, shape.num_streams * model.context_length)
    prompts = prompt.reshape(shape.num_streams, model.context_length)
    call = partial(jaxlm.sample, model, variables, prompts, shape.num_tokens, key=jax.random.key(0))
    return call, shape.num_tokens * shape.num_streams


def score(model: jaxlm.LanguageModel, variables: Any, shape: Shape, seed: int = 0) -> Call:
    """Compute the perplexity of a text."""
    ids = zipf_ids(shape.vocab_size, shape.num_windows + model.context_length, seed)
    return partial(jaxlm.perplexity, model, variables, ids), shape.num_windows


def count_pairs(shape: Shape) -> Call:
    """Count pairs into a table that each call donates to the next."""
    ids = zipf_ids(shape.vocab_size, shape.corpus_length)
    return make_count_call(jaxlm.CountsBigramLM(shape.vocab_size), ids), len(ids) - 1


def count_products(shape: Shape) -> float:
    """Count the multiplications in the MLP's matrix products for one context."""
    return shape.hidden_dim * (shape.context_length * shape.embedding_dim + shape.vocab_size)


def constant_work(shape: Shape) -> float:
    """Return 1: a unit of work is always the same."""
    return 1.0


WORKLOADS = {
    "training step": Workload("step", train_mlp, lambda shape: shape.batch_size * count_products(shape)),
    "sampled token": Workload("token", lambda shape: sample(*make_mlp(shape), shape), count_products),
    "sampled token, counts": Workload(
        "token", lambda shape: sample(*make_counts(shape), shape), lambda shape: shape.vocab_size
    ),
    "scored window": Workload("window", lambda shape: score(*make_mlp(shape), shape), count_products),
    "scored window, counts": Workload(
        "window", lambda shape: score(*make_counts(shape), shape, seed=1), lambda shape: shape.vocab_size
    ),
    "counted pair": Workload("pair", count_pairs, constant_work),
}

_MODEL_SIZES = (
    ("vocab_size", (1024, 2048, 4096, 8192, 16_384)),
    ("context_length", (1, 4, 16, 64)),
    ("hidden_dim", (32, 64, 128, 256, 512)),
)
PANELS = (
    *(Panel("training step", "time", *sizes) for sizes in _MODEL_SIZES),
    Panel("training step", "time", "batch_size", (16, 64, 256, 1024)),
    Panel("training step", "time", "corpus_length", (10_000, 100_000, 1_000_000, 10_000_000)),
    *(Panel("sampled token", "time", *sizes) for sizes in _MODEL_SIZES),
    Panel("sampled token", "time", "num_streams", (1, 4, 16, 64, 256)),
    Panel("sampled token", "time", "num_tokens", (500, 2000, 8000, 32_000)),
    *(Panel("scored window", "time", *sizes) for sizes in _MODEL_SIZES),
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
