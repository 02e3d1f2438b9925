"""Tables, plots and the HTML page show every figure, and are safe for any text."""

import io
import json
import math
import re
from html import unescape

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from jaxlm.runs.metrics_log import append_metrics
from jaxlm.runs.report.curves import scale_curves
from jaxlm.runs.report.page import render_page
from jaxlm.runs.report.plots import plot_counts, plot_curves
from jaxlm.runs.report.sweep_plot import plot_sweep
from jaxlm.runs.report.tables import format_samples, results_table, runs_table, show_whitespace

FIGURES = {"nats_per_token": 4.6666, "perplexity": 106.34, "bits_per_byte": 2.164}
FIGURES |= {"compile_seconds": 2.1, "train_seconds": 8.2}
ROW = {"name": "mlp", "title": "MLP", "context_length": 3, "size": 403_520, "size_unit": "parameters", **FIGURES}
RESULTS = {
    "seed": 0,
    "recipe": "momentum",
    "corpus": {"name": "mine", "source": "mine.txt", "license": "unknown", "sha256": "0f" * 32},
    "tokenizer": {"name": "bpe", "vocab_size": 4096},
    "tokens": {"train": 309_682, "validation": 34_410},
    "models": [ROW, ROW | {"name": "counts_bigram_best_k", "size_unit": "counts", "smoothing": 0.0126}],
    "prompt": "To be",
    "samples": {"MLP": "To be<script>alert(1)</script> & or"},
    "versions": {"jax": "0"},
    "platform": "somewhere",
    "device": {"platform": "cpu", "kind": "cpu"},
}
RUN = {"run": "runs/a", "state": "done", "model": "mlp", "steps": 6000, **FIGURES}
PNG = b"\x89PNG\r\n\x1a\n"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """`plot_curves` and `plot_counts`, which return the figure that they saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kw: figures.append(figure) or save(figure, *args, **kw)
    )

    def call(plot, *arguments, **options):
        plot(tmp_path / "plot.png", *arguments, **options)
        assert (tmp_path / "plot.png").read_bytes().startswith(PNG)
        return figures.pop()

    return call


def falling(start):
    values = [(step, math.log(start) - step, start / (step + 1)) for step in range(4)]
    return [dict(zip(("step", "train_loss", "val_perplexity"), each, strict=True)) for each in values]


def looks_of(axes):
    return [(line.get_color(), line.get_linestyle()) for line in axes.lines]


def labels_of(owner):
    return [text.get_text() for text in owner.texts]


def printed(table, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(table)
    return re.sub("\x1b\\[[0-9;]*m", "", console.file.getvalue())  # without the styles of the table itself


def parse_page(html):
    """Return the tags, the values of some attributes by name, and the text of a page."""
    values = {name: re.findall(f'{name}="([^"]*)"', html) for name in ("src", "href", "style")}
    return re.findall(r"<(\w+)", html), values, unescape(re.sub("<[^>]*>", "", html))


def test_results_table_fits_80_columns():
    row = printed(results_table([ROW | {"perplexity": 5e217, "title": "[red]MLP[/red]\x1b"}])).splitlines()[-1]
    assert row.split() == [r"[red]MLP[/red]\x1b", "3", "403,520", "4.6666", "5e+217", "2.164", "2.1", "8.2"]


def test_results_table_shows_infinite_figures():
    row = ROW | {"nats_per_token": None, "perplexity": math.inf, "bits_per_byte": None}
    row |= dict.fromkeys(("compile_seconds", "train_seconds"))
    assert printed(results_table([row])).splitlines()[-1].split()[3:] == ["inf", "inf", "inf", "-", "-"]


def test_results_table_shows_the_interval_of_several_seeds():
    seeds = {"nats_per_token": 4.5, "perplexity": 90.0, "bits_per_byte": 2.0, "interval_half_width": 0.47}
    *_, first, second = printed(results_table([ROW | {"seeds": seeds}])).splitlines()
    assert first.split() == ["90.00"]
    assert second.split()[3:] == ["4.5000", "±", "0.47", "2.000", "2.1", "8.2"]
    assert "± inf" in printed(results_table([ROW | {"seeds": seeds | {"interval_half_width": None}}]))


def test_runs_table_keeps_order_and_shows_dashes():
    rows = [RUN | {"run": "runs/b"}, RUN, dict.fromkeys(RUN), RUN | {"perplexity": None, "train_seconds": None}]
    lines = [line.split() for line in printed(runs_table(rows)).splitlines()[-4:]]
    assert lines[0] == ["runs/b", "done", "mlp", "6,000", "4.6666", "106.34", "2.164", "8.2"]
    assert lines[1][0] == "runs/a"
    assert lines[2] == ["-"] * 8
    assert lines[3][4:] == ["4.6666", "inf", "2.164", "-"]  # JSON stores an infinite perplexity as null


def test_runs_table_wraps_and_escapes_long_names():
    name = "[red]x[/red]:smile:\x1b[2J\n\r\u202e\udcff[/]" + "".join(f"{number:03}-" for number in range(40))
    wide = {"run": name, "state": "interrupted", "model": "neural bigram", "steps": 1_000_000}
    lines = printed(runs_table([RUN | wide | {"train_seconds": 123_456.7}])).splitlines()
    assert max(map(len, lines)) <= 80
    shown = "".join(line.split()[0] for line in lines[3:])
    assert shown.startswith(r"[red]x[/red]:smile:\x1b[2J\n\r\u202e\udcff[/]000-001-")
    assert shown.endswith("-039-")
    assert " ".join(lines[-1].split()[1:]) == "interrupted neural bigram 1,000,000 4.6666 106.34 2.164 123,456.7"


def test_texts_of_samples_and_tokens():
    assert format_samples({"a": "x", "b": "y"}) == "--- a ---\nx\n\n--- b ---\ny\n"
    assert show_whitespace(" a\tb\n\x00") == "␣a⇥b⏎\\x00"


def test_plot_curves_draws_curves_and_floors(draw):
    curves = {"neural bigram": falling(4096), "MLP": falling(4096)}
    figure = draw(plot_curves, curves, {"add 1": 462.0, "best k": 181.0, "infinite": None}, 4096)
    loss_axes, perplexity_axes = figure.axes
    networks = [(COLORS[0], "-"), (COLORS[1], "-")]
    assert looks_of(loss_axes) == networks
    floors = [(COLORS[-1], ":"), (COLORS[2], "--"), (COLORS[2], "-."), (COLORS[2], "-")]
    assert looks_of(perplexity_axes) == networks + floors
    assert [line.get_ydata()[0] for line in perplexity_axes.lines[2:]] == [4096, 462, 181, math.inf]
    assert list(loss_axes.lines[0].get_ydata()) == [line["train_loss"] for line in curves["MLP"]]
    assert list(perplexity_axes.lines[1].get_ydata()) == [line["val_perplexity"] for line in curves["MLP"]]
    assert perplexity_axes.get_yscale() == "log"
    [legend] = figure.legends
    assert labels_of(legend) == [*curves, "uniform: 4,096", "add 1: 462.0", "best k: 181.0", "infinite: inf"]


@pytest.mark.slow
def test_plot_curves_distinguishes_many_runs(draw):
    curves = {f"runs/{number}": falling(60) for number in range(23)}
    figure = draw(plot_curves, curves, {f"counts-{number}": 9.0 for number in range(15)}, 65)
    loss_axes, perplexity_axes = figure.axes
    looks = looks_of(loss_axes)
    assert len(set(looks)) == 23
    assert looks_of(perplexity_axes)[:23] == looks
    assert len(set(looks_of(perplexity_axes)[24:])) == 15
    [legend] = figure.legends  # one for both axes, below them
    assert len(labels_of(legend)) == 23 + 1 + 15
    assert legend.get_window_extent().ymin >= 0
    assert legend.get_window_extent().ymax < min(axes.get_window_extent().ymin for axes in figure.axes)
    assert min(axes.get_window_extent().height for axes in figure.axes) > 400


def test_plot_curves_keeps_any_label_on_the_picture(draw):
    labels = {"_a\n\x07$": r"_a\n\x07$", r"$\frac$": r"$\frac$", "": "", "/very/long" * 30: "/very/long" * 30}
    figure = draw(plot_curves, {label: falling(8) for label in labels}, {}, None)
    [legend] = figure.legends
    assert [label.replace("\n", "") for label in labels_of(legend)] == list(labels.values())
    extent = legend.get_window_extent()
    assert 0 <= extent.xmin < extent.xmax <= figure.bbox.xmax


def test_plot_curves_skips_missing_and_infinite_values(draw):
    lines = falling(8)
    lines[1] = {"step": 1, "train_loss": 1.5}
    lines[2] = {"step": 2, "train_loss": None, "val_perplexity": 1e308}
    bare = [{"step": 7, "train_loss": 2.0, "val_perplexity": None}]
    figure = draw(plot_curves, {"bare": bare, "a": lines}, {"b": 1e308, "c": 1e40}, None)
    loss_axes, perplexity_axes = figure.axes
    assert list(loss_axes.lines[1].get_xdata()) == [0, 1, 3]
    assert list(perplexity_axes.lines[0].get_xdata()) == [0, 3]
    assert looks_of(perplexity_axes)[0] == looks_of(loss_axes)[1]  # a run without validation keeps its color
    assert loss_axes.lines[0].get_marker() == "."  # a single point is visible
    assert labels_of(figure.legends[0]) == ["bare", "a", "b: inf", "c: 1e+40"]


def test_plot_curves_without_data_says_so(draw):
    for axes in draw(plot_curves, {"a": [{"step": 0, "train_loss": None}]}, {"b": None}, None).axes:
        assert labels_of(axes) == ["no data"]
        assert not axes.axison


def test_plot_sweep_names_the_best_and_pools_seeds(draw):
    curves = {f"lr={number}": [falling(8 + number), falling(12 + number)] for number in range(50)}
    curves["lr=50"] = [[{"step": 0, "val_perplexity": None}]]
    (axes,) = draw(plot_sweep, curves).axes
    best = axes.lines[-1]
    assert (best.get_label(), best.get_color()) == ("1. lr=0", COLORS[0])
    assert best.get_ydata() == pytest.approx([10 / (step + 1) for step in range(4)])
    band = axes.collections[-1].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (2, 12)
    assert labels_of(axes.get_legend()) == [f"{number + 1}. lr={number}" for number in range(6)]
    assert axes.get_legend().get_title().get_text() == "best settings; 45 others in gray"


def test_plot_sweep_without_curves_says_so(draw):
    (axes,) = draw(plot_sweep, {"smoothing=1": [[]], "smoothing=2": []}).axes
    assert [text.get_text() for text in axes.texts] == ["no data"]


def test_plot_counts_shows_the_most_frequent_tokens(draw):
    draw(plot_counts, np.zeros((2, 2), np.int32), [r"$\frac$", "\N{OGHAM LETTER BEITH}"])
    axes = draw(plot_counts, np.array([[0, 1, 0], [2000, 3, 4], [0, 9, 0]]), ["a", " b", "\n"], num_tokens=2).axes[
        0
    ]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["␣b", "⏎"]
    numbers = [(text.get_position(), text.get_text()) for text in axes.texts]
    assert numbers == [((0, 0), "3"), ((1, 0), "4"), ((0, 1), "9")]


def test_scale_curves_fits_the_panels_and_skips_what_cannot_be_drawn():
    values = [(0, 4.0, 100.0), (5, None, 10.0), (10, 2.0, 1.0), (15, math.nan, 0.0)]
    names = "step", "train_loss", "val_perplexity"
    loss, perplexity = scale_curves([dict(zip(names, each, strict=True)) for each in values])
    assert loss["points"] == [(50, 50, "step 0: 4"), (450, 190, "step 10: 2")]
    assert [point[:2] for point in perplexity["points"]] == [(50, 50), (250, 120), (450, 190)]  # on a log scale
    assert perplexity["ticks"] == [(190, "1.00"), (50, "100.00")]
    assert [panel["points"] for panel in scale_curves([{"step": 0, "train_loss": None}])] == [[], []]


def test_render_page_draws_the_log(run):
    (run / "curves.png").unlink()
    assert "<polyline" not in render_page(run, RESULTS, title="")
    append_metrics(run / "metrics.jsonl", {"model": "mlp", "step": 0, "train_loss": 2.0, "val_perplexity": 9.5})
    page = render_page(run, RESULTS, title="")
    assert page.count("<polyline") == 2
    assert "step 0: 9.5" in page


@pytest.fixture
def run(tmp_path):
    for name in ("curves.png", "counts.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "config.json").write_text(json.dumps({"seed": 0}))
    return tmp_path


def test_render_page_is_complete_and_self_contained(run):
    tags, values, page_text = parse_page(render_page(run, RESULTS, title="The ladder: 2 models"))
    assert all(source.startswith("data:image/png;base64,") for source in values["src"])
    assert (len(values["src"]), values["href"], "link" in tags) == (2, [], False)
    shown = [
        "The ladder: 2 models",
        "Recipe: momentum. Seed: 0",
        "403,520 parameters",
        "4.6666",
        "106.34",
        "2.164",
    ]
    for text in (*shown, "k = 0.0126", "309,682", "0f" * 32, '"seed": 0', "Training curves", "Pair counts"):
        assert text in page_text


def test_render_page_escapes_every_text(run):
    evil = "<img src=x>"
    results = json.loads(json.dumps(RESULTS).replace("mine", evil).replace("MLP", evil).replace("momentum", evil))
    (run / "config.json").write_text(json.dumps({"text": evil}))
    results["corpus"]["source"] = f"caf\udce9 {evil}"  # a path that cannot be decoded
    tags, _, page_text = parse_page(render_page(run, results, title=evil))
    assert (tags.count("img"), "script" in tags) == (2, False)  # the two plots
    assert page_text.count(evil) == 8
    assert r"caf\udce9 <img" in page_text


def test_render_page_omits_what_is_missing(tmp_path):
    results = {name: value for name, value in RESULTS.items() if name != "recipe"}
    page = render_page(tmp_path, results | {"models": [ROW], "samples": {}}, title="MLP on mine")
    tags, _, page_text = parse_page(page)
    assert "img" not in tags
    assert not re.search("Recipe|Options|Samples|Training curves|Pair counts", page_text)


@pytest.mark.parametrize(
    ("nats", "widths"),
    [([4.0, 2.0, None], [100, 50, 100]), ([math.inf, 4.0, 1.0], [100, 100, 25]), ([None], [100]), ([0.0], [0])],
)
def test_render_page_scales_bars_to_the_worst_model(run, nats, widths):
    html = render_page(run, RESULTS | {"models": [ROW | {"nats_per_token": each} for each in nats]}, title="")
    assert parse_page(html)[1]["style"] == [f"width: {width:.1f}%" for width in widths]
    assert html.count("<td>inf</td>") == sum(each in (None, math.inf) for each in nats)
