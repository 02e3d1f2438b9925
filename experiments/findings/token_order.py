"""Does the order of the context matter? Embeddings side by side against their sum and their mean, which forget it.

    python -m experiments.findings.token_order           # about 3 min on 2 CPU cores
    python -m experiments.findings.token_order --quick   # two ways, few steps: every artefact, sooner

The four ways differ in what the hidden layer reads of the N embeddings: all of them in their order
(`MLPLanguageModel`), their sum, or their mean; *sum, wider* has more hidden units, and the weights of the first.
They are trained on characters, and on a made source of which all is known: an order-2 Markov chain whose next
token depends on which of two tokens came first. Its entropy is the floor of every model that sees two tokens, and
H(next | the two tokens in no order) of every one that cannot tell their order. Both, and what each network loses
to them, are sums over all contexts, without the noise of a sample.

Every network is trained on the first nine tenths of the training text, with each learning rate and seed; the last
tenth chooses the rate, for each way and N, by the mean over the seeds. Validation is scored with that rate only.

Expected on the classic tiny Shakespeare file, seed 0, validation perplexity: one character 12.27; of two,
concatenation 8.77, sum 10.88, wider 10.89, mean 11.13; of four, 7.81, 13.85, 13.71, 14.37: what is blind to
order gets worse by a longer context. On the source, in nats: entropy 1.4110, concatenation 1.4305; order-blind
floor 1.6009, sums 1.6092 and 1.6149, mean 1.6133. The mean takes the highest rate, of four characters and on
the source, and the wider sum the lowest on the source: a longer grid may find them a little more.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import linen as nn
from jax import Array
from rich import box
from rich.console import Console
from rich.table import Table

import jaxlm
from experiments.ladder.ladder import momentum_sgd
from experiments.shared.benchmark import as_text
from experiments.shared.experiment import COLORS, Findings, Output, OutputOptions, new_figure, run_experiment
from experiments.shared.synthetic import (
    Floats,
    MarkovSource,
    conditional_entropy,
    cross_entropy,
    draw_rows,
    sample_source,
    window_probabilities,
)
from jaxlm.models._linen import FrozenModule, small_init
from jaxlm.models.interface import check_contexts, check_sizes, num_params
from jaxlm.text.dataset import load_dataset
from jaxlm.utils.compilation_cache import enable_compilation_cache
from jaxlm.utils.terminal import print_plain, run_command, stdout_console

_EMBEDDING_DIM, _HIDDEN_DIM, _BATCH_SIZE = 32, 64, 128
_SOURCE_VOCAB_SIZE, _SOURCE_CONCENTRATION = 8, 0.5

Ids = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PositionConfig:
    """Compares networks that know the order of their context with networks that do not."""

    corpus: str = "tinyshakespeare"
    """A named corpus: tinyshakespeare, or shakespeare (all the plays)."""
    text: Path | None = None
    """A UTF-8 text file of your own, instead of a named corpus."""
    num_seeds: int = 3
    """Trainings of each network, at most 2 with --quick."""
    seed: int = 0
    """Every random choice follows from it, the made source too: 0 to 2**32 - 1."""
    output: OutputOptions = field(default_factory=Output)
    quick: bool = False
    """Two ways, one context length, few steps: every artefact, sooner."""


class Plan(NamedTuple):
    """How much is trained."""

    context_lengths: tuple[int, ...]
    num_steps: int
    num_seeds: int
    source_tokens: int
    learning_rates: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)
    ways: tuple[str, ...] = ("concatenation", "sum", "sum, wider", "mean")


class PooledLM(FrozenModule):
    """`MLPLanguageModel` whose hidden layer [D, H] reads the sum or the mean of the N embeddings.

    What it predicts is the same for every order of the context. With N = 1 it is `MLPLanguageModel`.
    """

    vocab_size: int
    context_length: int
    embedding_dim: int
    hidden_dim: int
    pool: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        check_sizes(self, "vocab_size", "context_length", "embedding_dim", "hidden_dim")
        super().__post_init__()

    def setup(self) -> None:
        self.embedding = nn.Embed(self.vocab_size, self.embedding_dim)
        self.hidden = nn.Dense(self.hidden_dim)
        self.projection = nn.Dense(self.vocab_size, kernel_init=small_init())

    def __call__(self, contexts: Array) -> Array:
        """Contexts [B, N] -> logits [B, V]."""
        embedded = self.embedding(check_contexts(contexts, self.context_length))  # [B, N, D]
        pooled = embedded.sum(axis=1) if self.pool == "sum" else embedded.mean(axis=1)
        logits: Array = self.projection(nn.tanh(self.hidden(pooled)))
        return logits


def run_position(config: PositionConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    if config.num_seeds < 1:
        raise ValueError(f"--num-seeds must be at least 1, got {config.num_seeds}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in 0..{2**32 - 1}, got {config.seed}")
    plan = Plan((1, 2, 4), 1500, config.num_seeds, 200_000)
    if config.quick:
        plan = Plan((3,), 200, min(config.num_seeds, 2), 20_000, (0.5, 1.0), ("concatenation", "sum"))
    data = load_dataset(config.corpus, config.text, "char", min_tokens=2 * (max(plan.context_lengths) + 1))
    return run_experiment(
        "position", config, console, partial(find, config, plan, data.train_ids, data.val_ids, console)
    )


def find(config: PositionConfig, plan: Plan, train_ids: Ids, val_ids: Ids, console: Console) -> Findings:
    """Every way on the text, at each context length, and on the made source."""
    text_key, stream_key, source_key = jax.random.split(jax.random.key(config.seed), 3)
    vocab_size = int(max(train_ids.max(), val_ids.max())) + 1
    optimizer = partial(momentum_sgd, num_steps=plan.num_steps)
    text_rows = []
    for context_length in plan.context_lengths:
        for way, model in ways(vocab_size, context_length, plan).items():
            lr, runs = train_best(model, train_ids, plan, optimizer, text_key)
            perplexities = [jaxlm.perplexity(model, variables, val_ids) for variables in runs]
            text_rows.append(describe(way, model, runs, lr) | spread_of("val_perplexity", perplexities))
            print_plain(console, f"text, N = {context_length}, {way}: perplexity {np.mean(perplexities):.3f}")
    rows = draw_rows(_SOURCE_VOCAB_SIZE, 2, _SOURCE_CONCENTRATION, config.seed)
    source, joint = MarkovSource(_SOURCE_VOCAB_SIZE, 2), window_probabilities(rows)
    stream = sample_source(source, jnp.asarray(np.log(rows), jnp.float32), plan.source_tokens, key=stream_key)
    source_rows = []
    for way, model in ways(source.vocab_size, source.context_length, plan).items():
        lr, runs = train_best(model, stream, plan, optimizer, source_key)
        nats = [cross_entropy(model, variables, joint) for variables in runs]
        source_rows.append(describe(way, model, runs, lr) | spread_of("nats_per_token", nats))
        print_plain(console, f"source, {way}: {np.mean(nats):.4f} nats per token")
    results = {
        "learning_rates": plan.learning_rates,
        "steps": plan.num_steps,
        "text": {"vocab_size": vocab_size, "rows": text_rows},
        "source": {
            "vocab_size": source.vocab_size,
            "tokens": plan.source_tokens,
            "entropy_nats": conditional_entropy(joint),
            "order_blind_floor_nats": conditional_entropy(order_blind(joint)),
            "rows": source_rows,
        },
    }
    return Findings(results, table_text(results), draw(results))


def ways(vocab_size: int, context_length: int, plan: Plan) -> dict[str, jaxlm.LanguageModel]:
    """The plan's networks by name: the same D and H, and one sum with the weights of the first.

    One token has no order: with N = 1 they would all be the first.
    """
    sizes = vocab_size, context_length, _EMBEDDING_DIM
    fixed = 1 + vocab_size  # weights of a hidden unit, beside those that read the embeddings
    wider = _HIDDEN_DIM * (context_length * _EMBEDDING_DIM + fixed) / (_EMBEDDING_DIM + fixed)
    every: dict[str, jaxlm.LanguageModel] = {
        "concatenation": jaxlm.MLPLanguageModel(*sizes, _HIDDEN_DIM),
        "sum": PooledLM(*sizes, _HIDDEN_DIM),
        "sum, wider": PooledLM(*sizes, round(wider)),
        "mean": PooledLM(*sizes, _HIDDEN_DIM, "mean"),
    }
    return {way: every[way] for way in (plan.ways if context_length > 1 else plan.ways[:1])}


def train_best(
    model: jaxlm.LanguageModel,
    train_ids: Ids,
    plan: Plan,
    optimizer: Callable[[float], optax.GradientTransformation],
    key: Array,
) -> tuple[float, list[Any]]:
    """The learning rate that suits the last tenth of `train_ids` [T] best, and each seed's variables with it."""
    fitted_ids, held_out_ids = jaxlm.split_ids(train_ids)
    keys, hyperparams = jaxlm.sweep_grid(jax.random.split(key, plan.num_seeds), lr=plan.learning_rates)
    variables, histories = jaxlm.train_many(
        model,
        fitted_ids,
        keys=keys,
        hyperparams=hyperparams,
        optimizer=optimizer,
        val_ids=held_out_ids,
        batch_size=_BATCH_SIZE,
        num_steps=plan.num_steps,
        log_every=plan.num_steps,
    )
    num_rates = len(plan.learning_rates)
    last = np.array([history["val_perplexities"][-1] for history in histories])
    best = int(np.nanargmin(np.log(last).reshape(plan.num_seeds, num_rates).mean(axis=0)))
    chosen = range(best, len(last), num_rates)
    return plan.learning_rates[best], [jax.tree.map(lambda leaf, run=run: leaf[run], variables) for run in chosen]


