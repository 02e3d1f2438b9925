"""Do counts and the MLP reach the losses that the makemore lectures print?

    python -m experiments.findings.makemore_names --text names.txt           # about 90 s on 2 CPU cores
    python -m experiments.findings.makemore_names --text names.txt --quick   # two runs of 500 steps

The file is `names.txt` of github.com/karpathy/makemore: 32,033 names, one per line. Tokens are its characters and
`.`, which marks the start and the end of a name. A model with context length N reads one stream with N marks
before each name. The stream has makemore's windows and N - 1 extra ones per name, whose target is a mark before
the name. The counts and all figures leave the extra windows out. The MLP trains on random windows of the whole
stream; two in nine are extra.

Bigrams are counted and evaluated on all names, as in lecture 2. Otherwise the names are shuffled with Python's
seed 42: eight tenths train and one tenth validates, as in the MLP lectures; the last tenth is not used. The MLP's
hyper-parameters are the best on the last tenth of the *training* names, for models trained on the others.

Expected (nats per token): bigram 2.4540 by maximum likelihood and 2.4546 with add-one, on all names. Validation:
4-gram 2.1018 with add-0.1; modified Kneser-Ney 2.4528, 2.2185, 2.0560, 1.9832 and 1.9740 for orders 2 to 6; MLP
with 3 letters 2.1040, 2.1014 and 2.1040 (seed 0), mean 2.1032, interval 2.0995 to 2.1068. The lectures' MLP:
2.1701, then 2.1027.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxlm
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import SeedOptions
from experiments.shared.report import format_records
from experiments.shared.training import Ids, fit_counts, momentum_sgd, train_side_by_side
from experiments.shared.unit_embeddings import UnitEmbeddings
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.statistics import mean_and_interval

_MARK = "."
_CONTEXT_LENGTH = 3  # of the MLP and of the 4-gram
_LR, _BATCH_SIZE = 0.04, 128
_PUBLISHED = "2.1701, with better initialisation 2.1027"


@dataclass(frozen=True, kw_only=True)
class MakemoreNamesOptions(SeedOptions):
    """Compare counts and an MLP on makemore's names with the losses printed in its lectures."""

    text: Path | None = None
    """The file of names, one per line: makemore's names.txt."""
    steps: int = 40_000
    """Training steps of the MLP, of 128 windows; at most 500 with --quick."""


def prepare(options: MakemoreNamesOptions) -> Experiment:
    """Check the options and read the names."""
    if options.text is None:
        raise ValueError("--text FILE is required: names.txt of github.com/karpathy/makemore, one name per line")
    check_at_least("--steps", options.steps, 1)
    return Experiment("makemore-names", partial(measure, options, parse_names(jaxlm.read_text(options.text).text)))


def parse_names(text: str) -> list[str]:
    """Return the names, one per line. Raise ValueError for a name with a mark in it."""
    names = [name for line in text.splitlines() if (name := line.strip())]
    for name in names:
        if _MARK in name:
            raise ValueError(f"the name {name!r} contains {_MARK!r}, the mark of the start and end: remove it")
    return names


def measure(options: MakemoreNamesOptions, names: Sequence[str], run: RunContext) -> Findings:
    """Evaluate every model and sample names from it."""
    tokenizer = jaxlm.CharTokenizer.train(_MARK + "".join(names))
    train, validation = split_names(names)
    make_counts = partial(jaxlm.CountsNgramLM, tokenizer.vocab_size)
    all_names, split = ("all names", names, names), ("validation", train, validation)
    models = [
        ("bigram, maximum likelihood", make_counts(1, jaxlm.AddK(0.0)), *all_names),
        ("bigram, add 1", make_counts(1, jaxlm.AddK(1.0)), *all_names),
        ("4-gram, add 0.1", make_counts(_CONTEXT_LENGTH, jaxlm.AddK(0.1)), *split),
        *((f"{order}-gram, modified Kneser-Ney", make_counts(order - 1), *split) for order in range(2, 7)),
    ]
    rows = []
    for title, model, evaluated_on, fit_names, eval_names in models:
        variables = count_names(model, fit_names, tokenizer)
        nats = nats_per_token(model, variables, eval_names, tokenizer)
        samples = sample_names(model, variables, tokenizer, options.seed)
        rows.append({"model": title, "evaluated_on": evaluated_on, "nats_per_token": nats, "names": samples})
        run.log(f"{title}: {nats:.4f} nats per token")
    results = {
        "num_names": {"all": len(names), "train": len(train), "validation": len(validation)},
        "counts": rows,
        "mlp": train_mlps(options, train, validation, tokenizer),
    }
    return Findings(results, format_results(results))


