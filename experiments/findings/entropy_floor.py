"""How close does each model come to the best that any could do? On sources whose entropy is known exactly.

    python -m experiments.findings.entropy_floor           # about 1 min on 2 CPU cores
    python -m experiments.findings.entropy_floor --quick   # every artefact, sooner

Two Markov sources, of order 1 and of order 2, have rows drawn from a Dirichlet distribution. Their stationary
distribution is the solution of a linear system, and so no figure here is an estimate: the *floor* of a model that
sees N tokens is the source's conditional entropy H(next | last N), and its *exact* nats are its cross-entropy
under the source, summed over all contexts and successors. *Sampled* nats are those of a validation stream, as on
a text.

Expected (seed 0): every model lies at most 0.6 % above its floor. Order 1, floor 2.0939 nats (perplexity
8.117): counts bigram 0.006 %, neural bigram 0.07 %, MLP with N = 1 0.05 % and with N = 2 0.08 %, mixture
0.02 %. Order 2, floors 2.7216 nats for N = 1 and 2.0981 (perplexity 8.151) for N = 2: counts bigram 0.004 %,
neural bigram 0.02 %, 3-gram 0.09 %, MLP with N = 2 0.54 % (perplexity 8.243), mixture 0.09 %.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array
from rich import box
from rich.console import Console
from rich.table import Table

import jaxlm
from experiments.shared.benchmark import as_text
from experiments.shared.experiment import COLORS, Findings, Output, OutputOptions, new_figure, run_experiment
from experiments.shared.synthetic import (
    MarkovSource,
    conditional_entropy,
    cross_entropy,
    draw_rows,
    sample_source,
    window_probabilities,
)
from experiments.shared.unit_embeddings import UnitEmbeddings
from jaxlm.training.optimizers import sgd
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.terminal import print_plain, run_command, stdout_console

_ORDERS = 1, 2
_MOST_PERCENT = 1.0  # what a model that can be the source may lie above its floor

# The MLP's: of 0.05, 0.1 and 0.3, the one of the least exact nats after 6000 steps on another stream of the source
# of order 2. The bigram's was not tuned.
_BIGRAM_LR, _MLP_LR = 1.0, 0.1


@dataclass(frozen=True)
class FloorConfig:
    """Measures every model against the exact entropy of Markov sources of order 1 and 2."""

    vocab_size: int = 16
    """Tokens of the sources, 2 to 64: contexts are all enumerated, and there are VOCAB_SIZE^2 of them."""
    concentration: float = 0.5
    """Of the Dirichlet distribution of the rows: near 0 a token has one successor, far above 1 all are alike."""
    num_tokens: int = 1_000_000
    """Tokens to train on, at least 1000; a tenth as many fit the mixture's weights, another tenth validate."""
    steps: int = 8_000
    """Training steps of each neural model, of 256 windows."""
    seed: int = 0
    """Every random choice follows from it: 0 to 2**32 - 1."""
    quick: bool = False
    """A twentieth of the tokens and of the steps: every artefact, sooner."""
    output: OutputOptions = Output()  # frozen  # noqa: RUF009


class Fitted(NamedTuple):
    """A model that has learnt from a stream, and the seconds that it took, compilation included."""

    title: str
    model: jaxlm.LanguageModel
    variables: Any
    seconds: float