def order_blind(joint: Floats) -> Floats:
    """P(a, b, c) [V, V, V] of one who cannot tell (a, b) from (b, a)."""
    return (joint + joint.transpose(1, 0, 2)) / 2


def describe(way: str, model: Any, runs: list[Any], lr: float) -> dict[str, Any]:
    """What a row says of the network itself."""
    return {
        "way": way,
        "context_length": model.context_length,
        "hidden_dim": model.hidden_dim,
        "weights": num_params(runs[0]),
        "lr": lr,
    }


def spread_of(name: str, figures: list[float]) -> dict[str, Any]:
    """A figure of each seed, their mean, and the standard deviation (0 for one seed)."""
    deviation = float(np.std(figures, ddof=1)) if len(figures) > 1 else 0.0
    return {f"{name}_by_seed": figures, f"{name}_mean": float(np.mean(figures)), f"{name}_deviation": deviation}


def table_text(results: Mapping[str, Any]) -> str:
    """The text of `table.txt`: a table of the text's rows, one of the source's."""
    source = results["source"]
    text = _table("characters: validation perplexity", results["text"]["rows"], "val_perplexity")
    titles = f"entropy {source['entropy_nats']:.4f}, order-blind floor {source['order_blind_floor_nats']:.4f}"
    return as_text(text, _table(f"made source: nats per token; {titles}", source["rows"], "nats_per_token"))


