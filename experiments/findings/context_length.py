"""What does a longer context gain and cost, for n-gram counts and for the MLP?

    python -m experiments.findings.context_length           # about 9 min on 2 CPU cores
    python -m experiments.findings.context_length --quick   # three context lengths, in about a minute

N-gram counts use modified Kneser-Ney smoothing, with context length N from 0 to 5. The MLP (D=64, H=128) is
trained with the options of `experiments/shared/recipes/minute.json`: SGD with momentum, cosine decay and weight
decay, N from 1 to 8. The table shows each model's perplexity and memory: a dense table of all n-grams at 8 bytes
per cell, the n-grams that occur, and the MLP's parameters. It also shows the longest context whose dense table
fits into a given memory, for several vocabulary sizes.

Expected on the classic tiny Shakespeare file: counts 123.55 for N = 1, 102.86 for 2, and 103.4 to 103.6 for longer
contexts; MLP 121.95, 101.73, 95.84, 95.49, 95.26, 94.48, 95.05, 95.11 for N = 1 to 8, from one seed (seeds differ
by about 0.5). A dense table takes 134 MB for N = 1, 550 GB for 2 and 2.3 PB for 3; the MLP takes 3.2 to 3.4 MB. In
16 GiB the longest context of a dense table is 5 tokens with V = 27, 4 with 65, 2 with 384, 1 with 4096 and 0 with
50,257.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

import jaxlm
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import TextOptions
from experiments.shared.plots import new_panels, plot_lines
from experiments.shared.recipes import read_recipe, train_recipe
from experiments.shared.tables import format_records
from experiments.shared.training import fit_counts
from jaxlm.models.interface import num_params
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.runs.report.plots import COLORS
from jaxlm.runs.results import describe_dataset
from jaxlm.text.dataset import Dataset, load_dataset
from jaxlm.utils.checks import check_at_least

_LONGEST_COUNTED = 5
_MEMORY_BYTES = 16.0 * 2**30
_BYTES_PER_CELL = 8  # a count and a log-probability, as in `CountsNgramLM`
_VOCAB_SIZES = (27, 65, 384, 4096, 50_257)  # letters, characters, bytes and some merges, the ladder's, GPT-2's


@dataclass(frozen=True, kw_only=True)
class ContextLengthOptions(TextOptions):
    """Measure perplexity and memory of n-gram counts and of the MLP by context length."""

    longest: int = 8
    """The MLP's longest context, in tokens; at most 3 with --quick."""


def prepare(options: ContextLengthOptions) -> Experiment:
    """Check the options and load the text."""
    check_at_least("--longest", options.longest, 1)
    config, longest = make_config(options), max(options.longest, _LONGEST_COUNTED)
    size = config.vocab_size
    data = load_dataset(options.corpus, options.text, "bpe", vocab_size=size, min_tokens=longest + 1)
    return Experiment("context-length", partial(measure, options, config, data))


def make_config(options: ContextLengthOptions) -> TrainConfig:
    """Return the training config of every MLP, without its context length."""
    config = replace(read_recipe("minute"), seed=options.seed)
    return resolve(replace(config, num_steps=300, vocab_size=512) if options.quick else config)


def measure(options: ContextLengthOptions, config: TrainConfig, data: Dataset, run: RunContext) -> Findings:
    """Evaluate the counts and the MLP at every context length."""
    run.log(f"{data.corpus.source}: {len(data.train_ids):,} training, {len(data.val_ids):,} validation tokens")
    longest = min(options.longest, 3) if options.quick else options.longest
    counts = [evaluate_counts(data, length) for length in range(min(longest, _LONGEST_COUNTED) + 1)]
    mlps = []
    for length in range(1, longest + 1):
        mlps.append(evaluate_mlp(data, replace(config, context_length=length)))
        run.log(f"MLP, N = {length}: validation perplexity {mlps[-1]['perplexity']:.2f}")
    results = {
        **describe_dataset(data, "bpe"),
        "counts": counts,
        "mlp": mlps,
        "memory_bytes": _MEMORY_BYTES,
        "longest_dense_by_vocab_size": {
            str(size): longest_dense_context(size, _MEMORY_BYTES) for size in _VOCAB_SIZES
        },
    }
    return Findings(results, format_results(results), {"picture": plot(results)})


def evaluate_counts(data: Dataset, context_length: int) -> dict[str, Any]:
    """Return perplexity and memory of n-gram counts with modified Kneser-Ney smoothing."""
    model = jaxlm.CountsNgramLM(data.tokenizer.vocab_size, context_length, table="sparse")
    variables = fit_counts(model, data.train_ids)
    ngrams, _ = model.ngrams_of(variables)
    return {
        "context_length": context_length,
        "perplexity": jaxlm.perplexity(model, variables, data.val_ids),
        "num_ngrams": len(ngrams),
        "bytes": num_bytes(variables),
        "dense_bytes": dense_bytes(data.tokenizer.vocab_size, context_length),
    }


