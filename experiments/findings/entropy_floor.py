"""How close does each model come to the entropy of its source?

    python -m experiments.findings.entropy_floor           # about 1 min on 2 CPU cores
    python -m experiments.findings.entropy_floor --quick   # a twentieth of the tokens and steps

The sources are two Markov chains, of order 1 and order 2, with transition probabilities drawn from a Dirichlet
distribution. Their stationary distribution solves a linear system, so the entropies are exact. The *floor* of a
model with context length N is the conditional entropy H(next | last N). The *exact* loss of a model is its
cross-entropy under the source, summed over all contexts and successors. The *sampled* loss is measured on a
validation stream, as on a text.

Expected (seed 0): every model is at most 0.6 % above its floor. Order 1, floor 2.0939 nats (perplexity 8.117):
counts bigram 0.006 %, neural bigram 0.07 %, MLP with N = 1 0.05 % and with N = 2 0.08 %, mixture 0.02 %. Order 2,
floors 2.7216 nats for N = 1 and 2.0981 (perplexity 8.151) for N = 2: counts bigram 0.004 %, neural bigram 0.02 %,
3-gram 0.09 %, MLP with N = 2 0.54 % (perplexity 8.243), mixture 0.09 %.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

import jaxlm
from experiments.shared import synthetic
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import SeedOptions
from experiments.shared.plots import new_panels
from experiments.shared.tables import format_records
from experiments.shared.training import Ids, fit_counts, momentum_sgd, train
from experiments.shared.unit_embeddings import UnitEmbeddings
from jaxlm.runs.report.plots import COLORS
from jaxlm.utils.checks import check_at_least

_CONCENTRATION = 0.5  # of the Dirichlet distribution
_GOAL_PERCENT = 1.0  # a model that can represent the source should be this close to its floor

# The MLP's rate is the best of 0.05, 0.1 and 0.3 by the exact loss after 6000 steps, on another stream of the
# source of order 2. The bigram's rate was not tuned.
_BIGRAM_LR, _MLP_LR = 1.0, 0.1


@dataclass(frozen=True, kw_only=True)
class EntropyFloorOptions(SeedOptions):
    """Measure every model against the exact entropy of Markov sources of order 1 and 2."""

    vocab_size: int = 16
    """Vocabulary size V of the sources, in [2, 64]. All V^2 contexts are enumerated."""
    num_tokens: int = 1_000_000
    """Training tokens, at least 1000. A tenth as many fit the mixture weights, and another tenth validate."""
    steps: int = 8_000
    """Training steps of each network, of 256 windows."""


def prepare(options: EntropyFloorOptions) -> Experiment:
    """Check the options."""
    if not 2 <= options.vocab_size <= 64:
        raise ValueError(f"--vocab-size must be in [2, 64], got {options.vocab_size}")
    check_at_least("--num-tokens", options.num_tokens, 1000)
    check_at_least("--steps", options.steps, 1)
    return Experiment("entropy-floor", partial(measure, options, (1, 2)))


def measure(options: EntropyFloorOptions, orders: Sequence[int], run: RunContext) -> Findings:
    """Measure every model on a source of each order."""
    sources = [measure_source(order, options, run) for order in orders]
    return Findings({"sources": sources}, format_results(sources), {"picture": plot(sources)})


def measure_source(order: int, options: EntropyFloorOptions, run: RunContext) -> dict[str, Any]:
    """Fit every model to a source and measure its distance from the floor in nats per token."""
    source, log_rows, windows = synthetic.draw_source(options.vocab_size, order, _CONCENTRATION, options.seed)
    sample_key, fit_key = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), order))
    num_train = options.num_tokens // 20 if options.quick else options.num_tokens
    num_other = max(num_train // 10, 10)
    ids = synthetic.sample_source(source, log_rows, num_train + 2 * num_other, key=sample_key)
    train_ids, held_out_ids, val_ids = np.split(ids, [num_train, num_train + num_other])
    models = []
    begin = time.perf_counter()
    for title, model, variables in fit_models(train_ids, held_out_ids, options, fit_key):
        seconds = time.perf_counter() - begin
        floor = synthetic.conditional_entropy(windows, model.context_length)
        exact = synthetic.cross_entropy(model, variables, windows)
        models.append(
            {
                "model": title,
                "context_length": model.context_length,
                "floor_nats": floor,
                "exact_nats": exact,
                "sampled_nats": jaxlm.evaluate(model, variables, val_ids).nats_per_token,
                "excess_percent": 100 * (exact / floor - 1),
                "floor_perplexity": float(np.exp(floor)),
                "exact_perplexity": float(np.exp(exact)),
                "seconds": seconds,  # of fitting, compilation included
            }
        )
        run.log(f"order {order}, {title}: {exact:.4f} nats, floor {floor:.4f}")
        begin = time.perf_counter()
    return {
        "order": order,
        "entropy_rate_nats": synthetic.conditional_entropy(windows, 2),
        "source_sampled_nats": jaxlm.evaluate(source, log_rows, val_ids).nats_per_token,
        "models": models,
    }


def fit_models(
    train_ids: Ids, held_out_ids: Ids, options: EntropyFloorOptions, key: Array
) -> Iterator[tuple[str, jaxlm.LanguageModel, Any]]:
    """Fit every model to the training tokens [T]. The held-out tokens fit the mixture weights only."""
    vocab_size = options.vocab_size
    num_steps = max(options.steps // 20, 1) if options.quick else options.steps
    counts: dict[str, jaxlm.CountsBigramLM | jaxlm.CountsNgramLM] = {
        "counts bigram, add 1": jaxlm.CountsBigramLM(vocab_size),
        "counts 2-gram, modified Kneser-Ney": jaxlm.CountsNgramLM(vocab_size, 1),
        "counts 3-gram, modified Kneser-Ney": jaxlm.CountsNgramLM(vocab_size, 2),
    }
    networks: dict[str, tuple[Any, float]] = {
        "neural bigram": (jaxlm.NeuralBigramLM(vocab_size, vocab_size), _BIGRAM_LR),
        "MLP, N = 1": (UnitEmbeddings(jaxlm.MLPLanguageModel(vocab_size, 1, 16, 256)), _MLP_LR),
        "MLP, N = 2": (UnitEmbeddings(jaxlm.MLPLanguageModel(vocab_size, 2, 16, 256)), _MLP_LR),
    }
    fitted: list[tuple[str, jaxlm.LanguageModel, Any]] = []
    for title, model in counts.items():
        fitted.append((title, model, fit_counts(model, train_ids)))
        yield fitted[-1]
    for title, (network, lr) in networks.items():
        own_key, optimizer = jax.random.fold_in(key, len(fitted)), momentum_sgd(lr, num_steps)
        trained = train(network, train_ids, num_steps, key=own_key, batch_size=256, optimizer=optimizer)
        fitted.append((title, network, trained.variables))
        yield fitted[-1]
    _, models, variables = zip(*fitted, strict=True)
    weights = jaxlm.mixture_weights(models, variables, held_out_ids)
    yield "mixture of all", jaxlm.MixtureLM(models, weights), variables


def format_results(sources: Sequence[Mapping[str, Any]]) -> str:
    """Return one row for each source and model."""
    records = []
    for source in sources:
        nats, own = source["entropy_rate_nats"], {"model": "the source itself", "context_length": source["order"]}
        own |= {"floor_nats": nats, "exact_nats": nats, "sampled_nats": source["source_sampled_nats"]}
        own |= {"exact_perplexity": np.exp(nats), "floor_perplexity": np.exp(nats)}
        own |= {"excess_percent": 0.0, "seconds": 0.0}
        records += [{**row, "order": source["order"]} for row in (own, *source["models"])]
    columns = {
        "order of\nthe source": "{order}",
        "model": "{model}",
        "N": "{context_length}",
        "floor\n(nats)": "{floor_nats:.4f}",
        "exact loss\n(nats)": "{exact_nats:.4f}",
        "sampled loss\n(nats)": "{sampled_nats:.4f}",
        "above the\nfloor (%)": "{excess_percent:.3f}",
        "perplexity": "{exact_perplexity:.3f}",
        "floor\nperplexity": "{floor_perplexity:.3f}",
        "fit (s)": "{seconds:.1f}",
    }
    return format_records(records, columns, text_columns=2)


def plot(sources: Sequence[Mapping[str, Any]]) -> Any:
    """Plot how far each model is above its floor, one panel per source."""
    figure, panels = new_panels(len(sources), 5.5, 4.4)
    for axes, source, color in zip(panels, sources, COLORS, strict=False):
        rows = source["models"][::-1]
        excess = [max(row["excess_percent"], 1e-4) for row in rows]  # float32 rounding can put one below its floor
        bars = axes.barh([row["model"] for row in rows], excess, color=color, height=0.6)
        axes.bar_label(bars, fmt="%.2g %%", padding=4, fontsize=9)
        axes.axvline(_GOAL_PERCENT, color="black", linestyle="--", linewidth=1)
        floors = {row["context_length"]: row["floor_nats"] for row in rows}
        entropies = ", ".join(f"H(next | last {length}) = {floors[length]:.4f}" for length in sorted(floors))
        axes.set_title(f"source of order {source['order']}\n{entropies}", fontsize=9)
        axes.set(xscale="log", xlabel="exact loss above the floor (%)")
        axes.margins(x=0.3)
    return figure


if __name__ == "__main__":
    main(EntropyFloorOptions, prepare)
