"""`jaxlm page`."""

import json
import re

import pytest
from cli_helpers import call, pipe, shown


def data_of(file):
    return json.loads(
        re.search('<script type="application/json" id="data">(.*)</script>', file.read_text("utf-8"))[1]
    )


def test_page_shows_runs_and_saved_models(run, mlp, tmp_path):
    console, out = pipe(), tmp_path / "new" / "page.html"
    document = call("page", (run, mlp), out=out, console=console)
    assert shown(console) == f"wrote {out}: {out.stat().st_size:,} bytes; open it in a browser\n"
    assert document == {"file": str(out), "bytes": out.stat().st_size, "models": [str(run), str(mlp)]}
    data = data_of(out)
    results = json.loads((run / "results.json").read_text("utf-8"))
    assert [model["title"] for model in data["models"]] == ["counts bigram, add 1", "MLP"]
    assert [model["perplexity"] for model in data["models"]] == [results["models"][0]["perplexity"], None]
    assert data["prompt"] == results["prompt"]


def test_page_takes_a_prompt(mlp, tmp_path):
    call("page", (mlp,), out=tmp_path / "page.html", prompt="to be")
    assert data_of(tmp_path / "page.html")["prompt"] == "to be"
    with pytest.raises(ValueError, match="character 'X' at position 0"):
        call("page", (mlp,), out=tmp_path / "other.html", prompt="X")


def test_page_overwrites_only_on_request(mlp, tmp_path):
    (file := tmp_path / "page.html").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"page\.html exists; choose another path, or pass overwrite=True"):
        call("page", (mlp,), out=file)
    assert file.read_text() == "years of work"
    call("page", (mlp,), out=file, overwrite=True)
    assert data_of(file)["tokenizer"]["kind"] == "char"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "page.txt"}, r"the page must end in \.html, got .*page.txt"),
        ({"models": ()}, "name at least one run"),
    ],
)
def test_page_refuses(mlp, tmp_path, options, message):
    out, models = tmp_path / options.get("out", "page.html"), options.get("models", (mlp,))
    with pytest.raises(ValueError, match=message):
        call("page", models, out=out)
