"""How near does a neural bigram come to the counts that no bigram can beat, and what does a thin embedding cost?

    python -m experiments.findings.bigram_optimum           # about 140 s on 2 CPU cores: characters of tiny Shakespeare
    python -m experiments.findings.bigram_optimum --quick   # two widths, 200 steps: about 55 s beside other load
    python -m experiments.findings.bigram_optimum --tokenizer bpe --vocab-size 512

Unsmoothed counts are the bigram that makes their own text likeliest. A `NeuralBigramLM` of width D is the same
table with logits of rank D and a bias, so that its training nats are the counts' plus KL(counts || neural),
which is exact here: all V contexts are evaluated at once. Nothing is validated: the training objective itself
is the question, and so each width takes, of several learning rates trained side by side, the one with the least
KL at the end.

Expected on the classic tiny Shakespeare file by characters (V = 65, counts 2.45191 nats), KL in nats per token:
0.522 for D = 1, 0.290 for 2, 0.140 for 4, 0.0408 for 8, 0.0073 for 16, 0.0042 for 32, 0.0040 for 65. With D = 65
every table of probabilities without zeros is within reach: what is left there is what 6000 steps have not learnt.
With D = 1 most is lost after the space, 12 % of it.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import jaxlm
from experiments.shared.benchmark import as_text
from experiments.shared.experiment import COLORS, Findings, Output, OutputOptions, new_figure, run_experiment
from experiments.shared.synthetic import Floats, conditional_entropy
from jaxlm.runs.report.tables import show_whitespace
from jaxlm.text.dataset import Dataset, load_dataset
from jaxlm.training.optimizers import sgd
from jaxlm.training.state import TrainState, join_variables
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.terminal import print_plain, run_command, stdout_console

_WIDTHS = 1, 2, 4, 8, 16, 32
_QUICK_WIDTHS = (2,)
_QUICK_STEPS = 200
_BATCH_SIZE = 512
_PAUSE_EVERY = 10  # steps between two looks at the state
_WORST = 5  # tokens that are named


@dataclass(frozen=True)
class CountsVsNeuralConfig:
    """Trains neural bigrams of several widths towards the counted optimum, and measures what is missing."""

    corpus: str = "tinyshakespeare"
    """A named corpus: tinyshakespeare, or shakespeare (all the plays)."""
    text: Path | None = None
    """A UTF-8 text file of your own, instead of a named corpus."""
    tokenizer: Literal["char", "byte", "bpe"] = "char"
    """What a token is: a character, a byte, or a piece learnt by byte-pair encoding."""
    vocab_size: int | None = None
    """Tokens of the BPE vocabulary, at least 256; None is 512."""
    steps: int = 6000
    """Training steps of each width and learning rate, of 512 pairs."""
    lrs: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Learning rates to choose from, by the KL at the end."""
    seed: int = 0
    """Every random choice follows from it: 0 to 2**32 - 1."""
    quick: bool = False
    """Two widths and at most 200 steps: every artefact, in seconds."""
    output: OutputOptions = Output()  # frozen  # noqa: RUF009


def run_counts_vs_neural(config: CountsVsNeuralConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    if config.vocab_size is not None and config.tokenizer != "bpe":
        raise ValueError(
            f"--vocab-size {config.vocab_size} is for --tokenizer bpe; {config.tokenizer} has its own"
        )
    check_at_least("--steps", config.steps, 1)
    if not config.lrs or not all(0 < lr < np.inf for lr in config.lrs):
        raise ValueError(f"--lrs must be one positive finite number or more, got {list(config.lrs)}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in 0..2**32 - 1, got {config.seed}")
    data = load_dataset(config.corpus, config.text, config.tokenizer, vocab_size=config.vocab_size or 512)
    return run_experiment("counts-vs-neural", config, console, lambda: find(config, data, console))


def find(config: CountsVsNeuralConfig, data: Dataset, console: Console) -> Findings:
    """KL(counts || neural) by step and by width, and the tokens after which most of it is lost."""
    vocab_size = data.tokenizer.vocab_size
    counts = jaxlm.CountsBigramLM(vocab_size, smoothing=0)
    table = counts.fit(jaxlm.init(counts, jax.random.key(0)), data.train_ids)["counts"]["table"]
    pairs = np.asarray(table, np.float64)
    floor = conditional_entropy(pairs / pairs.sum())
    widths = _QUICK_WIDTHS if config.quick else _WIDTHS
    rows = []
    for width in (*(width for width in widths if width < vocab_size), vocab_size):
        rows.append(train_width(width, pairs, config, data))
        print_plain(
            console, f"D = {width}: KL {rows[-1]['kl_nats'][-1]:.5f} nats per token, lr {rows[-1]['lr']:g}"
        )
    results = {
        "vocab_size": vocab_size,
        "num_pairs": int(pairs.sum()),
        "counts_nats_per_token": floor,
        "widths": rows,
    }
    return Findings(results, table_text(results), picture_of(results))


def train_width(width: int, pairs: Floats, config: CountsVsNeuralConfig, data: Dataset) -> dict[str, Any]:
    """The neural bigram of that width at its best learning rate: its KL by step, and after which tokens it is."""
    model = jaxlm.NeuralBigramLM(len(pairs), width)
    num_steps = min(config.steps, _QUICK_STEPS) if config.quick else config.steps
    key = jax.random.key(config.seed)

    def momentum_sgd(lr: Any) -> optax.GradientTransformation:
        return sgd(lr, num_steps, schedule="cosine", momentum=0.9)

    keys, hyperparams = jaxlm.sweep_grid(key[None], lr=config.lrs)
    runs, _ = jaxlm.train_many(
        model,
        data.train_ids,
        keys=keys,
        hyperparams=hyperparams,
        optimizer=momentum_sgd,
        batch_size=_BATCH_SIZE,
        num_steps=num_steps,
        log_every=num_steps,
    )
    ends = [
        kl_by_context(model, jax.tree.map(lambda leaf, run=run: leaf[run], runs), pairs).sum()
        for run in range(len(keys))
    ]
    best = float(config.lrs[int(np.argmin(np.nan_to_num(ends, nan=np.inf)))])
    curve: dict[int, float] = {}
    wanted = set(recorded_steps(num_steps))

    def measure(state: TrainState) -> None:
        if (step := int(state.step)) in wanted:
            curve[step] = float(kl_by_context(model, join_variables(state.params, {}), pairs).sum())

    variables, _ = jaxlm.train_lm(
        model,
        data.train_ids,
        key=key,
        batch_size=_BATCH_SIZE,
        num_steps=num_steps,
        optimizer=momentum_sgd(best),
        log_every=num_steps,
        on_pause=measure,
        pause_every=_PAUSE_EVERY,
    )
    lost = kl_by_context(model, variables, pairs)
    worst = [int(token) for token in np.argsort(-lost)[:_WORST]]
    return {
        "width": width,
        "lr": best,
        "final_kl_nats_by_lr": [float(end) if np.isfinite(end) else None for end in ends],
        "steps": list(curve),
        "kl_nats": list(curve.values()),
        "worst_contexts": [
            {
                "token": data.tokenizer.decode([token]),
                "kl_nats": float(lost[token]),
                "share_of_kl_percent": float(100 * lost[token] / lost.sum()),
                "share_of_pairs_percent": float(100 * pairs[token].sum() / pairs.sum()),
            }
            for token in worst
        ],
    }


def kl_by_context(model: jaxlm.LanguageModel, variables: Any, pairs: Floats) -> Floats:
    """What each token adds to KL(counts || model), [V]: nats per token of the text, rows weighted by counts."""
    contexts = jnp.arange(model.vocab_size)[:, None]
    log_probs = np.asarray(jax.nn.log_softmax(model.apply(variables, contexts)), np.float64)
    rows = pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1)
    log_rows = np.log(rows, where=pairs > 0, out=np.zeros_like(rows))
    return np.asarray((pairs * (log_rows - log_probs)).sum(axis=1) / pairs.sum())


