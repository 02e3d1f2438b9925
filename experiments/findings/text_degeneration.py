"""How does generated text fail? Loops, pairs and words that nobody wrote, lines by heart: five shares, counted.

    python -m experiments.findings.text_degeneration           # about 90 s on 2 CPU cores
    python -m experiments.findings.text_degeneration --quick   # fewer of all: every artefact, sooner

The models of `experiments.ladder.ladder`, trained as there, and modified Kneser-Ney of order 3 and 5, write on from the
same prompts of the validation text at five temperatures. The yardstick is what the validation text has after
these prompts: a share is no failure where real text has it too. The table gives each with its standard error over
the streams, and below it how each model's first stream begins.

Expected on tiny Shakespeare, seed 0, in percent of repeated 4-grams, unseen pairs, unknown words, copied 8-grams:
real text 6.0, 22.3, 6.5, 0.2. At temperature 1, MLP 0.3, 29.0, 12.7, 0.6, Kneser-Ney of order 5 0.3, 22.2, 12.0,
1.4. At temperature 0 all repeat themselves, 84 % and more, and all go round in a loop to the end: that of order
5 has 56 tokens, the same from every prompt (98.2 % of its streams), and it copies 37.6 % of its 8-grams.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

import jaxlm
from experiments.ladder.ladder import (
    LadderConfig,
    baselines,
    check_options,
    counts_bigrams,
    load_text,
    neural_models,
    neural_rungs as train_neural_rungs,
)
from experiments.shared.benchmark import as_text
from experiments.shared.experiment import COLORS, Findings, Output, OutputOptions, new_figure, run_experiment
from jaxlm.runs.setup import SAMPLE_FOLD
from jaxlm.text.dataset import Dataset
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.compilation_cache import enable_compilation_cache
from jaxlm.utils.terminal import run_command, stdout_console

_PROMPT_TOKENS = 4  # the longest context among the models
_REPEATED, _COPIED = 4, 8  # tokens of an n-gram that is looked for in its own stream, and in the training text
_EXCERPT_TOKENS = 40
_REAL = "real text"

Ids = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FailureConfig:
    """Counts how the text fails that the models of the ladder generate, at several temperatures."""

    corpus: str = "tinyshakespeare"
    """A named corpus: tinyshakespeare, or shakespeare (all the plays)."""
    text: Path | None = None
    """A UTF-8 text file of your own, instead of a named corpus."""
    num_streams: int = 16
    """Texts that each model writes at each temperature, at least 2; at most 4 with --quick."""
    num_tokens: int = 400
    """Tokens of each of them, at least 16; at most 100 with --quick."""
    seed: int = 0
    """Every random choice follows from it: 0 to 2**32 - 1."""
    output: OutputOptions = field(default_factory=Output)
    quick: bool = False
    """512 tokens, 300 steps, two temperatures, short streams: every artefact, in seconds."""


class Plan(NamedTuple):
    """What is drawn, and from which n-grams."""

    num_streams: int
    num_tokens: int
    temperatures: tuple[float, ...] = (0.0, 0.5, 0.8, 1.0, 1.3)
    orders: tuple[int, ...] = (3, 5)


class Known(NamedTuple):
    """What the training text holds: counts of pairs [V, V], words, and n-grams as their bytes."""

    pairs: Ids
    words: frozenset[str]
    ngrams: frozenset[bytes]


class Counted(NamedTuple):
    """Of `total` places in a stream, those that fail."""

    failed: int
    total: int


def run_failure_modes(config: FailureConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError, FloatingPointError: what the user can mend, in one line.
    """
    for option, number, least in (
        ("--num-streams", config.num_streams, 2),
        ("--num-tokens", config.num_tokens, 2 * _COPIED),
    ):
        if number < least:
            raise ValueError(f"{option} must be at least {least}, got {number}")
    plan = Plan(config.num_streams, config.num_tokens)
    if config.quick:
        plan = Plan(min(config.num_streams, 4), min(config.num_tokens, 100), (0.0, 1.0), (3,))
    ladder = LadderConfig(
        config.corpus, config.text, seed=config.seed, steps=300 if config.quick else None, quick=config.quick
    )
    check_options(ladder)
    data = load_text(ladder)
    needed = plan.num_streams * (_PROMPT_TOKENS + plan.num_tokens)
    if len(data.val_ids) < needed:
        raise ValueError(
            f"{data.corpus.source} has {len(data.val_ids)} tokens to validate; {plan.num_streams} prompts and "
            f"what follows them need {needed}: use a longer text, or fewer --num-streams or --num-tokens"
        )
    return run_experiment("failure-modes", config, console, partial(find, ladder, plan, data, console))