def split_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return makemore's training and validation names: shuffled with Python's seed 42, then 80 % and 10 %."""
    shuffled = list(names)
    random.Random(42).shuffle(shuffled)  # noqa: S311  # makemore's own shuffle
    begin, end = int(0.8 * len(names)), int(0.9 * len(names))
    return shuffled[:begin], shuffled[begin:end]


def names_to_stream(names: Sequence[str], tokenizer: jaxlm.CharTokenizer, context_length: int) -> Ids:
    """Return the names as one stream, int32 [T], with `context_length` marks before each name and one at the end.

    >>> tokenizer = jaxlm.CharTokenizer.train(".abc")
    >>> tokenizer.decode(names_to_stream(["ab", "c"], tokenizer, 2))
    '..ab..c.'
    """
    return tokenizer.encode("".join(_MARK * context_length + name for name in names) + _MARK)


def is_makemore_window(windows: Ids, tokenizer: jaxlm.CharTokenizer) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return a mask, bool [M], of those windows [M, N + 1] that makemore has: the last two are not both marks."""
    return (windows[:, -2:] != tokenizer.encode(_MARK)).any(axis=1)


def nats_per_token(
    model: jaxlm.LanguageModel, variables: Any, names: Sequence[str], tokenizer: jaxlm.CharTokenizer
) -> float:
    """Return the mean nats over makemore's windows, that is, over the letters and ends of the names."""
    ids = names_to_stream(names, tokenizer, model.context_length)
    nats = jaxlm.window_nats(model, variables, ids)
    windows = np.lib.stride_tricks.sliding_window_view(ids, model.context_length + 1)
    return float(nats[is_makemore_window(windows, tokenizer)].mean(dtype=np.float64))


def count_names(model: jaxlm.CountsNgramLM, names: Sequence[str], tokenizer: jaxlm.CharTokenizer) -> Any:
    """Return the model's variables with makemore's windows of the names counted."""
    ids = names_to_stream(names, tokenizer, model.context_length)
    ngrams, counts = model.ngrams_of(fit_counts(model, ids))
    selected = is_makemore_window(ngrams, tokenizer)
    return model.variables_of(ngrams[selected], counts[selected])


def train_mlps(
    options: MakemoreNamesOptions, train: Sequence[str], validation: Sequence[str], tokenizer: jaxlm.CharTokenizer
) -> dict[str, Any]:
    """Train the MLP from several seeds side by side; return each validation loss, their mean and its interval."""
    model = UnitEmbeddings(jaxlm.MLPLanguageModel(tokenizer.vocab_size, _CONTEXT_LENGTH, 10, 200))
    num_steps, num_runs = (min(options.steps, 500), 2) if options.quick else (options.steps, 3)
    runs, _ = train_side_by_side(
        model,
        names_to_stream(train, tokenizer, _CONTEXT_LENGTH),
        num_steps,
        keys=jax.random.split(jax.random.key(options.seed), num_runs),
        hyperparams={"lr": np.full(num_runs, _LR)},
        optimizer=partial(momentum_sgd, num_steps=num_steps, clip_norm=None),
        batch_size=_BATCH_SIZE,
    )
    nats = [nats_per_token(model, variables, validation, tokenizer) for variables in runs]
    mean, half_width = mean_and_interval(nats)
    return {
        "model": f"MLP, {_CONTEXT_LENGTH} letters, mean of {num_runs} seeds",
        "evaluated_on": "validation",
        "nats_per_token": mean,
        "interval_95_percent": [mean - half_width, mean + half_width],
        "validation_nats": nats,
        "names": sample_names(model, runs[0], tokenizer, options.seed),
    }


def sample_names(
    model: jaxlm.LanguageModel, variables: Any, tokenizer: jaxlm.CharTokenizer, seed: int
) -> list[str]:
    """Return four names sampled from the model, one per stream."""
    prompts = np.tile(tokenizer.encode(_MARK), (4, model.context_length))
    samples = jaxlm.sample(model, variables, prompts, 40, key=jax.random.key(seed))
    return [tokenizer.decode(ids[model.context_length :]).partition(_MARK)[0] for ids in np.asarray(samples)]


def format_results(results: Mapping[str, Any]) -> str:
    """Return a table of all models, and the figures of the MLP's seeds."""
    mlp = results["mlp"]
    records = [{**row, "samples": "  ".join(row["names"])} for row in (*results["counts"], mlp)]
    columns = {
        "model": "{model}",
        "evaluated on": "{evaluated_on}",
        "sampled names": "{samples}",
        "nats/token": "{nats_per_token:.4f}",
    }
    low, high = mlp["interval_95_percent"]
    seeds = ", ".join(f"{nats:.4f}" for nats in mlp["validation_nats"])
    return (
        f"{format_records(records, columns, text_columns=3)}\n\n"
        f"MLP by seed: {seeds}; 95 % interval of the mean: {low:.4f} to {high:.4f}\n"
        f"The lectures' MLP: {_PUBLISHED}"
    )


if __name__ == "__main__":
    main(MakemoreNamesOptions, prepare)
