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

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

import jaxlm
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import TextOptions
from experiments.shared.recipes import read_recipe, train_recipe
from experiments.shared.report import format_records, plot_lines
from experiments.shared.training import evaluate_counts
from jaxlm.models.interface import num_params
from jaxlm.runs.config import TrainConfig
from jaxlm.runs.results import describe_dataset
from jaxlm.text.dataset import Dataset, load_dataset
from jaxlm.utils.checks import check_at_least

_LONGEST_COUNTED = 5
_MEMORY_GIB = 16
_BYTES_PER_CELL = 8  # a count and a log-probability, as in `CountsNgramLM`
_VOCAB_SIZES = (27, 65, 384, 4096, 50_257)  # letters; characters; bytes and 128 merges; the ladder; GPT-2


@dataclass(frozen=True, kw_only=True)
class ContextLengthOptions(TextOptions):
    """Measure perplexity and memory of n-gram counts and of the MLP by context length."""

    longest: int = 8
    """The MLP's longest context, in tokens; at most 3 with --quick."""


def prepare(options: ContextLengthOptions) -> Experiment:
    """Check the options and load the text."""
    check_at_least("--longest", options.longest, 1)
    config = read_recipe("minute", seed=options.seed, quick_steps=300 if options.quick else None)
    min_tokens = max(options.longest, _LONGEST_COUNTED) + 1
    data = load_dataset(options.corpus, options.text, "bpe", vocab_size=config.vocab_size, min_tokens=min_tokens)
    return Experiment("context-length", partial(measure, options, config, data))


def measure(options: ContextLengthOptions, config: TrainConfig, data: Dataset, run: RunContext) -> Findings:
    """Evaluate the counts and the MLP at every context length."""
    run.log(f"{data.corpus.source}: {len(data.train_ids):,} training, {len(data.val_ids):,} validation tokens")
    longest = min(options.longest, 3) if options.quick else options.longest
    rows: list[dict[str, Any]] = []
    for length in range(longest + 1):
        rows.append(
            {
                "context_length": length,
                "counts": measure_counts(data, length) if length <= _LONGEST_COUNTED else None,
                "mlp": measure_mlp(data, replace(config, context_length=length)) if length else None,
                "dense_megabytes": dense_bytes(data.tokenizer.vocab_size, length) / 1e6,
            }
        )
        perplexities = [
            f"{name} {rows[-1][name]['perplexity']:.2f}" for name in ("counts", "mlp") if rows[-1][name]
        ]
        run.log(f"N = {length}: validation perplexity of {', '.join(perplexities)}")
    fitting = {str(size): longest_dense_context(size, _MEMORY_GIB * 2**30) for size in _VOCAB_SIZES}
    results = {**describe_dataset(data, "bpe"), "rows": rows, "longest_dense_by_vocab_size": fitting}
    return Findings(results, format_results(results), {"picture": plot(results)})


def measure_counts(data: Dataset, context_length: int) -> dict[str, Any]:
    """Return perplexity and memory of n-gram counts with modified Kneser-Ney smoothing."""
    model = jaxlm.CountsNgramLM(data.tokenizer.vocab_size, context_length)
    counts = evaluate_counts(model, data)
    sizes = {
        "num_ngrams": len(model.ngrams_of(counts.variables)[0]),
        "megabytes": count_megabytes(counts.variables),
    }
    return {"perplexity": counts.perplexity, **sizes}


def measure_mlp(data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """Return perplexity and size of a trained MLP."""
    mlp = train_recipe(config, data.tokenizer.vocab_size, data.train_ids, data.val_ids)
    sizes = {"num_parameters": num_params(mlp.variables), "megabytes": count_megabytes(mlp.variables)}
    return {"perplexity": mlp.perplexity, **sizes}


def count_megabytes(variables: Any) -> float:
    """Return the memory of the variables in MB."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(variables)) / 1e6


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
    columns = {
        "N": "{context_length}",
        "counts:\nperplexity": "{counts[perplexity]:.2f}",
        "n-grams\nthat occur": "{counts[num_ngrams]:,}",
        "counts:\nMB": "{counts[megabytes]:.3g}",
        "dense table:\nMB": "{dense_megabytes:.3g}",
        "MLP:\nperplexity": "{mlp[perplexity]:.2f}",
        "MLP:\nparameters": "{mlp[num_parameters]:,}",
        "MLP:\nMB": "{mlp[megabytes]:.3g}",
    }
    longest = ", ".join(f"{n} with V = {size}" for size, n in results["longest_dense_by_vocab_size"].items())
    table = format_records(results["rows"], columns, text_columns=0)
    return f"{table}\n\nLongest N whose dense table fits into {_MEMORY_GIB} GiB: {longest}"


def plot(results: Mapping[str, Any]) -> Any:
    """Plot perplexity and memory by context length."""
    rows = results["rows"]
    lengths = [row["context_length"] for row in rows]
    panels: dict[str, dict[str, Any]] = {}
    for title, field in (("validation perplexity", "perplexity"), ("memory (MB)", "megabytes")):
        panels[title] = {}
        for label, name in (("counts, modified Kneser-Ney", "counts"), ("MLP", "mlp")):
            points = [(row["context_length"], row[name][field]) for row in rows if row[name]]
            panels[title][label] = list(zip(*points, strict=True))
    panels["memory (MB)"]["dense table of all n-grams"] = lengths, [row["dense_megabytes"] for row in rows]
    return plot_lines(panels, xlabel="context length N (tokens)", yscale="log")


if __name__ == "__main__":
    main(ContextLengthOptions, prepare)