def find(ladder: LadderConfig, plan: Plan, data: Dataset, console: Console) -> Findings:
    """What every model writes, and how it fails, beside the real text."""
    length = _PROMPT_TOKENS + plan.num_tokens
    starts = np.linspace(0, len(data.val_ids) - length, plan.num_streams).astype(int)
    real = data.val_ids[starts[:, None] + np.arange(length)]  # [B, P + T]
    prompts, tokenizer, known = real[:, :_PROMPT_TOKENS], data.tokenizer, known_of(data)
    key = jax.random.fold_in(jax.random.key(ladder.seed), SAMPLE_FOLD)
    rows = [describe(_REAL, None, real, known, tokenizer)]
    for title, model, variables in writers(ladder, plan, data, console):
        for temperature in plan.temperatures:
            ids = jaxlm.sample(model, variables, prompts, plan.num_tokens, key=key, temperature=temperature)
            rows.append(describe(title, temperature, np.asarray(ids), known, tokenizer))
    results = {"streams": plan.num_streams, "tokens_per_stream": plan.num_tokens, "rows": rows}
    return Findings(results, table_text(rows), draw(rows))


def writers(
    ladder: LadderConfig, plan: Plan, data: Dataset, console: Console
) -> Iterator[tuple[str, jaxlm.LanguageModel, Any]]:
    """The models by title, with their variables."""
    _, unigram = baselines(data)
    for rung in (unigram, *counts_bigrams(data)):
        yield rung.title, rung.model, rung.variables
    for order in plan.orders:
        model = jaxlm.CountsNgramLM(data.tokenizer.vocab_size, order - 1)
        variables = model.fit(jaxlm.init(model, jax.random.key(0)), data.train_ids)
        yield f"Kneser-Ney, order {order}", model, variables
    models = neural_models(ladder, data.tokenizer.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        for rung in train_neural_rungs(models, ladder, data, Path(folder), console):
            yield rung.title, rung.model, rung.variables


def known_of(data: Dataset) -> Known:
    """What the training text holds."""
    bigram = jaxlm.CountsBigramLM(data.tokenizer.vocab_size)
    variables = bigram.fit(jaxlm.init(bigram, jax.random.key(0)), data.train_ids)
    words = words_of(data.tokenizer.decode(data.train_ids))
    return Known(
        np.asarray(variables["counts"]["table"]), frozenset(words), frozenset(ngrams_of(data.train_ids, _COPIED))
    )


def words_of(text: str) -> list[str]:
    """Runs of letters, with apostrophes inside."""
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text)


def ngrams_of(ids: Ids, order: int) -> list[bytes]:
    """The n-grams of `ids` [T], in their order, each as its bytes."""
    return [window.tobytes() for window in np.lib.stride_tricks.sliding_window_view(ids, order)]


def repeated_ngrams(ids: Ids, known: Known, tokenizer: Tokenizer) -> Counted:
    """4-grams of the stream [T] that came in it before: all but the distinct ones."""
    ngrams = ngrams_of(ids, _REPEATED)
    return Counted(len(ngrams) - len(set(ngrams)), len(ngrams))


