"""makemore's names: do counts and the MLP come to the losses that its lectures print, window for window?

    python -m experiments.findings.makemore_names --text names.txt           # about 90 s on 2 CPU cores
    python -m experiments.findings.makemore_names --text names.txt --quick   # every artefact; about 55 s beside other load

The file is github.com/karpathy/makemore's `names.txt`, 32,033 names, one a line. Tokens are its characters and
`.`, which marks where a name begins and ends. A model that sees N of them reads one stream in which each name has
N marks before it: its windows are makemore's, and N - 1 more a name whose target is one of those marks. These are
left out of the counts and of every figure. The MLP is trained on random windows of the whole stream: two in nine
teach it nothing but that marks come in threes.

Bigrams are counted and scored on all names, as lecture 2 does. For the rest the names are shuffled with Python's
seed 42: eight tenths train, one validates, as in the MLP's lectures; the last tenth is not looked at. The MLP's
hyper-parameters are the best on the last tenth of the *training* names, of models trained on the others.

Expected (nats per token): bigram 2.4540 by maximum likelihood and 2.4546 with add-one, on all names. Validation:
4-gram 2.1018 with add 0.1; modified Kneser-Ney 2.4528, 2.2185, 2.0560, 1.9832 and 1.9740 for orders 2 to 6; MLP
with 3 letters 2.1040, 2.1014 and 2.1040 (seed 0), mean 2.1032, interval 2.0995 to 2.1068. The lectures' MLP:
2.1701, then 2.1027.
"""

import math
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

import jaxlm
from experiments.shared.benchmark import as_text
from experiments.shared.experiment import (
    COLORS,
    Findings,
    Output,
    OutputOptions,
    mean_and_interval,
    new_figure,
    run_experiment,
)
from experiments.shared.unit_embeddings import UnitEmbeddings
from jaxlm.training.optimizers import sgd
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.terminal import print_plain, run_command, stdout_console

MARK = "."
_CONTEXT_LENGTH = 3  # of the MLP and of the 4-gram that stands beside it
_LR, _BATCH_SIZE = 0.04, 128
_PUBLISHED = {"makemore's MLP": 2.1701, "with better initialisation": 2.1027}
_NAMES_SHOWN = 4
_CURVE_POINTS = 24


@dataclass(frozen=True)
class NamesConfig:
    """Counts and an MLP on makemore's names, beside the losses that its lectures print."""

    text: Path | None = None
    """The file of names, one a line: makemore's names.txt."""
    steps: int = 40_000
    """Training steps of the MLP, of 128 windows."""
    num_seeds: int = 3
    """Runs of the MLP, at least 2: their mean has a 95 % interval."""
    seed: int = 0
    """The MLP's starts, its batches and the sampled names follow from it: 0 to 2**32 - 1."""
    quick: bool = False
    """Two runs of at most 500 steps: every artefact, in seconds."""
    output: OutputOptions = Output()  # frozen  # noqa: RUF009


