"""How close does a neural bigram come to the best possible bigram, and what does a small embedding cost?

    python -m experiments.findings.bigram_optimum           # characters, about 70 s on 2 CPU cores
    python -m experiments.findings.bigram_optimum --quick   # two embedding dimensions, 200 steps

Unsmoothed bigram counts are the maximum-likelihood bigram of their text. A `NeuralBigramLM` with embedding
dimension D is a table of logits of rank D plus a bias. Its training loss is the loss of the counts plus KL(counts
|| neural), computed exactly from all V contexts. The question is about the training loss, so nothing is validated:
for each D, several learning rates are trained side by side and the one with the smallest final KL is kept.

Expected on the characters of the classic tiny Shakespeare file (V = 65, counts 2.45191 nats), KL in nats per
token: 0.522 for D = 1, 0.290 for 2, 0.140 for 4, 0.0408 for 8, 0.0073 for 16, 0.0042 for 32, 0.0040 for 65. For
D = 65 the model can represent every table without zeros: the rest remains because training has not converged after
6000 steps. For D = 1 the context with the largest share of the KL, 12 %, is the space.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlm
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import TextOptions
from experiments.shared.report import format_records, plot_lines
from experiments.shared.synthetic import conditional_entropy
from experiments.shared.training import Floats, fit_counts, momentum_sgd, train_side_by_side
from jaxlm.runs.report.tables import show_whitespace
from jaxlm.text.dataset import Dataset, load_dataset
from jaxlm.utils.checks import check_at_least

_DIMS = 1, 2, 4, 8, 16, 32  # and V
_BATCH_SIZE = 512
_LEARNING_RATES = 0.5, 1.0, 2.0


@dataclass(frozen=True, kw_only=True)
class BigramOptimumOptions(TextOptions):
    """Train neural bigrams of several embedding dimensions and measure their distance from the bigram counts."""

    steps: int = 6000
    """Training steps of 512 pairs each, for every dimension and learning rate; at most 200 with --quick."""


def prepare(options: BigramOptimumOptions) -> Experiment:
    """Check the options and load the text."""
    check_at_least("--steps", options.steps, 1)
    data = load_dataset(options.corpus, options.text, "char")
    return Experiment("bigram-optimum", partial(measure, options, data))


def measure(options: BigramOptimumOptions, data: Dataset, run: RunContext) -> Findings:
    """Measure KL(counts || neural) by embedding dimension."""
    vocab_size = data.tokenizer.vocab_size
    counts = fit_counts(jaxlm.CountsBigramLM(vocab_size, smoothing=0), data.train_ids)
    pairs = np.asarray(counts["counts"]["table"], np.float64)
    dims = (2,) if options.quick else _DIMS
    rows = []
    for dim in (*(dim for dim in dims if dim < vocab_size), vocab_size):
        rows.append(train_dim(dim, pairs, options, data))
        run.log(f"D = {dim}: KL {rows[-1]['kl_nats']:.5f} nats per token, lr {rows[-1]['lr']:g}")
    results: dict[str, Any] = {"vocab_size": vocab_size, "num_pairs": int(pairs.sum()), "dims": rows}
    results["counts_nats_per_token"] = conditional_entropy(pairs / pairs.sum())
    return Findings(results, format_results(results), {"picture": plot(results)})


def train_dim(dim: int, pairs: Floats, options: BigramOptimumOptions, data: Dataset) -> dict[str, Any]:
    """Train the neural bigram with each learning rate and describe the run with the smallest KL."""
    model = jaxlm.NeuralBigramLM(len(pairs), dim)
    num_steps = min(options.steps, 200) if options.quick else options.steps
    keys, hyperparams = jaxlm.sweep_grid(jax.random.key(options.seed)[None], lr=_LEARNING_RATES)
    runs, _ = train_side_by_side(
        model,
        data.train_ids,
        num_steps,
        keys=keys,
        hyperparams=hyperparams,
        optimizer=partial(momentum_sgd, num_steps=num_steps, clip_norm=None),
        batch_size=_BATCH_SIZE,
    )
    kl_by_lr = np.array([kl_by_context(model, variables, pairs) for variables in runs])  # [learning rates, V]
    best = int(np.nanargmin(kl_by_lr.sum(axis=1)))
    kl = kl_by_lr[best]
    worst = {
        data.tokenizer.decode([int(token)]): float(100 * kl[token] / kl.sum()) for token in np.argsort(-kl)[:5]
    }
    return {
        "dim": dim,
        "lr": _LEARNING_RATES[best],
        "kl_nats": float(kl.sum()),
        "kl_nats_by_lr": kl_by_lr.sum(axis=1).tolist(),
        "percent_of_kl_by_worst_context": worst,
    }


def kl_by_context(model: jaxlm.LanguageModel, variables: Any, pairs: Floats) -> Floats:
    """Return each context's contribution [V] to KL(counts || model) in nats per token of the text.

    Args:
        pairs: counts [V, V] of the token pairs.
    """
    contexts = jnp.arange(model.vocab_size)[:, None]
    log_probs = np.asarray(jax.nn.log_softmax(model.apply(variables, contexts)), np.float64)
    rows = pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1)
    log_rows = np.log(rows, where=pairs > 0, out=np.zeros_like(rows))
    return np.asarray((pairs * (log_rows - log_probs)).sum(axis=1) / pairs.sum())


def format_results(results: Mapping[str, Any]) -> str:
    """Return one row for the counts and one for each embedding dimension."""
    counts_nats = results["counts_nats_per_token"]
    records: list[dict[str, Any]] = [{"dim": "counts", "kl_nats": 0.0}]
    for row in results["dims"]:
        worst = row["percent_of_kl_by_worst_context"].items()
        shares = "  ".join(f"{show_whitespace(token)} {percent:.0f} %" for token, percent in worst)
        records.append({**row, "worst": shares})
    for record in records:
        record["loss"] = counts_nats + record["kl_nats"]
        record["perplexity"] = math.exp(record["loss"])
    columns = {
        "D": "{dim}",
        "contexts with the largest share of the KL": "{worst}",
        "learning rate": "{lr}",
        "KL (nats/token)": "{kl_nats:.5f}",
        "training loss (nats/token)": "{loss:.5f}",
        "training perplexity": "{perplexity:.4f}",
    }
    return format_records(records, columns, text_columns=2)


def plot(results: Mapping[str, Any]) -> Any:
    """Plot the KL by embedding dimension."""
    line = [[row[name] for row in results["dims"]] for name in ("dim", "kl_nats")]
    panels = {"KL(counts || neural bigram), nats per token": {"best learning rate": line}}
    return plot_lines(panels, xlabel="embedding dimension D", xscale="log", yscale="log")


if __name__ == "__main__":
    main(BigramOptimumOptions, prepare)