def _table(title: str, rows: list[Mapping[str, Any]], figure: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("context")
    for column in ("N", "hidden units", "weights", "lr", "mean", "+-"):
        table.add_column(column, justify="right")
    for row in rows:
        counts = (f"{row[name]:,}" for name in ("context_length", "hidden_dim", "weights"))
        shown = (f"{row['lr']:g}", f"{row[f'{figure}_mean']:.4f}", f"{row[f'{figure}_deviation']:.4f}")
        table.add_row(row["way"], *counts, *shown)
    return table


def draw(results: Mapping[str, Any]) -> Any:
    """Left the text by N, a line for each way (N = 1: all are one); right the source, beside both floors."""
    figure = new_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    rows, source = results["text"]["rows"], results["source"]
    for place, (row, color, marker) in enumerate(zip(source["rows"], COLORS, "osD^", strict=False)):
        own = [each for each in rows if each["way"] == row["way"] or each["context_length"] == 1]
        lengths, means, deviations = (
            [each[name] for each in own]
            for name in ("context_length", "val_perplexity_mean", "val_perplexity_deviation")
        )
        left.errorbar(lengths, means, deviations, color=color, marker=marker, capsize=3, label=row["way"])
        nats, deviation = row["nats_per_token_mean"], row["nats_per_token_deviation"]
        right.errorbar([place], [nats], [deviation], color=color, marker=marker, capsize=3)
    left.set_xticks(sorted({row["context_length"] for row in rows}))
    left.set(xlabel="tokens of context N (characters)", ylabel="validation perplexity", title="Text")
    left.legend()
    for name, words in (
        ("order_blind_floor_nats", "floor of any that is blind to order"),
        ("entropy_nats", "entropy"),
    ):
        right.axhline(source[name], color="black", linestyle="--", linewidth=1)
        right.annotate(
            f"{words}: {source[name]:.3f}",
            (1.5, source[name]),
            (0, -4),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9,
        )
    right.set_xticks(range(len(source["rows"])), [row["way"] for row in source["rows"]])
    right.set_xlim(-0.5, len(source["rows"]) - 0.5)
    low, high = source["entropy_nats"], max(row["nats_per_token_mean"] for row in source["rows"])
    right.set_ylim(low - 0.2 * (high - low), high + 0.15 * (high - low))
    right.set(
        ylabel="nats per token", title=f"Made source, N = 2, uniform {math.log(source['vocab_size']):.3f} nats"
    )
    return figure


if __name__ == "__main__":
    options = tyro.cli(PositionConfig, prog="position")
    enable_compilation_cache()
    sys.exit(run_command(lambda: run_position(options, stdout_console())))