def run_floor(config: FloorConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    check_options(config)
    return run_experiment("known-floor", config, console, lambda: find(config, console))


def check_options(config: FloorConfig) -> None:
    """Raises a ValueError that names the option, its value and the remedy."""
    if not 2 <= config.vocab_size <= 64:
        raise ValueError(f"--vocab-size must lie in 2..64, got {config.vocab_size}")
    if not 0.05 <= config.concentration < np.inf:
        raise ValueError(
            f"--concentration must be finite and at least 0.05, got {config.concentration}: below, "
            "probabilities are too small for float32"
        )
    check_at_least("--num-tokens", config.num_tokens, 1000)
    check_at_least("--steps", config.steps, 1)
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in 0..2**32 - 1, got {config.seed}")


def find(config: FloorConfig, console: Console) -> Findings:
    """Every model on both sources: nats as JSON, as a table, and how far each lies above its floor."""
    results = [measure_source(order, config, console) for order in _ORDERS]
    return Findings({"sources": results}, table_text(results), picture_of(results))


def measure_source(order: int, config: FloorConfig, console: Console) -> dict[str, Any]:
    """The source of that order, its floors, and every model against them, in nats per token."""
    table = draw_rows(config.vocab_size, order, config.concentration, config.seed)
    windows = window_probabilities(table)
    source = MarkovSource(config.vocab_size, order)
    key = jax.random.fold_in(jax.random.key(config.seed), order)
    num_train = config.num_tokens // 20 if config.quick else config.num_tokens
    num_each = num_train, max(num_train // 10, 10), max(num_train // 10, 10)
    log_rows = jnp.asarray(np.log(table), jnp.float32)
    sample_key, fit_key = jax.random.split(key)
    ids = sample_source(source, log_rows, sum(num_each), key=sample_key)
    train_ids, held_out_ids, val_ids = np.split(ids, np.cumsum(num_each)[:2])
    rows = []
    for fitted in fitted_models(train_ids, held_out_ids, config, fit_key):
        floor = conditional_entropy(windows, fitted.model.context_length)
        exact = cross_entropy(fitted.model, fitted.variables, windows)
        sampled = jaxlm.evaluate(fitted.model, fitted.variables, val_ids).nats_per_token
        rows.append(
            {
                "model": fitted.title,
                "context_length": fitted.model.context_length,
                "floor_nats": floor,
                "exact_nats": exact,
                "sampled_nats": sampled,
                "excess_percent": 100 * (exact / floor - 1),
                "floor_perplexity": float(np.exp(floor)),
                "exact_perplexity": float(np.exp(exact)),
                "seconds": fitted.seconds,
            }
        )
        print_plain(console, f"order {order}, {fitted.title}: {exact:.4f} nats, floor {floor:.4f}")
    return {
        "order": order,
        "entropy_rate_nats": conditional_entropy(windows, 2),
        "source_sampled_nats": jaxlm.evaluate(source, log_rows, val_ids).nats_per_token,
        "models": rows,
    }


def fitted_models(
    train_ids: np.ndarray[Any, Any], held_out_ids: np.ndarray[Any, Any], config: FloorConfig, key: Array
) -> Iterator[Fitted]:
    """Every rung, fitted to the stream [T]; the held-out stream gives the mixture its weights alone."""
    vocab_size = config.vocab_size
    num_steps = max(config.steps // 20, 1) if config.quick else config.steps
    counts: dict[str, jaxlm.CountsBigramLM | jaxlm.CountsNgramLM] = {
        "counts bigram, add 1": jaxlm.CountsBigramLM(vocab_size),
        "counts 2-gram, modified Kneser-Ney": jaxlm.CountsNgramLM(vocab_size, 1),
        "counts 3-gram, modified Kneser-Ney": jaxlm.CountsNgramLM(vocab_size, 2),
    }
    networks: dict[str, tuple[jaxlm.LanguageModel, float]] = {
        "neural bigram": (jaxlm.NeuralBigramLM(vocab_size, vocab_size), _BIGRAM_LR),
        **{
            f"MLP, N = {length}": (UnitEmbeddings(jaxlm.MLPLanguageModel(vocab_size, length, 16, 256)), _MLP_LR)
            for length in (1, 2)
        },
    }
    fitted: list[Fitted] = []
    for title, model in counts.items():
        begin = time.perf_counter()
        variables = model.fit(jaxlm.init(model, jax.random.fold_in(key, len(fitted))), train_ids)
        fitted.append(Fitted(title, model, variables, time.perf_counter() - begin))
    for title, (network, lr) in networks.items():
        begin = time.perf_counter()
        optimizer = sgd(lr, num_steps, schedule="cosine", momentum=0.9, clip_norm=1.0)
        variables, _ = jaxlm.train_lm(
            network,
            train_ids,
            key=jax.random.fold_in(key, len(fitted)),
            batch_size=256,
            num_steps=num_steps,
            optimizer=optimizer,
            log_every=num_steps,
        )
        fitted.append(Fitted(title, network, variables, time.perf_counter() - begin))
    yield from fitted
    begin = time.perf_counter()
    models = tuple(each.model for each in fitted)
    variables = tuple(each.variables for each in fitted)
    mixture = jaxlm.MixtureLM(models, jaxlm.mixture_weights(models, variables, held_out_ids))
    yield Fitted("mixture of all", mixture, variables, time.perf_counter() - begin)


def table_text(sources: Sequence[Mapping[str, Any]]) -> str:
    """The sources and the models as a person reads them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("source", "model"):
        table.add_column(column, no_wrap=True)
    for column in ("N", "floor (nats)", "exact", "sampled", "above floor", "perplexity", "its floor", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for source in sources:
        rate = source["entropy_rate_nats"]
        shown = f"order {source['order']}"
        table.add_row(shown, "the source itself", str(source["order"]), *[f"{rate:.4f}"] * 2,
                      f"{source['source_sampled_nats']:.4f}", "0", *[f"{np.exp(rate):.3f}"] * 2, "-")  # fmt: skip
        for row in source["models"]:
            nats = (f"{row[name]:.4f}" for name in ("floor_nats", "exact_nats", "sampled_nats"))
            perplexities = (f"{row[name]:.3f}" for name in ("exact_perplexity", "floor_perplexity"))
            percent = f"{row['excess_percent']:.3f} %"
            figures = *nats, percent, *perplexities, f"{row['seconds']:.1f}"
            table.add_row("", row["model"], str(row["context_length"]), *figures)
    return as_text(table)


def picture_of(sources: Sequence[Mapping[str, Any]]) -> Any:
    """How far each model lies above its own floor, a panel for each source."""
    figure = new_figure(11, 4.4)
    panels = figure.subplots(1, len(sources), sharex=True, sharey=True)
    for axes, source, color in zip(panels, sources, COLORS, strict=False):
        rows = source["models"][::-1]
        # Rounding in float32 may put one that is at its floor a hair below.
        heights = [max(row["excess_percent"], 1e-4) for row in rows]
        labels = [f"{row['model']} (sees {row['context_length']})" for row in rows]
        axes.barh(labels, heights, color=color, height=0.6)
        for place, (height, row) in enumerate(zip(heights, rows, strict=True)):
            axes.annotate(f"{row['excess_percent']:.2g} %", (height, place), (4, 0),
                          textcoords="offset points", va="center", fontsize=9,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        axes.axvline(_MOST_PERCENT, color="black", linestyle="--", linewidth=1)
        floors = {row["context_length"]: row["floor_nats"] for row in rows}
        shown = ", ".join(f"H(next | last {length}) = {floors[length]:.4f}" for length in sorted(floors))
        axes.set_title(f"source of order {source['order']}\n{shown}", fontsize=9)
        axes.set(xscale="log", xlabel="exact nats per token above the floor (%)")
        axes.grid(axis="x", alpha=0.25)
        axes.margins(x=0.3)
    return figure


if __name__ == "__main__":
    options = tyro.cli(FloorConfig, prog="known_floor")
    sys.exit(run_command(lambda: run_floor(options, stdout_console())))
