"""A run as a person sees it: its table, its pictures, and one page with all of it."""

import base64
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from rich import box
from rich.table import Table

from jaxlm.files import write_atomically

# Blue, orange, green, purple, grey: told apart by readers who see colours differently (Okabe & Ito 2008).
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f")


def results_table(models: Sequence[Mapping[str, Any]]) -> Table:
    """The models of `results.json` as a table, one a row, that fits a terminal of 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("model", no_wrap=True, vertical="bottom")
    for column in (
        "context",
        "parameters\nor counts",
        "nats/\ntoken",
        "perplexity",
        "bits/\nbyte",
        "compile\n(s)",
        "train\n(s)",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for row in models:
        table.add_row(
            row["title"],
            str(row["context_length"]),
            f"{row['size']:,}",
            f"{row['nats_per_token']:.4f}",
            f"{row['perplexity']:,.2f}",
            f"{row['bits_per_byte']:.3f}",
            f"{row['compile_seconds']:.1f}",
            f"{row['train_seconds']:.1f}",
        )
    return table


def samples_text(samples: Mapping[str, str]) -> str:
    """Each model's sample under its title: the text of `samples.txt`."""
    return "\n".join(f"--- {title} ---\n{text}\n" for title, text in samples.items())


def plot_curves(
    path: Path,
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    floors: Mapping[str, float],
    vocab_size: int,
) -> None:
    """Draws each model's training loss and validation perplexity by step.

    Args:
        curves: a model's title -> its lines of `metrics.jsonl`.
        floors: the title of a model that is not trained by steps -> its perplexity, drawn as a line.
        vocab_size: the perplexity of a uniform guess, drawn as a line.
    """
    figure = _figure(width=11, height=4.6)
    loss_axes, perplexity_axes = figure.subplots(1, 2)
    for (title, lines), color in zip(curves.items(), _COLORS, strict=False):
        steps = [line["step"] for line in lines]
        loss_axes.plot(steps, [line["train_loss"] for line in lines], color=color, label=title, linewidth=1.4)
        perplexities = [line["val_perplexity"] for line in lines]
        perplexity_axes.plot(steps, perplexities, color=color, label=title, marker=".", linewidth=1.6)
    perplexity_axes.axhline(vocab_size, color=_COLORS[-1], linestyle=":", label=f"uniform: {vocab_size:,}")
    for (title, floor), style in zip(floors.items(), ("--", "-.", "-"), strict=False):
        perplexity_axes.axhline(floor, color=_COLORS[2], linestyle=style, label=f"{title}: {floor:.1f}")
    perplexity_axes.set_yscale("log")
    perplexity_axes.yaxis.set_major_formatter("{x:,.0f}")
    perplexity_axes.yaxis.set_minor_formatter("{x:,.0f}")
    perplexity_axes.tick_params(which="minor", labelsize=7)
    perplexity_axes.set(title="validation perplexity (logarithmic)", xlabel="step")
    loss_axes.set(title="training loss (one minibatch)", xlabel="step", ylabel="nats per token")
    for axes in (loss_axes, perplexity_axes):
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9, loc="upper right", bbox_to_anchor=(1, 0.95))
    _save(figure, path)


def plot_counts(path: Path, table: np.ndarray[Any, Any], tokens: Sequence[str], *, num_tokens: int = 24) -> None:
    """Draws the pair counts among the most frequent tokens: row = token, column = the token after it.

    Args:
        table: int [V, V].
        tokens: the V tokens as text.
    """
    from matplotlib.colors import LogNorm

    totals = table.sum(axis=1, dtype=np.int64)
    frequent = np.argsort(-totals, kind="stable")[: min(num_tokens, len(table))]
    counts = table[np.ix_(frequent, frequent)]
    figure = _figure(width=10, height=9)
    axes = figure.subplots()
    shown = np.ma.masked_equal(counts, 0)
    image = axes.imshow(shown, norm=LogNorm(vmin=1, vmax=max(int(counts.max()), 2)), cmap="viridis")
    labels = [visible(tokens[token]) for token in frequent]
    axes.set_xticks(range(len(labels)), labels, rotation=90, family="monospace")
    axes.set_yticks(range(len(labels)), labels, family="monospace")
    axes.set(title="how often the column's token follows the row's", xlabel="next token", ylabel="token")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "black" if count > counts.max() ** 0.6 else "white"
            axes.text(column, row, _short(int(count)), ha="center", va="center", fontsize=6, color=color)
    figure.colorbar(image, ax=axes, shrink=0.8, label="pairs counted")
    _save(figure, path)


def render_page(run: Path, results: Mapping[str, Any]) -> str:
    """One self-contained HTML page: the table and samples of `results`, the pictures and settings in `run`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxlm", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.jinja").render(
        run=run.name,
        results=results,
        config=json.loads((run / "config.json").read_text("utf-8")),
        pictures={name: _data_uri(run / f"{name}.png") for name in ("curves", "counts")},
        worst_nats=max(row["nats_per_token"] for row in results["models"]),
    )


def visible(token: str) -> str:
    """A token as a label: white space shown, never empty.

    >>> visible(" the\\n")
    '␣the⏎'
    """
    shown = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in shown)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def _save(figure: Any, path: Path) -> None:
    with warnings.catch_warnings():
        # A token in a script that the font lacks is drawn as a box; that is no news to the user.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())


def _short(count: int) -> str:
    return f"{count / 1000:.1f}k" if count >= 1000 else str(count)


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
