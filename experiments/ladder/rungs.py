"""The rungs of the ladder: two baselines, the bigram counts, and two networks with their training recipes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxlm
from experiments.shared.options import TextOptions, TokenizerOptions
from experiments.shared.training import fit_counts, momentum_sgd
from jaxlm.models.baselines import UniformLM, UnigramLM
from jaxlm.text.dataset import Dataset, load_dataset
from jaxlm.training.optimizers import sgd
from jaxlm.utils.timing import Timing, measure_time


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(TokenizerOptions):
    """Sizes of the networks, and the length of the samples."""

    bigram_embedding_dim: int = 64
    """Embedding dimension of the neural bigram."""
    mlp_context_length: int = 3
    """Context length of the MLP, in tokens."""
    mlp_embedding_dim: int = 32
    """Embedding dimension of the MLP."""
    mlp_hidden_dim: int = 64
    """Hidden units of the MLP."""
    num_tokens: int = 100
    """Tokens to sample from each model."""


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of training. `optimizer` maps a learning rate and a number of steps to an optimizer."""

    num_steps: int
    batch_size: int
    optimizer: Callable[[float, int], optax.GradientTransformation]
    bigram_lr: float
    mlp_lr: float


# Each learning rate of `momentum` is the best of four, measured on the last 30,000 training tokens. The four come
# from a sweep of shorter runs on the validation text. The course states no rate; with 0.4 the networks end near
# its perplexities.
RECIPES = {
    "momentum": Recipe(num_steps=6000, batch_size=128, optimizer=momentum_sgd, bigram_lr=2.0, mlp_lr=0.5),
    "course": Recipe(num_steps=500, batch_size=64, optimizer=sgd, bigram_lr=0.4, mlp_lr=0.4),
}


@dataclass(frozen=True)
class Rung:
    """A trained model of the ladder with its evaluation on the validation text.

    Args:
        records: the records of training; empty for counts.
        perplexities: one per seed; empty for models without training.
    """

    name: str
    title: str
    model: jaxlm.LanguageModel
    variables: Any
    evaluation: jaxlm.Evaluation
    timing: Timing
    records: Sequence[jaxlm.Record] = ()
    perplexities: Sequence[float] = ()


@dataclass(frozen=True)
class Network:
    """A network and how to train it. `fold` separates its keys from those of the other network.

    `optimizer` is built once, so that all seeds share one compiled program.
    """

    name: str
    title: str
    model: jaxlm.NeuralBigramLM | jaxlm.MLPLanguageModel
    lr: float
    optimizer: optax.GradientTransformation
    num_steps: int
    batch_size: int
    fold: int


def load_text(
    options: TextOptions, tokenizer: Any = "bpe", vocab_size: int | None = None, *, min_tokens: int
) -> Dataset:
    """Load the text and encode it with a tokenizer of the given kind, trained on the whole text."""
    size = vocab_size or (512 if options.quick else 4096)
    return load_dataset(options.corpus, options.text, tokenizer, vocab_size=size, min_tokens=min_tokens)


def fit_baselines(data: Dataset) -> list[Rung]:
    """Return the uniform model, the unigram, and the bigram counts with add-one and with the best add-k."""
    vocab_size, ids = data.tokenizer.vocab_size, data.train_ids
    bigram = jaxlm.CountsBigramLM(vocab_size)

    def fit_best_k() -> tuple[jaxlm.LanguageModel, Any]:
        # The last tenth of the training text selects k, not the validation text.
        fit_ids, held_out_ids = jaxlm.split_ids(ids)
        table = fit_counts(bigram, fit_ids)["counts"]["table"]
        k = find_best_smoothing(table, held_out_ids, np.logspace(-4, 1, 101).tolist())
        return jaxlm.CountsBigramLM(vocab_size, smoothing=k), fit_counts(bigram, ids)

    fits: dict[tuple[str, str], Callable[[], tuple[jaxlm.LanguageModel, Any]]] = {
        ("uniform", "uniform"): lambda: (UniformLM(vocab_size), {}),
        ("unigram", "unigram, add 1"): lambda: (UnigramLM(vocab_size), jnp.bincount(ids, length=vocab_size)),
        ("counts_bigram", "counts bigram, add 1"): lambda: (bigram, fit_counts(bigram, ids)),
        ("counts_bigram_best_k", "counts bigram, best k"): fit_best_k,
    }
    rungs = []
    for names, fit in fits.items():
        with measure_time() as timing:
            model, variables = fit()
            evaluation = jaxlm.evaluate(model, variables, data.val_ids)
        rungs.append(Rung(*names, model, variables, evaluation, timing))
    return rungs


def find_best_smoothing(table: Any, held_out_ids: Any, candidates: Sequence[float]) -> float:
    """Return the k in `candidates`, all above 0, with the lowest loss of add-k counts [V, V] on held-out ids [T].

    101 candidates on 140,000 tokens at V = 4096 take 0.6 s; with `jaxlm.evaluate` they would take 8 s.
    """
    table, vocab_size = np.asarray(table), len(table)
    contexts, targets = held_out_ids[:-1], held_out_ids[1:]
    counts, totals = table[contexts, targets], table.sum(axis=1, dtype=np.int64)[contexts]
    nats = [np.mean(np.log(totals + k * vocab_size) - np.log(counts + k)) for k in candidates]
    return candidates[int(np.argmin(nats))]


def make_networks(
    vocab_size: int, options: NetworkOptions, recipe: Recipe, num_steps: int | None = None
) -> tuple[Network, Network]:
    """Return the neural bigram and the MLP. If `num_steps` is given, it replaces that of the recipe."""
    if num_steps is None:
        num_steps = min(recipe.num_steps, 1000) if options.quick else recipe.num_steps
    bigram = jaxlm.NeuralBigramLM(vocab_size, options.bigram_embedding_dim)
    sizes = options.mlp_context_length, options.mlp_embedding_dim, options.mlp_hidden_dim
    mlp = jaxlm.MLPLanguageModel(vocab_size, *sizes)

    def make(name: str, title: str, model: Any, lr: float, fold: int) -> Network:
        optimizer = recipe.optimizer(lr, num_steps)
        return Network(name, title, model, lr, optimizer, num_steps, recipe.batch_size, fold)

    return (
        make("neural_bigram", "neural bigram", bigram, recipe.bigram_lr, 0),
        make("mlp", "MLP", mlp, recipe.mlp_lr, 1),
    )


def train_network(
    network: Network, data: Dataset, *, seed: int, log_every: int
) -> Iterator[tuple[jaxlm.TrainState, jaxlm.Record | None]]:
    """Train the network from a seed; see `jaxlm.train`."""
    return jaxlm.train(
        network.model,
        data.train_ids,
        key=jax.random.fold_in(jax.random.key(seed), network.fold),
        val_ids=data.val_ids,
        batch_size=network.batch_size,
        num_steps=network.num_steps,
        optimizer=network.optimizer,
        log_every=log_every,
    )
