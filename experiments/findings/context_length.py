"""What does more context buy, and what does it cost: counts of every order, and the MLP, by tokens of context.

    python -m experiments.findings.context_length           # about 9 min on 2 CPU cores
    python -m experiments.findings.context_length --quick   # every artefact, in a minute

Counts are smoothed by modified Kneser-Ney, N from 0 to 5; the MLP (D=64, H=128) is trained by SGD with momentum,
cosine decay and weight decay, N from 1 to 8, by the options of `experiments/shared/recipes/minute.json`. Beside each
perplexity stands what the model weighs: what a table with a cell for every n-gram would, at 8 bytes a cell; what
the n-grams that were seen do; and the parameters of the MLP. The wall is the longest context whose table fits
into a given memory, for vocabularies of many sizes.

Expected, on the classic tiny Shakespeare file: counts 123.55 for N = 1, 102.86 for 2, and 103.4 to 103.6 from
there on; MLP 121.95, 101.73, 95.84, 95.49, 95.26, 94.48, 95.05, 95.11 for N = 1 to 8, of one seed, where seeds
differ by about 0.5. A table takes 134 MB for N = 1, 550 GB for 2 and 2.3 PB for 3, the MLP 3.2 to 3.4 MB. In 16
GiB the longest contexts are 5 tokens of 27, 4 of 65, 2 of 384, 1 of 4096 and 0 of 50,257.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

import jaxlm
from experiments.shared.benchmark import as_text
from experiments.shared.experiment import COLORS, Findings, Output, OutputOptions, new_figure, run_experiment
from experiments.shared.recipes import recipe_config, train_recipe
from jaxlm.models.interface import num_params
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.runs.results import describe_dataset
from jaxlm.text.dataset import Dataset, load_dataset
from jaxlm.utils.terminal import print_plain, run_command, stdout_console

_LONGEST_COUNTED = 5
_BYTES_PER_CELL = 8  # a count and a log-probability, as `CountsNgramLM` has them
_BYTES_PER_WEIGHT = 4
_VOCABULARIES = (27, 65, 384, 4096, 50_257)  # names, characters, bytes and a little, ours, GPT-2's


@dataclass(frozen=True)
class ContextConfig:
    """Perplexity and size by the tokens of context, of counts and of the MLP."""

    corpus: str = "tinyshakespeare"
    """A named corpus: tinyshakespeare, or shakespeare (all the plays)."""
    text: Path | None = None
    """A UTF-8 text file of your own, instead of a named corpus."""
    longest: int = 8
    """The MLP's longest context, in tokens."""
    steps: int | None = None
    """Training steps of each MLP; None is the recipe's, or 300 with --quick."""
    memory_gib: float = 16.0
    """The memory, in GiB, into which a table must fit to stand before the wall."""
    seed: int = 0
    """Every random choice of the training follows from it: 0 to 2**32 - 1."""
    quick: bool = False
    """Three contexts, a small vocabulary, few steps: every artefact, in a minute."""
    output: OutputOptions = Output()  # frozen  # noqa: RUF009


