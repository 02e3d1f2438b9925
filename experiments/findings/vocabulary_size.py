"""What does the tokenizer do to the figures? Perplexities that do not compare, and bits per byte that do.

    python -m experiments.findings.vocabulary_size           # about 3 min on 2 CPU cores
    python -m experiments.findings.vocabulary_size --quick   # two tokenizers, few steps: 24 seconds of CPU time

Characters, bytes, and byte-pair encodings of 256 to 8192 tokens, of one text that is cut before it is encoded: its
last tenth, from the start of a line, validates, so that all are judged on the same bytes. The first of its tokens
are predicted too, after the last of the training text. BPE is learnt from the training text; characters are those
of the whole text. For each tokenizer: the uniform model; the counts bigram, its k chosen on the last tenth of the
training text; modified Kneser-Ney, its order raised from 2 to 6 for as long as that tenth gets likelier; and the
MLP of the ladder (N = 3, D = 32, H = 64) by the ladder's momentum recipe, made for 4096 tokens, in 3000 steps.
Three tokens of a larger vocabulary are more bytes of context: that is part of what a tokenizer gives a model.

Expected on tiny Shakespeare, seed 0, as perplexity and bits per byte of bigram, Kneser-Ney, MLP: characters 11.97,
4.58, 7.35 and 3.581, 2.197, 2.878; 4096 tokens 162.46, 93.72, 133.29 and 2.530, 2.256, 2.431; 8192 tokens 299.81,
153.68, 179.86 and 2.582, 2.280, 2.351. Kneser-Ney is best at 512 tokens (2.179). Bytes and BPE of 256 are the same
tokens in another order: the counts agree, and what differs between the MLPs (2.863 and 2.870) is chance.

The MLPs are compared after equal steps, not at their best. (What follows on other seeds, rates and steps was
measured apart, by this file with these numbers changed.) From 2048 to 4096 tokens they gain nothing (2.421, then
2.431), at 8192 they do. That is not chance (seed 1: 2.423, 2.437, 2.352), nor the learning rate (at 4096 tokens
0.25 and 1.0 are worse on the last tenth of the training text: 146.80 and 133.46, to 129.28 with 0.5). It is short
training at least in part: with 6000 steps 4096 tokens come to 106.66 and 2.321, and the perplexity of their own
training text from about 94 to 68.7. Why 8192 tokens make more of 3000 steps is open. BPE also suits the text it
was learnt from: of 4096 tokens, one is 3.26 bytes of that and 2.90 of validation; of 512 tokens, 1.94 and 1.88.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
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
from experiments.ladder.ladder import RECIPES, baselines, counts_bigrams
from experiments.shared.benchmark import as_text
from experiments.shared.experiment import COLORS, Findings, Output, OutputOptions, new_figure, run_experiment
from jaxlm.text.dataset import Dataset
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.compilation_cache import enable_compilation_cache
from jaxlm.utils.terminal import print_plain, run_command, stdout_console

_CONTEXT_LENGTH, _EMBEDDING_DIM, _HIDDEN_DIM = 3, 32, 64
_LEAST_LINES = 20

Ids = np.ndarray[Any, Any]


@dataclass(frozen=True)
class VocabularyConfig:
    """Compares tokenizers on one text: what they do to perplexity, and to bits per byte."""

    corpus: str = "tinyshakespeare"
    """A named corpus: tinyshakespeare, or shakespeare (all the plays)."""
    text: Path | None = None
    """A UTF-8 text file of your own, instead of a named corpus."""
    seed: int = 0
    """Every random choice of the MLPs follows from it: 0 to 2**32 - 1."""
    output: OutputOptions = field(default_factory=Output)
    quick: bool = False
    """Two tokenizers, orders up to 3, 100 steps: every artefact, sooner."""


class Plan(NamedTuple):
    """Which sizes of BPE there are, the highest order of the n-grams, and how long the MLP is trained."""

    bpe_sizes: tuple[int, ...]
    max_order: int
    num_steps: int
    with_bytes: bool = True


class Fitted(NamedTuple):
    """A model with its variables, and what was chosen for it."""

    model: jaxlm.LanguageModel
    variables: Any
    chosen: Mapping[str, float]


def run_vocabulary(config: VocabularyConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie in 0..{2**32 - 1}, got {config.seed}")
    corpus = jaxlm.load_corpus(config.corpus) if config.text is None else jaxlm.read_text(config.text)
    if (num_lines := corpus.text.count("\n")) < _LEAST_LINES:
        raise ValueError(
            f"{corpus.source} has {num_lines} line ends; the experiment needs {_LEAST_LINES}: use a longer text"
        )
    plan = Plan((256, 512, 1024, 2048, 4096, 8192), max_order=6, num_steps=RECIPES["momentum"].num_steps // 2)
    if config.quick:
        plan = Plan((512,), max_order=3, num_steps=100, with_bytes=False)
    return run_experiment("vocabulary", config, console, partial(find, config.seed, plan, corpus, console))


def find(seed: int, plan: Plan, corpus: jaxlm.Corpus, console: Console) -> Findings:
    """Every model with every tokenizer, judged on the same bytes."""
    train_text, val_text = split_at_line(corpus.text)
    num_bytes = len(val_text.encode())
    rows = []
    for name, tokenizer in tokenizers(plan, corpus.text, train_text):
        data = Dataset(corpus, tokenizer, tokenizer.encode(train_text), tokenizer.encode(val_text))
        models = {}
        for title, fitted in fit_all(data, plan, jax.random.key(seed)):
            nats, perplexity, num_tokens = score(fitted.model, fitted.variables, data.train_ids, data.val_ids)
            models[title] = {
                **fitted.chosen,
                "nats_per_token": nats,
                "perplexity": perplexity,
                "bits_per_byte": jaxlm.bits_per_byte(nats, num_bytes / num_tokens),
            }
        rows.append(
            {
                "tokenizer": name,
                "vocab_size": tokenizer.vocab_size,
                "train_tokens": len(data.train_ids),
                "val_tokens": len(data.val_ids),
                "val_bytes_per_token": num_bytes / len(data.val_ids),
                "models": models,
            }
        )
        print_plain(
            console,
            f"{name}: " + ", ".join(f"{title} {each['bits_per_byte']:.3f}" for title, each in models.items()),
        )
    results = {"train_bytes": len(train_text.encode()), "val_bytes": num_bytes, "rows": rows}
    return Findings(results, table_text(rows), draw(rows))


def split_at_line(text: str) -> tuple[str, str]:
    """The text before and from the start of the line that nine tenths of its characters reach into."""
    cut = text.rfind("\n", 0, len(text) * 9 // 10) + 1
    return text[:cut], text[cut:]


def tokenizers(plan: Plan, text: str, train_text: str) -> Iterator[tuple[str, Tokenizer]]:
    """The tokenizers by name, the smallest vocabulary first."""
    yield "char", jaxlm.CharTokenizer.train(text)
    if plan.with_bytes:
        yield "byte", jaxlm.ByteTokenizer()
    for size in plan.bpe_sizes:
        yield f"bpe {size}", jaxlm.BPETokenizer.train(train_text, size)


def fit_all(data: Dataset, plan: Plan, key: jax.Array) -> Iterator[tuple[str, Fitted]]:
    """The models by title, fitted to the training ids; what is chosen, is chosen on the last tenth of those."""
    vocab_size = data.tokenizer.vocab_size
    uniform, _ = baselines(data)
    yield "uniform", Fitted(uniform.model, uniform.variables, {})
    _, bigram = counts_bigrams(data)
    assert isinstance(bigram.model, jaxlm.CountsBigramLM)
    yield "counts bigram, best k", Fitted(bigram.model, bigram.variables, {"smoothing": bigram.model.smoothing})
    order = best_order(vocab_size, data.train_ids, plan.max_order)
    ngram = jaxlm.CountsNgramLM(vocab_size, order - 1)
    fitted = ngram.fit(jaxlm.init(ngram, key), data.train_ids)
    yield "modified Kneser-Ney", Fitted(ngram, fitted, {"order": order})
    recipe = RECIPES["momentum"]
    mlp = jaxlm.MLPLanguageModel(vocab_size, _CONTEXT_LENGTH, _EMBEDDING_DIM, _HIDDEN_DIM)
    trained, _ = jaxlm.train_lm(
        mlp,
        data.train_ids,
        key=key,
        batch_size=recipe.batch_size,
        num_steps=plan.num_steps,
        optimizer=recipe.optimizer(recipe.mlp_lr, plan.num_steps),
        log_every=plan.num_steps,
    )
    yield "MLP", Fitted(mlp, trained, {"context_length": _CONTEXT_LENGTH})


def best_order(vocab_size: int, train_ids: Ids, max_order: int) -> int:
    """The order of modified Kneser-Ney, from 2 on, after which the last tenth of `train_ids` gets no likelier."""
    fitted_ids, held_out_ids = jaxlm.split_ids(train_ids)
    least = np.inf
    for order in range(2, max_order + 1):
        model = jaxlm.CountsNgramLM(vocab_size, order - 1)
        variables = model.fit(jaxlm.init(model, jax.random.key(0)), fitted_ids)
        nats = score(model, variables, fitted_ids, held_out_ids).nats_per_token
        if nats >= least:
            return order - 1
        least = nats
    return max_order


def score(model: jaxlm.LanguageModel, variables: Any, before: Ids, ids: Ids) -> jaxlm.Evaluation:
    """How well every token of `ids` [T] is predicted, once each, the first after the last of `before` [T']."""
    return jaxlm.evaluate(model, variables, np.concatenate([before[len(before) - model.context_length :], ids]))


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of `table.txt`: a row for each tokenizer, perplexity and bits per byte of each model."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("tokenizer\n", no_wrap=True)
    for column in ("V\n", "tokens to\nvalidate", "bytes\na token", "best\nk", "best\norder"):
        table.add_column(column, justify="right", no_wrap=True)
    for unit in ("perpl.", "bits/B"):
        for title in ("uniform", "bigram", "KN", "MLP"):
            table.add_column(f"{unit}\n{title}", justify="right", no_wrap=True)
    for row in rows:
        models = row["models"]
        table.add_row(
            row["tokenizer"],
            f"{row['vocab_size']:,}",
            f"{row['val_tokens']:,}",
            f"{row['val_bytes_per_token']:.3f}",
            f"{models['counts bigram, best k']['smoothing']:.3g}",
            str(models["modified Kneser-Ney"]["order"]),
            *(f"{each['perplexity']:.2f}" for each in models.values()),
            *(f"{each['bits_per_byte']:.3f}" for each in models.values()),
        )
    return as_text(table)


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """By the size of the vocabulary, a line for each model: left its perplexity, right its bits per byte."""
    figure = new_figure(11, 4.8)
    left, right = figure.subplots(1, 2)
    sizes = [row["vocab_size"] for row in rows]
    for title, color, marker in zip(rows[0]["models"], (COLORS[6], *COLORS), "xosD", strict=False):
        for axes, unit in ((left, "perplexity"), (right, "bits_per_byte")):
            figures = [row["models"][title][unit] for row in rows]
            axes.plot(sizes, figures, color=color, marker=marker, label=title)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        ticks = {row["vocab_size"]: f"{row['vocab_size']}\n{row['tokenizer'].split()[0]}" for row in rows}
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set_xlabel("tokens in the vocabulary")
        axes.grid(alpha=0.3)
    left.set_yscale("log")
    left.set(ylabel="validation perplexity, a token", title="Perplexity: of other tokens, not comparable")
    right.set(ylabel="bits per byte", title="Bits per byte: of the same bytes, comparable")
    right.set_ylim(bottom=0)
    left.legend()
    return figure


if __name__ == "__main__":
    options = tyro.cli(VocabularyConfig, prog="vocabulary")
    enable_compilation_cache()
    sys.exit(run_command(lambda: run_vocabulary(options, stdout_console())))