def recorded_steps(num_steps: int) -> list[int]:
    """About thirty numbers of steps done, evenly spaced on a logarithmic axis; the last is `num_steps`.

    >>> recorded_steps(100)[:4], recorded_steps(100)[-1]
    ([10, 20, 30, 40], 100)
    """
    spaced = np.geomspace(_PAUSE_EVERY, max(num_steps, _PAUSE_EVERY), 30) // _PAUSE_EVERY * _PAUSE_EVERY
    return sorted({*(int(step) for step in spaced if step < num_steps), num_steps})


def table_text(results: Mapping[str, Any]) -> str:
    """The widths and their worst tokens as a person reads them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("D", "lr", "KL (nats/token)", "training nats", "perplexity"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("tokens after which most of it is lost (share of the KL)", no_wrap=True)
    floor = results["counts_nats_per_token"]
    table.add_row("counts", "-", "0", f"{floor:.5f}", f"{np.exp(floor):.4f}", "-")
    for row in results["widths"]:
        nats = row["kl_nats"][-1]
        worst = "  ".join(
            f"{show_whitespace(each['token'])} {each['share_of_kl_percent']:.0f} %"
            for each in row["worst_contexts"]
        )
        figures = f"{nats:.5f}", f"{floor + nats:.5f}", f"{np.exp(floor + nats):.4f}"
        table.add_row(str(row["width"]), f"{row['lr']:g}", *figures, Text(worst))
    return as_text(table)


def picture_of(results: Mapping[str, Any]) -> Any:
    """KL by step for each width, and at the end by width."""
    figure = new_figure(11, 4.6)
    by_step, by_width = figure.subplots(1, 2)
    rows = results["widths"]
    for row, color in zip(rows, COLORS, strict=False):
        by_step.plot(row["steps"], row["kl_nats"], color=color, label=f"D = {row['width']}")
    by_step.set(xscale="log", yscale="log", xlabel="training steps", title="by step")
    by_step.set_ylabel("KL(counts || neural), nats per token")
    by_step.legend(loc="lower left", fontsize=9)
    widths, ends = [row["width"] for row in rows], [row["kl_nats"][-1] for row in rows]
    by_width.plot(widths, ends, color="#333333", marker="o")
    for width, end in zip(widths, ends, strict=True):
        by_width.annotate(f"{end:.2g}", (width, end), (5, 5), textcoords="offset points", fontsize=9)
    by_width.set(xscale="log", yscale="log", xlabel="D, dimensions of the embedding", title="at the end")
    by_width.set_xticks(widths, [str(width) for width in widths], minor=False)
    by_width.minorticks_off()
    by_width.margins(0.12)
    for axes in (by_step, by_width):
        axes.grid(alpha=0.25)
    floor = results["counts_nats_per_token"]
    figure.suptitle(
        f"What a neural bigram lacks of the counts' {floor:.4f} nats per token, V = {results['vocab_size']}"
    )
    return figure


if __name__ == "__main__":
    options = tyro.cli(CountsVsNeuralConfig, prog="counts_vs_neural")
    sys.exit(run_command(lambda: run_counts_vs_neural(options, stdout_console())))
