"""Pictures and page: whole, self-contained, and safe whatever the text holds."""

import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from jaxlm.report import plot_counts, plot_curves, render_page, results_table, samples_text, visible

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
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(tmp_path):
    lines = [{"step": step, "train_loss": 8 - step, "val_perplexity": 4000 / (step + 1)} for step in range(4)]
    plot_curves(tmp_path / "curves.png", {"MLP": lines}, {"counts bigram": 462.0}, 4096)
    plot_counts(tmp_path / "counts.png", np.arange(9).reshape(3, 3), ["a", " b", "\n"])
    (tmp_path / "config.json").write_text(json.dumps({"seed": 0}))
    return tmp_path


class Page(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in {"src", "href"}]

    def handle_data(self, data):
        self.text += data


def test_the_table_fits_80_columns_and_shows_every_figure():
    console = Console(width=80, file=io.StringIO())
    console.print(results_table(RESULTS["models"]))
    shown = console.file.getvalue()
    for figure in ("MLP", "counts bigram, best k", "403,520", "4.6666", "106.34", "2.164", "8.2"):
        assert figure in shown
    assert "…" not in shown


def test_samples_stand_under_their_titles():
    assert samples_text({"a": "x", "b": "y"}) == "--- a ---\nx\n\n--- b ---\ny\n"


def test_pictures_are_png_files(run):
    for name in ("curves.png", "counts.png"):
        assert (run / name).read_bytes().startswith(PNG)


def test_pictures_take_any_script_and_an_empty_table(tmp_path):
    plot_counts(tmp_path / "counts.png", np.zeros((2, 2), np.int32), ["語", "\N{OGHAM LETTER BEITH}"])
    assert (tmp_path / "counts.png").read_bytes().startswith(PNG)


def test_the_page_is_self_contained(run):
    page = Page(render_page(run, RESULTS))
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "link" not in page.tags


def test_the_page_shows_every_figure(run):
    text = Page(render_page(run, RESULTS)).text
    for figure in ("403,520 parameters", "4.6666", "106.34", "2.164", "k = 0.0126", "309,682", "0f" * 32):
        assert figure in text


def test_a_sample_cannot_run_code_in_the_page(run):
    page = Page(render_page(run, RESULTS))
    assert "script" not in page.tags
    assert "<script>alert(1)</script> & or" in page.text


def test_white_space_is_visible():
    assert visible(" a\tb\n\x00") == "␣a⇥b⏎\\x00"