def looped_tokens(ids: Ids, known: Known, tokenizer: Tokenizer) -> Counted:
    """Tokens of the longest loop: some that come twice or more, one time right after the other."""
    longest = 0
    for period in range(1, len(ids) // 2 + 1):
        differs = np.concatenate([[True], ids[period:] != ids[:-period], [True]])
        num_same = int(np.diff(np.flatnonzero(differs)).max()) - 1
        if num_same >= period:
            longest = max(longest, num_same + period)
    return Counted(longest, len(ids))


def unseen_pairs(ids: Ids, known: Known, tokenizer: Tokenizer) -> Counted:
    """Pairs of tokens that the training text never has."""
    return Counted(int((known.pairs[ids[:-1], ids[1:]] == 0).sum()), len(ids) - 1)


def unknown_words(ids: Ids, known: Known, tokenizer: Tokenizer) -> Counted:
    """Words that the training text never has; the first and the last may be cut, and are left out."""
    words = words_of(tokenizer.decode(ids))[1:-1]
    return Counted(sum(word not in known.words for word in words), len(words))


def copied_ngrams(ids: Ids, known: Known, tokenizer: Tokenizer) -> Counted:
    """8-grams that the training text has too."""
    ngrams = ngrams_of(ids, _COPIED)
    return Counted(sum(ngram in known.ngrams for ngram in ngrams), len(ngrams))


MEASURES: dict[str, tuple[str, Callable[[Ids, Known, Tokenizer], Counted]]] = {
    "repeated_4grams": ("4-grams repeated\nin their stream", repeated_ngrams),
    "longest_loop": ("tokens of the\nlongest loop", looped_tokens),
    "unseen_pairs": ("pairs not in the\ntraining text", unseen_pairs),
    "unknown_words": ("words not in the\ntraining text", unknown_words),
    "copied_8grams": ("8-grams copied from\nthe training text", copied_ngrams),
}


def share_of(counted: Sequence[Counted]) -> dict[str, float]:
    """Failed places of all streams over all places, and the standard error of that ratio; NaN without places.

    Cochran (1977), "Sampling Techniques", section 6.4: the streams are the sample.
    """
    failed, total = np.array(counted, np.float64).T
    if not total.sum():
        return {"share": float("nan"), "standard_error": float("nan")}
    share, num_streams = failed.sum() / total.sum(), len(counted)
    squares = ((failed - share * total) ** 2).sum() * num_streams / (num_streams - 1)
    return {"share": float(share), "standard_error": float(np.sqrt(squares) / total.sum())}


def describe(
    title: str, temperature: float | None, streams: Ids, known: Known, tokenizer: Tokenizer
) -> dict[str, Any]:
    """A row: each share of what the streams [B, P + T] have after their prompts; and the first of them."""
    written = streams[:, _PROMPT_TOKENS:]
    return {
        "model": title,
        "temperature": temperature,
        **{
            name: share_of([count(ids, known, tokenizer) for ids in written])
            for name, (_, count) in MEASURES.items()
        },
        "begins": tokenizer.decode(streams[0, : _PROMPT_TOKENS + _EXCERPT_TOKENS]),
        "first_stream": tokenizer.decode(streams[0]),
    }


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of `table.txt`: the shares in percent, and how each model's first stream begins."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("% (standard error)\n", no_wrap=True)
    for column in ("temperature\n", *(title for title, _ in MEASURES.values())):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        temperature = "" if row["temperature"] is None else f"{row['temperature']:g}"
        table.add_row(row["model"], temperature, *(_shown(row[name]) for name in MEASURES))
    excerpts = (
        f"--- {row['model']}"
        + ("" if row["temperature"] is None else f", temperature {row['temperature']:g}")
        + f"\n{row['begins']}\n"
        for row in rows
    )
    return as_text(table) + "\n" + "\n".join(excerpts)


def _shown(figure: Mapping[str, float]) -> str:
    if np.isnan(figure["share"]):
        return "-"
    return f"{100 * figure['share']:.1f} ({100 * figure['stderr_console']:.1f})"


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A panel for each share, by temperature: a line for each model, a dashed one for real text."""
    figure = new_figure(13, 7.5)
    *panels, corner = figure.subplots(2, 3).flat
    real, written = rows[0], rows[1:]
    titles = list(dict.fromkeys(row["model"] for row in written))
    for axes, (name, (label, _)) in zip(panels, MEASURES.items(), strict=True):
        axes.axhline(100 * real[name]["share"], color="black", linestyle="--", label=_REAL)
        for title, color, marker in zip(titles, COLORS, "osD^vXP", strict=False):
            own = [row for row in written if row["model"] == title]
            temperatures = [row["temperature"] for row in own]
            shares = [100 * row[name]["share"] for row in own]
            errors = [100 * row[name]["standard_error"] for row in own]
            axes.errorbar(temperatures, shares, errors, color=color, marker=marker, markersize=5, label=title)
        axes.set(xlabel="temperature (0: always the likeliest token)", ylabel="%", title=label.replace("\n", " "))
        if name == "longest_loop":  # of one token that comes twice, and of the whole stream
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
    corner.axis("off")
    corner.legend(*panels[0].get_legend_handles_labels(), loc="center")
    return figure


if __name__ == "__main__":
    options = tyro.cli(FailureConfig, prog="failure_modes")
    enable_compilation_cache()
    sys.exit(run_command(lambda: run_failure_modes(options, stdout_console())))