def run_names(config: NamesConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    if config.text is None:
        raise ValueError(
            "--text FILE is needed: a file of names, one a line, as names.txt of github.com/karpathy/makemore"
        )
    check_at_least("--steps", config.steps, 1)
    check_at_least("--num-seeds", config.num_seeds, 2)
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in 0..2**32 - 1, got {config.seed}")
    names = names_of(jaxlm.read_text(config.text).text)
    return run_experiment("names", config, console, lambda: find(config, names, console))


def names_of(text: str) -> list[str]:
    """The names, one a line. Raises a ValueError for fewer than twenty, or one with a mark in it."""
    names = [name for line in text.splitlines() if (name := line.strip())]
    if len(names) < 20:
        raise ValueError(f"--text has {len(names)} names, one a line; 20 are needed to have some of each part")
    for name in names:
        if MARK in name:
            raise ValueError(
                f"the name {name!r} holds {MARK!r}, the mark of where names begin and end: take it out"
            )
    return names


def makemore_split(names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The names that train, validate and test: shuffled with Python's seed 42, 80 / 10 / 10."""
    shuffled = list(names)
    random.Random(42).shuffle(shuffled)  # makemore's own shuffle  # noqa: S311
    begin, end = int(0.8 * len(names)), int(0.9 * len(names))
    return shuffled[:begin], shuffled[begin:end], shuffled[end:]


def stream_of(names: Sequence[str], tokenizer: jaxlm.CharTokenizer, context_length: int) -> np.ndarray[Any, Any]:
    """The names as one stream of ids, int32 [T]: before each as many marks as a model sees, at the end one more.

    >>> jaxlm.CharTokenizer.train(".abc").decode(stream_of(["ab", "c"], jaxlm.CharTokenizer.train(".abc"), 2))
    '..ab..c.'
    """
    return tokenizer.encode("".join(MARK * context_length + name for name in names) + MARK)


def is_asked(windows: np.ndarray[Any, Any], mark: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which windows [M, N + 1] makemore has: all but those whose last two tokens are marks. bool [M]."""
    return (windows[:, -1] != mark) | (windows[:, -2] != mark)


def nats_per_token(model: jaxlm.LanguageModel, variables: Any, names: Sequence[str], tokenizer: Any) -> float:
    """The mean nats of the names' letters and ends: of makemore's windows and of no others."""
    ids = stream_of(names, tokenizer, model.context_length)
    nats = jaxlm.window_nats(model, variables, ids)
    windows = np.lib.stride_tricks.sliding_window_view(ids, model.context_length + 1)
    return float(nats[is_asked(windows, mark_of(tokenizer))].mean(dtype=np.float64))


def mark_of(tokenizer: jaxlm.CharTokenizer) -> int:
    """The mark's id."""
    return int(tokenizer.encode(MARK)[0])


def counted(model: jaxlm.CountsNgramLM, names: Sequence[str], tokenizer: jaxlm.CharTokenizer) -> Any:
    """The model's variables with makemore's windows of the names counted, and no others."""
    ids = stream_of(names, tokenizer, model.context_length)
    ngrams, counts = model.ngrams_of(model.fit(jaxlm.init(model, jax.random.key(0)), ids))
    asked = is_asked(ngrams, mark_of(tokenizer))
    return model.variables_of(ngrams[asked], counts[asked])


def find(config: NamesConfig, names: Sequence[str], console: Console) -> Findings:
    """Every rung's nats per token, with names that it makes up."""
    tokenizer = jaxlm.CharTokenizer.train(MARK + "".join(names))
    train, validation, _ = makemore_split(names)
    rows = []
    for title, model, fitted, scored in counted_rungs(tokenizer.vocab_size, names, train, validation):
        variables = counted(model, fitted, tokenizer)
        rows.append(
            {
                "rung": title,
                "scored_on": "all names" if scored is names else "validation",
                "nats_per_token": nats_per_token(model, variables, scored, tokenizer),
                "names": made_up(model, variables, tokenizer, config.seed),
            }
        )
        print_plain(console, f"{title}: {rows[-1]['nats_per_token']:.4f} nats")
    mlp = train_mlps(config, train, validation, tokenizer)
    results = {
        "vocab_size": tokenizer.vocab_size,
        "num_names": {"all": len(names), "train": len(train), "validation": len(validation)},
        "counts": rows,
        "mlp": mlp,
        "published_validation_nats": _PUBLISHED,
    }
    return Findings(results, table_text(results), picture_of(results))


def counted_rungs(
    vocab_size: int, names: Sequence[str], train: Sequence[str], validation: Sequence[str]
) -> Iterator[tuple[str, jaxlm.CountsNgramLM, Sequence[str], Sequence[str]]]:
    """Title, model, the names that it counts, the names that it is scored on."""
    for title, k in (("bigram, maximum likelihood", 0.0), ("bigram, add 1", 1.0)):
        yield title, jaxlm.CountsNgramLM(vocab_size, 1, jaxlm.AddK(k)), names, names
    yield "4-gram, add 0.1", jaxlm.CountsNgramLM(vocab_size, _CONTEXT_LENGTH, jaxlm.AddK(0.1)), train, validation
    for order in range(2, 7):
        yield f"{order}-gram, modified Kneser-Ney", jaxlm.CountsNgramLM(vocab_size, order - 1), train, validation


def train_mlps(
    config: NamesConfig, train: Sequence[str], validation: Sequence[str], tokenizer: jaxlm.CharTokenizer
) -> dict[str, Any]:
    """The MLP from several seeds, side by side: each run's validation nats, their mean and its interval."""
    model = UnitEmbeddings(jaxlm.MLPLanguageModel(tokenizer.vocab_size, _CONTEXT_LENGTH, 10, 200))
    num_steps = min(config.steps, 500) if config.quick else config.steps
    num_runs = 2 if config.quick else config.num_seeds

    def momentum_sgd(lr: Any) -> optax.GradientTransformation:
        return sgd(lr, num_steps, schedule="cosine", momentum=0.9)

    val_ids = stream_of(validation, tokenizer, _CONTEXT_LENGTH)
    begin = time.perf_counter()
    runs, histories = jaxlm.train_many(
        model,
        stream_of(train, tokenizer, _CONTEXT_LENGTH),
        keys=jax.random.split(jax.random.key(config.seed), num_runs),
        hyperparams={"lr": np.full(num_runs, _LR)},
        optimizer=momentum_sgd,
        val_ids=val_ids,
        batch_size=_BATCH_SIZE,
        num_steps=num_steps,
        log_every=max(num_steps // _CURVE_POINTS, 1),
    )
    seconds = time.perf_counter() - begin
    each = [jax.tree.map(lambda leaf, run=run: leaf[run], runs) for run in range(num_runs)]
    nats = [nats_per_token(model, variables, validation, tokenizer) for variables in each]
    mean, half_width = mean_and_interval(nats)
    # Perplexities of the whole stream, as nats for each token that is asked: what marks cost is soon next to none.
    num_asked = sum(map(len, validation)) + len(validation)
    scale = (len(val_ids) - _CONTEXT_LENGTH) / num_asked
    return {
        "context_length": _CONTEXT_LENGTH,
        "validation_nats": nats,
        "mean_validation_nats": mean,
        "interval_95_percent": [mean - half_width, mean + half_width],
        "train_nats": [nats_per_token(model, variables, train, tokenizer) for variables in each],
        "train_seconds_of_all_runs": seconds,
        "steps": [step + 1 for step in histories[0]["steps"]],
        "validation_nats_by_step_with_marks": [
            [scale * math.log(perplexity) for perplexity in history["val_perplexities"]] for history in histories
        ],
        "names": made_up(model, each[0], tokenizer, config.seed),
    }


def made_up(model: jaxlm.LanguageModel, variables: Any, tokenizer: jaxlm.CharTokenizer, seed: int) -> list[str]:
    """A few names that the model draws, each from a stream of its own."""
    prompts = np.full((_NAMES_SHOWN, model.context_length), mark_of(tokenizer), np.int32)
    drawn = jaxlm.sample(model, variables, prompts, 40, key=jax.random.key(seed))
    return [tokenizer.decode(ids[model.context_length :]).partition(MARK)[0] for ids in np.asarray(drawn)]


def table_text(results: Mapping[str, Any]) -> str:
    """The rungs as a person reads them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("rung", "scored on"):
        table.add_column(column, no_wrap=True)
    table.add_column("nats/token", justify="right", no_wrap=True)
    table.add_column("names that it makes up", no_wrap=True)
    for row in results["counts"]:
        table.add_row(row["rung"], row["scored_on"], f"{row['nats_per_token']:.4f}", "  ".join(row["names"]))
    mlp = results["mlp"]
    low, high = mlp["interval_95_percent"]
    title = f"MLP, {mlp['context_length']} letters, mean of {len(mlp['validation_nats'])} seeds"
    table.add_row(title, "validation", f"{mlp['mean_validation_nats']:.4f}", "  ".join(mlp["names"]))
    singles = ", ".join(f"{nats:.4f}" for nats in mlp["validation_nats"])
    return as_text(table) + (
        f"\nthe MLP's seeds: {singles}; 95 % interval of the mean: {low:.4f} to {high:.4f}\n"
        f"all of them trained together in {mlp['train_seconds_of_all_runs']:.0f} s, "
        f"{mlp['steps'][-1]:,} steps of {_BATCH_SIZE} windows; makemore prints "
        + ", then ".join(f"{nats:.4f}" for nats in results["published_validation_nats"].values())
        + "\n"
    )


def picture_of(results: Mapping[str, Any]) -> Any:
    """The MLP's validation nats by step, and the other figures as lines."""
    figure = new_figure(10, 5.6)
    axes = figure.subplots()
    mlp = results["mlp"]
    for index, nats in enumerate(mlp["validation_nats_by_step_with_marks"]):
        label = f"MLP, {len(mlp['validation_nats'])} seeds: {mlp['mean_validation_nats']:.4f}"
        axes.plot(mlp["steps"], nats, color=COLORS[0], linewidth=1.2, label=label if index == 0 else None)
    lines = [
        (row["rung"], row["nats_per_token"], "--") for row in results["counts"] if row["scored_on"] != "all names"
    ]
    lines += [(title, nats, ":") for title, nats in results["published_validation_nats"].items()]
    for index, (title, nats, style) in enumerate(lines):
        color = COLORS[1 + index % (len(COLORS) - 1)]
        axes.axhline(nats, color=color, linestyle=style, linewidth=1.4, label=f"{title}: {nats:.4f}")
    ends = [*mlp["validation_nats"], *(nats for _, nats, _ in lines)]
    axes.set_ylim(min(ends) - 0.03, max(max(ends), 2.5) + 0.05)
    axes.set(xlabel="training steps of the MLP", ylabel="validation, nats per token")
    axes.set_title("makemore's names: letters and ends of the validation names")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


if __name__ == "__main__":
    options = tyro.cli(NamesConfig, prog="names")
    sys.exit(run_command(lambda: run_names(options, stdout_console())))
