"""`jaxlm runs`."""

import functools
import math
import re
from pathlib import Path

import pytest
from cli_helpers import call, make_run, pipe, shown

from jaxlm.cli import main
from jaxlm.runs.config import TrainConfig, config_to_json
from jaxlm.runs.manifest import read_manifest, write_manifest

runs = functools.partial(call, "runs")


@pytest.fixture
def folder(tmp_path):
    """A directory of runs that ended in each way."""
    folder = tmp_path / "runs"
    make_run(folder / "done", losses=[4.0, 2.5])
    make_run(folder / "stopped", error=KeyboardInterrupt("SIGINT"), losses=[4.0])
    make_run(folder / "full", error=OSError("no space; free some space"))
    killed = make_run(folder / "killed")
    write_manifest(killed, read_manifest(killed) | {"state": "running", "ended": None})
    (make_run(folder / "torn") / "manifest.json").write_text("{")
    make_run(folder / "ladder", kind="ladder", config={"seed": 0}, error=KeyboardInterrupt("SIGTERM"))
    (folder / "notes").mkdir()
    return folder


def test_runs_lists_states_and_how_to_resume(folder):
    console = pipe()
    document = runs((folder,), console=console)
    assert {row["run"]: row["state"] for row in document["runs"]} == {
        "done": "done",
        "stopped": "interrupted",
        "full": "failed",
        "killed": "killed",
        "torn": "damaged",
        "ladder": "interrupted",
    }
    lines = set(shown(console).splitlines())
    assert f"stopped: interrupted (SIGINT); resume with: jaxlm train --resume {folder / 'stopped'}" in lines
    assert f"killed: killed; resume with: jaxlm train --resume {folder / 'killed'}" in lines
    assert "full: failed (no space; free some space)" in lines
    assert "ladder: interrupted (SIGTERM)" in lines
    assert any(line.startswith("torn: damaged (") for line in lines)
    assert not any(line.startswith("done:") for line in lines)


def test_runs_shows_one_run_with_its_notes(folder):
    path = make_run(folder / "noted", error=KeyboardInterrupt("SIGINT"), losses=[2.0])
    write_manifest(path, read_manifest(path) | {"notes": ["resumed on another \x1b[2J device"], "seconds": 61.25})
    console = pipe()
    document = runs((path,), console=console)
    assert document["manifest"]["state"] == document["runs"][0]["state"] == "interrupted"
    *_, hint, times, note = shown(console).splitlines()
    assert re.fullmatch(r"started \S+, ended \S+; 61\.2 s", times)
    assert note == r"note: resumed on another \x1b[2J device"
    assert hint == f"{path}: interrupted (SIGINT); resume with: jaxlm train --resume {path}"


def test_runs_compares_in_one_table_and_one_plot(folder, tmp_path):
    shas = {"corpus": {"sha256": "a"}, "tokenizer": {"sha256": "b", "vocab_size": 64}}
    config = config_to_json(TrainConfig(num_steps=2, clip_norm=None))
    one, two = folder / "one", folder / "two"
    make_run(one, losses=[4.0, 3.0], **shas)
    make_run(two, losses=[4.0, 2.0], config=config, **shas)
    console, plot = pipe(), tmp_path / "pictures" / "both.png"
    document = runs((one, two, one), plot=plot, console=console)
    assert document["differing"] == {
        "num_steps": {str(one): 6000, str(two): 2},
        "clip_norm": {str(one): 1.0, str(two): None},
    }
    assert [row["perplexity"] for row in document["runs"]] == pytest.approx([math.exp(3), math.exp(2)])
    assert document["notes"] == []
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert {f"num_steps: 6000 in {one}, 2 in {two}", f"clip_norm: 1.0 in {one}, None in {two}"} <= set(
        shown(console).splitlines()
    )


def test_runs_plots_curves_and_notes_what_differs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    calls = []
    monkeypatch.setattr("jaxlm.runs.report.plots.plot_curves", lambda *arguments: calls.append(arguments))
    names = {"same": ("a", "b"), "tokenizer": ("a", "c"), "text": ("d", "c")}
    for name, (text, tokenizer) in names.items():
        facts = {"corpus": {"sha256": text}, "tokenizer": {"sha256": tokenizer, "vocab_size": 64}}
        make_run(folder / name, losses=[3.0, 2.0], **facts)
    (note,) = runs((Path("same"), Path("tokenizer")), plot=Path("plot.png"))["notes"]
    assert "tokenizers" in note
    ((path, curves, floors, vocab_size),) = calls
    assert (path, floors, vocab_size) == (Path("plot.png"), {}, 64)
    assert {title: len(lines) for title, lines in curves.items()} == {"same: mlp": 2, "tokenizer: mlp": 2}
    (note,) = runs((Path("same"), Path("text")))["notes"]
    assert "texts" in note


def test_runs_refuses_missing_runs_and_plots(folder, run, tmp_path):
    (tmp_path / "empty").mkdir()
    console = pipe()
    assert runs((tmp_path / "empty",), console=console) == {"runs": []}
    assert shown(console).startswith(f"no runs in {tmp_path / 'empty'}; jaxlm train creates runs")
    for paths, error, message in [
        ((folder / "nowhere",), FileNotFoundError, "nowhere does not exist; jaxlm train creates runs"),
        ((run, folder / "nowhere"), FileNotFoundError, "nowhere does not exist"),
        ((folder / "torn",), ValueError, r"torn/manifest\.json"),
    ]:
        with pytest.raises(error, match=message):
            runs(paths)
    with pytest.raises(ValueError, match=r"--plot must name a \.png file, got notes.txt"):
        runs((run, folder / "done"), plot=Path("notes.txt"))


def test_runs_skips_what_is_not_a_run(folder, tmp_path):
    (folder / "both.png").write_bytes(b"\x89PNG")
    paths = tuple(path for path in sorted(folder.iterdir()) if path.name != "torn")  # as a shell expands runs/*
    document = runs(paths, plot=tmp_path / "plot.png")
    names = ["done", "full", "killed", "ladder", "stopped"]
    assert [row["run"] for row in document["runs"]] == [str(folder / name) for name in names]
    others, console = (folder / "both.png", folder / "notes"), pipe()
    assert runs(others, console=console) == {"runs": []}
    assert shown(console).startswith(f"no runs in {', '.join(map(str, others))}; jaxlm train")
    with pytest.raises(NotADirectoryError):
        runs((folder / "both.png",))


def test_runs_prints_whole_lines_to_a_pipe(tmp_path, capsys):
    names = {"long-name-" * 12, "with spaces " * 9, "\u065a" * 60}
    for name in names:
        make_run(tmp_path / name, losses=[4.0, 2.5])
    assert main(["runs", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "12.18" in line]
    assert {name for line in lines for name in names if name in line} == names