def evaluate_mlp(data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """Return perplexity and size of a trained MLP."""
    mlp = train_recipe(config, data.tokenizer.vocab_size, data.train_ids, data.val_ids)
    row = {"context_length": config.context_length, "perplexity": mlp.perplexity}
    return row | {"num_parameters": num_params(mlp.variables), "bytes": num_bytes(mlp.variables)}


def num_bytes(variables: Any) -> int:
    """Return the memory of the variables in bytes."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(variables))


def dense_bytes(vocab_size: int, context_length: int) -> int:
    """Return the size of a dense table with one cell for each of the V^(N + 1) n-grams.

    >>> dense_bytes(4096, context_length=1)
    134217728
    """
    return _BYTES_PER_CELL * vocab_size ** (context_length + 1)


def longest_dense_context(vocab_size: int, memory_bytes: float) -> int:
    """Return the longest context whose dense table fits into the memory; -1 if no table fits.

    >>> longest_dense_context(27, 16 * 2**30), longest_dense_context(4096, 16 * 2**30)
    (5, 1)
    """
    length = -1
    while dense_bytes(vocab_size, length + 1) <= memory_bytes:
        length += 1
    return length


def format_results(results: Mapping[str, Any]) -> str:
    """Return perplexities and sizes by context length, and the longest dense contexts."""
    records: dict[int, dict[str, Any]] = {}
    for name in ("counts", "mlp"):
        for row in results[name]:
            record = records.setdefault(row["context_length"], {"N": row["context_length"]})
            record |= {f"{name}_{field}": value for field, value in row.items()}
            record[f"{name}_memory"] = format_bytes(row["bytes"])
    for length, record in records.items():
        record["dense"] = format_bytes(dense_bytes(results["tokenizer"]["vocab_size"], length))
    columns = {
        "N": "{N}",
        "counts:\nperplexity": "{counts_perplexity:.2f}",
        "n-grams\nthat occur": "{counts_num_ngrams:,}",
        "counts:\nmemory": "{counts_memory}",
        "dense\ntable": "{dense}",
        "MLP:\nperplexity": "{mlp_perplexity:.2f}",
        "MLP:\nparameters": "{mlp_num_parameters:,}",
        "MLP:\nmemory": "{mlp_memory}",
    }
    table = format_records(records.values(), columns, text_columns=0)
    longest = ", ".join(
        f"{length} with V = {size}" for size, length in results["longest_dense_by_vocab_size"].items()
    )
    return f"{table}\n\nLongest N whose dense table fits into {format_bytes(results['memory_bytes'])}: {longest}"


def format_bytes(num_bytes: float) -> str:
    """Return a number of bytes with two or three digits and a decimal unit.

    >>> format_bytes(27**2 * 8), format_bytes(4096**3 * 8), format_bytes(8.0 * 4096**9)
    ('5.8 kB', '550 GB', '2.6e+33 B')
    """
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB", "EB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if size >= 9.95 else f"{size:.2g} {unit}"
        size /= 1000
    return f"{float(num_bytes):.2g} B"


def plot(results: Mapping[str, Any]) -> Any:
    """Plot perplexity and memory by context length."""
    figure, (left, right) = new_panels(2, 5, 4.4)
    vocab_size, memory = results["tokenizer"]["vocab_size"], results["memory_bytes"]
    lengths = range(max(row["context_length"] for row in results["mlp"]) + 1)
    for axes, field in ((left, "perplexity"), (right, "bytes")):
        lines: dict[str, tuple[Sequence[int], Sequence[float]]] = {
            title: ([row["context_length"] for row in results[name]], [row[field] for row in results[name]])
            for name, title in (("counts", "counts, modified Kneser-Ney"), ("mlp", "MLP"))
        }
        if axes is right:
            dense = [float(dense_bytes(vocab_size, length)) for length in lengths]
            lines["dense table of all n-grams"] = lengths, dense
            axes.axhline(memory, color=COLORS[-1], linestyle="--", label=format_bytes(memory))
        plot_lines(axes, lines)
        axes.set(xlabel="context length N (tokens)", yscale="log")
        axes.set_xticks(lengths)
        axes.legend(frameon=False, fontsize=9)
    left.set(title=f"validation perplexity, V = {vocab_size:,}")
    left.yaxis.set_major_formatter("{x:,.0f}")
    left.yaxis.set_minor_formatter("{x:,.0f}")
    left.tick_params(which="minor", labelsize=7)
    right.set(title="memory (bytes)")
    return figure


if __name__ == "__main__":
    main(ContextLengthOptions, prepare)
