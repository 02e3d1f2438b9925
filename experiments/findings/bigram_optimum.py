"""How close does a neural bigram come to the best possible bigram, and what does a small embedding cost?

    python -m experiments.findings.bigram_optimum           # characters, about 140 s on 2 CPU cores
    python -m experiments.findings.bigram_optimum --quick   # two embedding dimensions, 200 steps
    python -m experiments.findings.bigram_optimum --tokenizer bpe --vocab-size 512

Unsmoothed bigram counts are the maximum-likelihood bigram of their text. A `NeuralBigramLM` with embedding
dimension D is a table of logits of rank D plus a bias. Its training loss is the loss of the counts plus KL(counts
|| neural), computed exactly from all V contexts. The question is about the training loss, so nothing is validated:
for each D, several learning rates are trained side by side and the one with the smallest final KL is kept.

Expected on the characters of the classic tiny Shakespeare file (V = 65, counts 2.45191 nats), KL in nats per
token: 0.522 for D = 1, 0.290 for 2, 0.140 for 4, 0.0408 for 8, 0.0073 for 16, 0.0042 for 32, 0.0040 for 65. With D
= 65 the model can represent every table without zeros: the rest is what 6000 steps have not learnt. With D = 1 the
largest share of the KL, 12 %, is lost after the space.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import jaxlm
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import TokenizerOptions
from experiments.shared.plots import new_panels, plot_lines
from experiments.shared.synthetic import Floats, conditional_entropy
from experiments.shared.tables import format_records
from experiments.shared.training import fit_counts, momentum_sgd, train_side_by_side
from jaxlm.runs.report.tables import show_whitespace
from jaxlm.text.dataset import Dataset, load_dataset
from jaxlm.training.state import TrainState, join_variables
from jaxlm.utils.checks import check_at_least

_DIMS = 1, 2, 4, 8, 16, 32  # and V
_BATCH_SIZE = 512
_LEARNING_RATES = 0.5, 1.0, 2.0
_CURVE_INTERVAL = 10  # the KL is computed at multiples of this number of steps
_NUM_WORST = 5  # contexts listed in the table


@dataclass(frozen=True, kw_only=True)
class BigramOptimumOptions(TokenizerOptions):
    """Train neural bigrams of several embedding dimensions and measure their distance from the bigram counts."""

    tokenizer: Literal["char", "byte", "bpe"] = "char"
    """What a token is: a character, a byte, or a unit of byte-pair encoding."""
    vocab_size: int | None = None
    """Vocabulary size of --tokenizer bpe, at least 256. None: 512."""
    steps: int = 6000
    """Training steps of 512 pairs each, for every dimension and learning rate; at most 200 with --quick."""


def prepare(options: BigramOptimumOptions) -> Experiment:
    """Check the options and load the text."""
    check_at_least("--steps", options.steps, 1)
    data = load_dataset(options.corpus, options.text, options.tokenizer, vocab_size=options.vocab_size or 512)
    return Experiment("bigram-optimum", partial(measure, options, data))


def measure(options: BigramOptimumOptions, data: Dataset, run: RunContext) -> Findings:
    """Measure KL(counts || neural) by step and by embedding dimension."""
    vocab_size = data.tokenizer.vocab_size
    counts = fit_counts(jaxlm.CountsBigramLM(vocab_size, smoothing=0), data.train_ids)
    pairs = np.asarray(counts["counts"]["table"], np.float64)
    dims = (2,) if options.quick else _DIMS
    rows = []
    for dim in (*(dim for dim in dims if dim < vocab_size), vocab_size):
        rows.append(train_dim(dim, pairs, options, data))
        run.log(f"D = {dim}: KL {rows[-1]['kl_nats'][-1]:.5f} nats per token, lr {rows[-1]['lr']:g}")
    results: dict[str, Any] = {"vocab_size": vocab_size, "num_pairs": int(pairs.sum()), "dims": rows}
    results["counts_nats_per_token"] = conditional_entropy(pairs / pairs.sum())
    return Findings(results, format_results(results), {"picture": plot(results)})


def train_dim(dim: int, pairs: Floats, options: BigramOptimumOptions, data: Dataset) -> dict[str, Any]:
    """Train the neural bigram with each learning rate, and with the best again to record its KL by step."""
    model = jaxlm.NeuralBigramLM(len(pairs), dim)
    num_steps = min(options.steps, 200) if options.quick else options.steps
    make_optimizer = partial(momentum_sgd, num_steps=num_steps, clip_norm=None)
    training: dict[str, Any] = {"batch_size": _BATCH_SIZE, "num_steps": num_steps, "log_every": num_steps}
    key = jax.random.key(options.seed)
    keys, hyperparams = jaxlm.sweep_grid(key[None], lr=_LEARNING_RATES)
    sweep = {"keys": keys, "hyperparams": hyperparams, "optimizer": make_optimizer}
    runs, _ = train_side_by_side(model, data.train_ids, **sweep, **training)
    final_kl = [float(kl_by_context(model, variables, pairs).sum()) for variables in runs]
    best_lr = _LEARNING_RATES[int(np.argmin(np.nan_to_num(final_kl, nan=np.inf)))]
    curve: dict[int, float] = {}
    curve_steps = log_spaced_steps(num_steps)

    def record_kl(state: TrainState) -> None:
        if (step := int(state.step)) in curve_steps:
            curve[step] = float(kl_by_context(model, join_variables(state.params, {}), pairs).sum())

    training |= {"optimizer": make_optimizer(best_lr), "on_pause": record_kl, "pause_every": _CURVE_INTERVAL}
    variables, _ = jaxlm.train_lm(model, data.train_ids, key=key, **training)
    kl = kl_by_context(model, variables, pairs)
    worst_contexts = [
        {
            "token": data.tokenizer.decode([int(token)]),
            "kl_nats": float(kl[token]),
            "share_of_kl_percent": float(100 * kl[token] / kl.sum()),
            "share_of_pairs_percent": float(100 * pairs[token].sum() / pairs.sum()),
        }
        for token in np.argsort(-kl)[:_NUM_WORST]
    ]
    by_step = {"steps": list(curve), "kl_nats": list(curve.values())}
    return {
        "dim": dim,
        "lr": best_lr,
        "final_kl_nats_by_lr": final_kl,
        "worst_contexts": worst_contexts,
        **by_step,
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


def log_spaced_steps(num_steps: int) -> list[int]:
    """Return about thirty step counts, evenly spaced on a logarithmic axis, ending with `num_steps`.

    >>> log_spaced_steps(100)[:4], log_spaced_steps(100)[-1]
    ([10, 20, 30, 40], 100)
    """
    spaced = np.geomspace(_CURVE_INTERVAL, max(num_steps, _CURVE_INTERVAL), 30)
    rounded = (int(step // _CURVE_INTERVAL * _CURVE_INTERVAL) for step in spaced)
    return sorted({*(step for step in rounded if step < num_steps), num_steps})


def format_results(results: Mapping[str, Any]) -> str:
    """Return one row for the counts and one for each embedding dimension."""
    counts_nats = results["counts_nats_per_token"]
    records: list[dict[str, Any]] = [{"dim": "counts", "kl": 0.0}]
    for row in results["dims"]:
        worst = "  ".join(
            f"{show_whitespace(each['token'])} {each['share_of_kl_percent']:.0f} %"
            for each in row["worst_contexts"]
        )
        records.append({**row, "worst": worst, "kl": row["kl_nats"][-1]})
    for record in records:
        record["loss"] = counts_nats + record["kl"]
        record["perplexity"] = math.exp(record["loss"])
    columns = {
        "D": "{dim}",
        "contexts with the largest share of the KL": "{worst}",
        "learning rate": "{lr}",
        "KL (nats/token)": "{kl:.5f}",
        "training loss (nats/token)": "{loss:.5f}",
        "training perplexity": "{perplexity:.4f}",
    }
    return format_records(records, columns, text_columns=2)


def plot(results: Mapping[str, Any]) -> Any:
    """Plot the KL by step for each embedding dimension, and the final KL by dimension."""
    figure, (by_step, by_dim) = new_panels(2, 5.5, 4.6)
    rows = results["dims"]
    plot_lines(by_step, {f"D = {row['dim']}": (row["steps"], row["kl_nats"]) for row in rows}, markers="." * 7)
    by_step.set(xscale="log", yscale="log", xlabel="training step", title="during training")
    by_step.set_ylabel("KL(counts || neural bigram), nats per token")
    by_step.legend(loc="lower left", fontsize=9)
    dims, final = [row["dim"] for row in rows], [row["kl_nats"][-1] for row in rows]
    by_dim.plot(dims, final, color="#333333", marker="o")
    for dim, nats in zip(dims, final, strict=True):
        by_dim.annotate(f"{nats:.2g}", (dim, nats), (5, 5), textcoords="offset points", fontsize=9)
    by_dim.set(xscale="log", yscale="log", xlabel="embedding dimension D", title="after training")
    by_dim.set_xticks(dims, [str(dim) for dim in dims])
    by_dim.minorticks_off()
    by_dim.margins(0.12)
    figure.suptitle(f"Neural bigrams against the counts ({results['counts_nats_per_token']:.4f} nats per token)")
    return figure


if __name__ == "__main__":
    main(BigramOptimumOptions, prepare)
