"""Tables, pictures and page: whole, self-contained, and safe whatever the text holds."""

import io
import json
import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from jaxlm.runs.report.page import render_page
from jaxlm.runs.report.plots import plot_counts, plot_curves
from jaxlm.runs.report.tables import format_samples, results_table, runs_table, show_whitespace

ROW = {
    "name": "mlp",
    "title": "MLP",
    "context_length": 3,
    "size": 403_520,
    "size_unit": "parameters",
    "nats_per_token": 4.6666,
    "perplexity": 106.34,
    "bits_per_byte": 2.164,
    "compile_seconds": 2.1,
    "train_seconds": 8.2,
}
RESULTS = {
    "seed": 0,
    "recipe": "momentum",
    "corpus": {"name": "mine", "source": "mine.txt", "license": "unknown", "sha256": "0f" * 32},
    "tokenizer": {"name": "bpe", "vocab_size": 4096},
    "tokens": {"train": 309_682, "validation": 34_410},
    "models": [
        ROW,
        ROW
        | {
            "name": "counts_bigram_best_k",
            "title": "counts bigram, best k",
            "size_unit": "counts",
            "smoothing": 0.0126,
        },
    ],
    "prompt": "To be",
    "samples": {"MLP": "To be<script>alert(1)</script> & or"},
    "versions": {"jax": "0"},
    "platform": "somewhere",
    "device": {"platform": "cpu", "kind": "cpu"},
}
TITLE = "The ladder: 2 models, one token stream"
FIGURES = ("nats_per_token", "perplexity", "bits_per_byte", "compile_seconds", "train_seconds")
LISTED = {
    "run": "runs/a",
    "state": "finished",
    "model": "mlp",
    "steps": 6000,
    "nats_per_token": 4.6666,
    "perplexity": 106.34,
    "bits_per_byte": 2.164,
    "train_seconds": 8.2,
}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's folder, drawn once; `run` is a copy of it to read and to change."""
    folder = tmp_path_factory.mktemp("report") / "finished"
    folder.mkdir()
    plot_curves(folder / "curves.png", {"MLP": falling(4000)}, {"counts bigram": 462.0}, 4096)
    plot_counts(folder / "counts.png", np.arange(9).reshape(3, 3), ["a", " b", "\n"])
    (folder / "config.json").write_text(json.dumps({"seed": 0}))
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """`plot_curves`, which gives back the figure that it saved."""
    figures = []
    save = Figure.savefig

    def savefig(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)

    def draw_curves(curves, floors, vocab_size):
        plot_curves(tmp_path / "curves.png", curves, floors, vocab_size)
        assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
        return figures.pop()

    return draw_curves


def falling(start):
    return [
        {"step": step, "train_loss": math.log(start) - step, "val_perplexity": start / (step + 1)}
        for step in range(4)
    ]


def looks_of(axes):
    return [(line.get_color(), line.get_linestyle()) for line in axes.lines]


def labels_of(owner):
    return [text.get_text() for text in owner.texts]