def run_context_length(config: ContextConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    if config.longest < 1:
        raise ValueError(f"--longest must be at least 1, got {config.longest}")
    if not 0 < config.memory_gib < 2**40:
        raise ValueError(f"--memory-gib must be above 0 (and below 2**40), got {config.memory_gib}")
    training = training_options(config)
    data = load_dataset(
        config.corpus,
        config.text,
        "bpe",
        vocab_size=training.vocab_size,
        min_tokens=max(config.longest, _LONGEST_COUNTED) + 1,
    )
    print_plain(
        console,
        f"{data.corpus.source}: {len(data.train_ids):,} tokens to train, {len(data.val_ids):,} to validate",
    )
    return run_experiment("context-length", config, console, lambda: find(config, training, data, console))


def training_options(config: ContextConfig) -> TrainConfig:
    """How each MLP is trained; its context is set later."""
    options = replace(recipe_config("minute"), seed=config.seed)
    if config.quick:
        options = replace(options, num_steps=300, vocab_size=512)
    if config.steps is not None:
        options = replace(options, num_steps=config.steps)
    return resolve(options)


def find(config: ContextConfig, training: TrainConfig, data: Dataset, console: Console) -> Findings:
    """All rows, the table and the picture of them."""
    lengths = range(1, min(config.longest, 3 if config.quick else config.longest) + 1)
    counts = [counted(data, length) for length in range(min(max(lengths), _LONGEST_COUNTED) + 1)]
    mlps = []
    for length in lengths:
        mlps.append(trained(data, replace(training, context_length=length)))
        print_plain(
            console, f"MLP, {length} tokens of context: validation perplexity {mlps[-1]['perplexity']:.2f}"
        )
    memory = config.memory_gib * 2**30
    results = {
        **describe_dataset(data, "bpe"),
        "counts": counts,
        "mlp": mlps,
        "memory_bytes": memory,
        "wall": [{"vocab_size": size, "longest_context": wall(size, memory)} for size in _VOCABULARIES],
    }
    return Findings(results, table_text(results), picture(results))


def counted(data: Dataset, context_length: int) -> dict[str, Any]:
    """Counts of n-grams, n = context_length + 1, smoothed by modified Kneser-Ney: validation and bytes."""
    model = jaxlm.CountsNgramLM(data.tokenizer.vocab_size, context_length, table="sparse")
    variables = model.fit(jaxlm.init(model, jax.random.key(0)), data.train_ids)
    ngrams, _ = model.ngrams_of(variables)
    return {
        "context_length": context_length,
        "perplexity": jaxlm.perplexity(model, variables, data.val_ids),
        "num_ngrams": len(ngrams),
        "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(variables)),
        "table_bytes": table_bytes(data.tokenizer.vocab_size, context_length),
    }


def trained(data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """The MLP of the config: validation, parameters and bytes."""
    mlp = train_recipe(config, data.tokenizer.vocab_size, data.train_ids, data.val_ids)
    num_parameters = num_params(mlp.variables)
    return {
        "context_length": mlp.model.context_length,
        "perplexity": mlp.perplexity,
        "num_parameters": num_parameters,
        "bytes": _BYTES_PER_WEIGHT * num_parameters,
    }


def table_bytes(vocab_size: int, context_length: int) -> int:
    """What a table with a cell for each of the V^(N + 1) n-grams takes."""
    return _BYTES_PER_CELL * vocab_size ** (context_length + 1)


def wall(vocab_size: int, memory_bytes: float) -> int:
    """The longest context whose table fits into the memory; -1 where not even single tokens do.

    >>> wall(27, 16 * 2**30), wall(4096, 16 * 2**30)
    (5, 1)
    """
    length = -1
    while table_bytes(vocab_size, length + 1) <= memory_bytes:
        length += 1
    return length


def table_text(results: Mapping[str, Any]) -> str:
    """The text of `table.txt`."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    headers = "context", "counts:\nperplexity", "n-grams\nseen", "their\nbytes", "a table's\nbytes"
    for header in (*headers, "MLP:\nperplexity", "its\nparameters", "its\nbytes"):
        table.add_column(header, justify="right", no_wrap=True)
    counts = {row["context_length"]: row for row in results["counts"]}
    mlps = {row["context_length"]: row for row in results["mlp"]}
    for length in sorted({*counts, *mlps}):
        cells = [str(length)]
        if (row := counts.get(length)) is not None:
            sizes = f"{row['num_ngrams']:,}", in_units(row["bytes"]), in_units(row["table_bytes"])
            cells += [f"{row['perplexity']:.2f}", *sizes]
        else:
            cells += ["", "", "", in_units(table_bytes(results["tokenizer"]["vocab_size"], length))]
        if (row := mlps.get(length)) is not None:
            cells += [f"{row['perplexity']:.2f}", f"{row['num_parameters']:,}", in_units(row["bytes"])]
        table.add_row(*cells)
    walls = ", ".join(f"{row['vocab_size']:,}: {row['longest_context']}" for row in results["wall"])
    memory = in_units(results["memory_bytes"])
    return f"{as_text(table)}\nlongest context whose table fits into {memory}, by vocabulary: {walls}\n"


def in_units(num_bytes: float) -> str:
    """Bytes in few letters.

    >>> in_units(27**2 * 8), in_units(4096**3 * 8), in_units(8.0 * 4096**9)
    ('5.8 kB', '550 GB', '2.6e+33 B')
    """
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB", "EB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if size >= 9.95 else f"{size:.2g} {unit}"
        size /= 1000
    return f"{float(num_bytes):.2g} B"


def picture(results: Mapping[str, Any]) -> Any:
    """Left perplexity by context, right bytes by context, logarithmic, with the wall."""
    figure = new_figure(10, 4.4)
    left, right = figure.subplots(1, 2)
    vocab_size = results["tokenizer"]["vocab_size"]
    for rows, title, color, marker in (
        (results["counts"], "counts, modified Kneser-Ney", COLORS[0], "o"),
        (results["mlp"], "MLP", COLORS[1], "s"),
    ):
        lengths = [row["context_length"] for row in rows]
        left.plot(lengths, [row["perplexity"] for row in rows], color=color, marker=marker, label=title)
        right.plot(lengths, [row["bytes"] for row in rows], color=color, marker=marker, label=title)
    lengths = list(range(max(row["context_length"] for row in results["mlp"]) + 1))
    right.plot(
        lengths,
        [float(table_bytes(vocab_size, length)) for length in lengths],
        color=COLORS[2],
        marker="^",
        label="a table with every n-gram",
    )
    memory = results["memory_bytes"]
    right.axhline(memory, color=COLORS[-1], linestyle="--", label=f"{in_units(memory)}: the wall")
    left.set(title=f"validation perplexity, V = {vocab_size:,}", xlabel="tokens of context", yscale="log")
    left.yaxis.set_major_formatter("{x:,.0f}")
    left.yaxis.set_minor_formatter("{x:,.0f}")
    left.tick_params(which="minor", labelsize=7)
    right.set(title="bytes", xlabel="tokens of context", yscale="log")
    for axes in (left, right):
        axes.set_xticks(lengths)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    options = tyro.cli(ContextConfig, prog="context_length")
    sys.exit(run_command(lambda: run_context_length(options, stdout_console())))