def printed(table, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(table)
    return re.sub("\x1b\\[[0-9;]*m", "", console.file.getvalue())  # without the styles of the table itself


class Page(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.sources, self.styles, self.text = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in {"src", "href"}]
        self.styles += [value for name, value in attributes if name == "style"]

    def handle_data(self, data):
        self.text += data


def test_the_table_fits_80_columns_and_shows_every_figure():
    shown = printed(results_table(RESULTS["models"]))
    for figure in ("MLP", "counts bigram, best k", "403,520", "4.6666", "106.34", "2.164", "8.2"):
        assert figure in shown
    assert "…" not in shown


def test_a_figure_that_json_lacks_is_infinite_and_seconds_are_not_taken():
    shown = printed(results_table([ROW | dict.fromkeys(FIGURES)])).splitlines()[-1]
    assert shown.split() == ["MLP", "3", "403,520", "inf", "inf", "inf", "-", "-"]
    shown = printed(results_table([ROW | {"nats_per_token": math.inf, "perplexity": math.inf}]))
    assert shown.splitlines()[-1].split()[3:5] == ["inf", "inf"]


def test_an_enormous_perplexity_takes_no_more_room_than_others():
    shown = printed(results_table([ROW | {"perplexity": 5e217}]))
    assert "5e+217" in shown
    assert "…" not in shown


def test_titles_are_no_markup():
    assert "[red]MLP[/red]\\x1b" in printed(results_table([ROW | {"title": "[red]MLP[/red]\x1b"}]))


def test_runs_are_listed_in_the_order_given():
    rows = [LISTED | {"run": name} for name in ("runs/b", "runs/c", "runs/a")]
    lines = [line.split() for line in printed(runs_table(rows)).splitlines()[-3:]]
    assert [line[0] for line in lines] == ["runs/b", "runs/c", "runs/a"]
    assert lines[0][1:] == ["finished", "mlp", "6,000", "4.6666", "106.34", "2.164", "8.2"]


def test_what_a_run_lacks_is_a_dash():
    assert printed(runs_table([dict.fromkeys(LISTED)])).splitlines()[-1].split() == ["-"] * 8
    unknown = {"bits_per_byte": None, "train_seconds": None}
    assert printed(runs_table([LISTED | unknown])).splitlines()[-1].split()[-2:] == ["-", "-"]
    for infinite in (math.inf, None):  # None as JSON has it, beside nats that are known
        assert printed(runs_table([LISTED | {"perplexity": infinite}])).splitlines()[-1].split()[5] == "inf"


def test_a_list_of_no_runs_is_a_heading():
    assert "perplexity" in printed(runs_table([]))


def test_a_long_name_goes_on_below_and_no_figure_is_cut():
    name = "runs/" + "".join(f"{number:03}-" for number in range(40))
    wide = {"run": name, "state": "interrupted", "model": "neural bigram", "steps": 1_000_000}
    shown = printed(runs_table([LISTED | wide | {"perplexity": 5e217, "train_seconds": 123_456.7}]))
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    body = shown.splitlines()[3:]
    assert "".join(line.split()[0] for line in body) == name
    last = "interrupted neural bigram 1,000,000 4.6666 5e+217 2.164 123,456.7"
    assert body[-1].split()[1:] == last.split()


def test_a_name_cannot_paint_or_steer_the_terminal():
    name = "[red]x[/red]:smile:\x1b[2J\n\r\u202e\udcff[/]"
    shown = printed(runs_table([LISTED | {"run": name}]), width=160)
    assert r"[red]x[/red]:smile:\x1b[2J\x0a\x0d\x202e\xdcff[/]" in shown.splitlines()[-1]
    assert not set("\x1b\r\u202e\udcff") & set(shown)


def test_samples_stand_under_their_titles():
    assert format_samples({"a": "x", "b": "y"}) == "--- a ---\nx\n\n--- b ---\ny\n"


def test_pictures_are_png_files(run):
    for name in ("curves.png", "counts.png"):
        assert (run / name).read_bytes().startswith(PNG)


def test_pictures_take_any_script_and_an_empty_table(tmp_path):
    plot_counts(tmp_path / "counts.png", np.zeros((2, 2), np.int32), ["語", "\N{OGHAM LETTER BEITH}"])
    assert (tmp_path / "counts.png").read_bytes().startswith(PNG)


def test_tokens_and_titles_are_no_mathematics(tmp_path, draw):
    broken = r"$\frac$"
    plot_counts(tmp_path / "counts.png", np.ones((2, 2), np.int32), [broken, "$$"])
    figure = draw({broken: falling(8)}, {r"\$": 4.0}, None)
    assert labels_of(figure.axes[0].get_legend()) == [broken]
    assert labels_of(figure.axes[1].get_legend()) == [broken, r"\$: 4.0"]


def test_a_label_is_shown_whatever_it_begins_with_and_holds(draw):
    loss_axes, perplexity_axes = draw({"_a\n\x07": falling(8), "": falling(9)}, {"_b": 4.0}, 65).axes
    assert labels_of(loss_axes.get_legend()) == [r"_a\x0a\x07", ""]
    assert labels_of(perplexity_axes.get_legend()) == [r"_a\x0a\x07", "", "uniform: 65", "_b: 4.0"]


def test_the_ladder_is_drawn_as_it_was_published(draw):
    curves = {"neural bigram": falling(4096), "MLP": falling(4096)}
    figure = draw(curves, {"add 1": 462.0, "best k": 181.0}, 4096)
    loss_axes, perplexity_axes = figure.axes
    neural = [("#0072b2", "-"), ("#d55e00", "-")]
    assert looks_of(loss_axes) == neural
    assert looks_of(perplexity_axes) == [*neural, ("#7f7f7f", ":"), ("#009e73", "--"), ("#009e73", "-.")]
    assert [line.get_ydata()[0] for line in perplexity_axes.lines[2:]] == [4096, 462, 181]
    assert perplexity_axes.get_yscale() == "log"
    assert labels_of(loss_axes.get_legend()) == list(curves)
    assert not figure.legends


def test_without_a_common_vocabulary_there_is_no_uniform_line(draw):
    _, perplexity_axes = draw({"a": falling(65), "b": falling(4096)}, {}, None).axes
    assert len(perplexity_axes.lines) == 2
    assert labels_of(perplexity_axes.get_legend()) == ["a", "b"]


def test_twenty_runs_look_different_and_their_legend_covers_none(draw):
    curves = {f"runs/tinyshakespeare-{number}": falling(60 + number) for number in range(20)}
    floors = {f"runs/counts-{number}": 9.0 + number for number in range(15)}
    figure = draw(curves, floors, 65)
    loss_axes, perplexity_axes = figure.axes
    looks = looks_of(loss_axes)
    assert len(set(looks)) == 20
    assert looks[:5] == [(color, "-") for color in ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f")]
    assert looks_of(perplexity_axes)[:20] == looks
    assert len(set(looks_of(perplexity_axes)[21:])) == 15
    # A curve has marks, a floor has none.
    assert {line.get_marker() for line in perplexity_axes.lines[:20]} == {"."}
    assert {line.get_marker() for line in perplexity_axes.lines[20:]} == {"None"}
    [legend] = figure.legends
    labels = [*curves, "uniform: 65", *(f"{title}: {floor:.1f}" for title, floor in floors.items())]
    assert labels_of(legend) == labels
    assert legend.get_window_extent().ymax < min(axes.get_window_extent().ymin for axes in figure.axes)
    assert legend.get_window_extent().ymin >= 0
    assert min(axes.get_window_extent().height for axes in figure.axes) > 400


def test_more_curves_than_looks_are_all_drawn(draw):
    loss_axes, _ = draw({str(number): falling(60) for number in range(23)}, {}, None).axes
    assert len(loss_axes.lines) == 23


def test_a_long_label_stays_on_the_picture(draw):
    figure = draw({"/very/long" * 30: falling(8)}, {}, None)
    [legend] = figure.legends
    assert labels_of(legend)[0].replace("\n", "") == "/very/long" * 30
    extent = legend.get_window_extent()
    assert 0 <= extent.xmin < extent.xmax <= figure.bbox.xmax


@pytest.mark.parametrize("missing", [{"val_perplexity": None}, {"val_perplexity": math.inf}, {}])
def test_a_step_that_was_not_measured_is_left_out_of_that_curve_alone(draw, missing):
    lines = falling(8)
    lines[1] = {"step": 1, "train_loss": 1.5} | missing
    lines[2] = {"step": 2, "train_loss": None, "val_perplexity": 3.0}
    loss_axes, perplexity_axes = draw({"a": lines}, {}, None).axes
    assert list(loss_axes.lines[0].get_xdata()) == [0, 1, 3]
    assert list(perplexity_axes.lines[0].get_xdata()) == [0, 2, 3]
    assert loss_axes.lines[0].get_ydata()[1] == 1.5


def test_a_run_without_validation_keeps_its_look_and_the_next_run_its_own(draw):
    bare = [{"step": line["step"], "train_loss": line["train_loss"]} for line in falling(8)]
    loss_axes, perplexity_axes = draw({"bare": bare, "other": falling(8)}, {}, None).axes
    assert looks_of(perplexity_axes) == looks_of(loss_axes)[1:]
    assert labels_of(perplexity_axes.get_legend()) == ["other"]


def test_a_single_step_can_be_seen(draw):
    figure = draw({"a": falling(8)[:1]}, {}, None)
    assert [axes.lines[0].get_marker() for axes in figure.axes] == [".", "."]


@pytest.mark.parametrize("curves", [{}, {"a": []}, {"a": [{"step": 0, "train_loss": None}]}])
def test_a_picture_of_nothing_says_so(draw, curves):
    for axes in draw(curves, {}, None).axes:
        assert labels_of(axes) == ["nothing to draw"]
        assert not axes.axison


def test_floors_need_no_curves(draw):
    loss_axes, perplexity_axes = draw({}, {"counts": 462.0}, 4096).axes
    assert labels_of(loss_axes) == ["nothing to draw"]
    assert labels_of(perplexity_axes) == []
    assert labels_of(perplexity_axes.get_legend()) == ["uniform: 4,096", "counts: 462.0"]
    assert list(perplexity_axes.get_xticks()) == []  # there are no steps


@pytest.mark.parametrize("floor", [None, math.inf])
def test_an_infinite_floor_is_told_in_the_legend(draw, floor):
    _, perplexity_axes = draw({}, {"counts": floor}, None).axes
    assert labels_of(perplexity_axes.get_legend()) == ["counts: inf"]
    assert labels_of(perplexity_axes) == ["nothing to draw"]
    _, perplexity_axes = draw({"a": falling(65)}, {"counts": floor}, 65).axes
    assert perplexity_axes.get_ylim()[1] < 100


def test_a_run_that_goes_wild_is_drawn_as_far_as_floats_go(draw):
    values = [65.0, 1e200, 1e308, math.inf]
    lines = [{"step": step, "train_loss": 2.0, "val_perplexity": value} for step, value in enumerate(values)]
    _, perplexity_axes = draw({"a": lines}, {"b": 1e308, "c": 1e40}, None).axes
    assert list(perplexity_axes.lines[0].get_xdata()) == [0, 1]
    assert labels_of(perplexity_axes.get_legend()) == ["a", "b: inf", "c: 1e+40"]


def test_close_perplexities_have_ticks_that_differ(draw):
    lines = [{"step": step, "train_loss": 2.0, "val_perplexity": 6.95 + 0.01 * step} for step in range(5)]
    _, axes = draw({"a": lines}, {}, None).axes
    ticks = [text.get_text() for which in ("major", "minor") for text in axes.get_yticklabels(which=which)]
    assert len(ticks) == len(set(ticks)) > 1


def test_the_page_is_self_contained(run):
    page = Page(render_page(run, RESULTS, title=TITLE))
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "link" not in page.tags


def test_the_page_shows_every_figure(run):
    text = Page(render_page(run, RESULTS, title=TITLE)).text
    assert TITLE in text
    for figure in (
        "recipe momentum, seed 0",
        "403,520 parameters",
        "4.6666",
        "106.34",
        "2.164",
        "k = 0.0126",
        "309,682",
        "0f" * 32,
    ):
        assert figure in text


def test_a_sample_cannot_run_code_in_the_page(run):
    page = Page(render_page(run, RESULTS, title=TITLE))
    assert "script" not in page.tags
    assert "<script>alert(1)</script> & or" in page.text


def test_no_text_is_taken_for_html(run):
    evil = "<img src=x>"
    results = json.loads(json.dumps(RESULTS).replace("mine", evil).replace("MLP", evil).replace("momentum", evil))
    (run / "config.json").write_text(json.dumps({"text": evil}))
    page = Page(render_page(run, results, title=evil))
    assert page.tags.count("img") == 2  # the two pictures
    assert page.text.count(evil) == 7


@pytest.mark.parametrize(
    ("name", "heading"), [("curves", "How training went"), ("counts", "What the table of counts holds")]
)
def test_the_section_of_a_missing_picture_vanishes(run, name, heading):
    assert heading in Page(render_page(run, RESULTS, title=TITLE)).text
    (run / f"{name}.png").unlink()
    page = Page(render_page(run, RESULTS, title=TITLE))
    assert heading not in page.text
    assert page.tags.count("img") == 1


def test_a_page_of_one_run_needs_no_recipe_config_picture_or_sample(tmp_path):
    results = {name: value for name, value in RESULTS.items() if name != "recipe"}
    page = Page(render_page(tmp_path, results | {"models": [ROW], "samples": {}}, title="MLP on mine"))
    assert "MLP on mine" in page.text
    assert "4.6666" in page.text
    for word in ("recipe", "Options", "Samples"):
        assert word not in page.text
    assert "img" not in page.tags
    assert page.styles == ["width: 100.0%"]


def test_the_page_shows_the_options_of_the_run(run):
    assert '"seed": 0' in Page(render_page(run, RESULTS, title=TITLE)).text


def test_figures_that_json_lacks_are_shown_in_the_page(run):
    html = render_page(run, RESULTS | {"models": [ROW | dict.fromkeys(FIGURES)]}, title=TITLE)
    assert re.findall("<td>([^<]*)</td>", html)[-5:] == ["inf", "inf", "inf", "-", "-"]


@pytest.mark.parametrize(
    ("nats", "widths"),
    [([4.0, 2.0, None], [100, 50, 100]), ([math.inf, 4.0, 1.0], [100, 100, 25]), ([None], [100]), ([0.0], [0])],
)
def test_bars_are_shares_of_the_worst_and_full_where_that_is_infinite(run, nats, widths):
    results = RESULTS | {"models": [ROW | {"nats_per_token": each} for each in nats]}
    page = Page(render_page(run, results, title=TITLE))
    assert page.styles == [f"width: {width:.1f}%" for width in widths]


def test_a_path_that_is_no_text_can_still_be_written(tmp_path):
    corpus = RESULTS["corpus"] | {"source": "caf\udce9.txt"}
    assert r"caf\udce9.txt" in render_page(tmp_path, RESULTS | {"corpus": corpus}, title=TITLE)


def test_white_space_is_visible():
    assert show_whitespace(" a\tb\n\x00") == "␣a⇥b⏎\\x00"
