"""Runs in the surroundings that users have: copied folders, caches, event loops, terminals and styles."""

import errno
import io
import os
import shutil
import subprocess
import sys

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from tiny_runs import assert_same_run, bits, contents, flip_bit, read_json, tiny_config

import jaxlm
from jaxlm.checkpoints.train_states import checkpoint_path
from jaxlm.runs.load import load_model, open_run
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.report.plots import plot_curves
from jaxlm.runs.summary import list_runs
from jaxlm.runs.train import resume_run, start_run

slow = pytest.mark.slow
RECORDS = [{"step": step, "train_loss": 2.0, "val_perplexity": 9.0} for step in (0, 5)]

IN_AN_EVENT_LOOP = """
import asyncio, sys
sys.modules["nest_asyncio"] = sys.modules["uvloop"] = None  # with one of them, Orbax works in an event loop
import jaxlm

async def use():
    jaxlm.save_model(sys.argv[1] + "/saved", *jaxlm.load_model(jaxlm.resume_run(sys.argv[1]), "best"))

asyncio.run(use())
"""


@slow
def test_a_run_in_an_event_loop(stopped, finished_run):
    """As in Jupyter or a web handler."""
    subprocess.run([sys.executable, "-c", IN_AN_EVENT_LOOP, stopped], check=True)
    assert_same_run(stopped, finished_run)
    assert jaxlm.load_model(stopped / "saved").model == load_model(finished_run).model


def add_files_of_macos(folder):
    """Add what a copy by macOS has: `._x` beside each entry, and `.DS_Store` in each directory."""
    for path in [folder, *folder.rglob("*")]:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
        if path.is_dir():
            (path / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")


@slow
def test_a_run_copied_by_macos(stopped, finished_run, text_folder, caplog):
    add_files_of_macos(stopped)
    for checkpoint in ("last", "best", 4):
        load_model(stopped, checkpoint)
    assert [row["state"] for row in list_runs(stopped.parent)] == ["interrupted"]
    resume_run(stopped)
    assert_same_run(stopped, finished_run)
    assert not caplog.records
    add_files_of_macos(stopped)
    start_run(tiny_config(text_folder), stopped, overwrite=True)
    flip_bit(checkpoint_path(stopped / "checkpoints", 12) / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"checksum mismatch in metrics\.jsonl"):
        load_model(stopped, 12)


@slow
def test_a_run_of_links_into_a_cache(stopped, finished_run, tmp_path):
    """As git-annex and DVC keep files."""
    before = contents(stopped)
    for number, file in enumerate(sorted(path for path in stopped.rglob("*") if path.is_file())):
        file.symlink_to(file.rename(tmp_path / f"cached-{number}"))
    assert contents(stopped) == before
    cached = {path: path.read_bytes() for path in tmp_path.glob("cached-*")}
    assert bits(load_model(stopped, "last")[1]) == bits(load_model(stopped, 6)[1])
    resume_run(stopped)
    assert_same_run(stopped, finished_run)
    assert {path: path.read_bytes() for path in cached} == cached


class GoneTerminal(io.StringIO):
    """A terminal that went away, or a log on a full disk."""

    def __init__(self, code, is_terminal):
        super().__init__()
        self.code, self.is_terminal = code, is_terminal

    def isatty(self):
        return self.is_terminal

    def write(self, text):
        raise OSError(self.code, os.strerror(self.code))

    def flush(self):
        raise OSError(self.code, os.strerror(self.code))


@slow
@pytest.mark.parametrize(("code", "is_terminal"), [(errno.EIO, True), (errno.EPIPE, False)])
def test_a_run_outlives_its_terminal(code, is_terminal, text_folder, finished_run, tmp_path):
    console = Console(file=GoneTerminal(code, is_terminal), force_terminal=is_terminal)
    assert_same_run(start_run(tiny_config(text_folder), tmp_path / "run", console=console), finished_run)


@slow
def test_a_picture_that_fails_does_not_fail_the_run(counts_run, tmp_path, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("latex is missing")

    monkeypatch.setattr(Figure, "savefig", fail)
    run = start_run(open_run(counts_run).config, tmp_path / "run")
    assert [record.getMessage() for record in caplog.records] == [
        f"{run}: cannot draw the picture: latex is missing"
    ]
    assert (run / "report.html").exists()


def test_plots_do_not_depend_on_the_style_of_the_user(tmp_path):
    style = {"text.usetex": True, "font.size": 40.0, "savefig.dpi": 7, "savefig.format": "pdf", "axes.grid": True}
    plot_curves(tmp_path / "default.png", {"MLP": RECORDS}, {}, 10)
    with mpl.rc_context(style):
        plot_curves(tmp_path / "styled.png", {"MLP": RECORDS}, {}, 10)
        assert {name: mpl.rcParams[name] for name in style} == style
    assert (tmp_path / "styled.png").read_bytes() == (tmp_path / "default.png").read_bytes()


@slow
@pytest.mark.parametrize("backend", ["nonsense", "TkAgg"])
def test_plots_do_not_depend_on_the_files_and_backend_of_the_user(backend, tmp_path):
    plot_curves(tmp_path / "default.png", {"MLP": RECORDS}, {}, 10)
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\nnonsense: 3\n")
    program = (
        "import os, pathlib\n"
        "from jaxlm.runs.report.plots import plot_curves\n"
        f"plot_curves(pathlib.Path('user.png'), {{'MLP': {RECORDS}}}, {{}}, 10)\n"
        "import matplotlib\n"
        "print(os.environ['MPLBACKEND'], matplotlib.rcParams['font.size'], matplotlib.get_backend())"
    )
    environment = os.environ | {"MPLBACKEND": backend, "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, stdout=-1, check=True)
    assert (tmp_path / "user.png").read_bytes() == (tmp_path / "default.png").read_bytes()
    assert done.stdout.decode().split() == [backend, "40.0", "agg" if backend == "nonsense" else backend]


@slow
def test_paths_are_strings_in_the_home_folder(text_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(tiny_config(text_folder).text, tmp_path / "text.txt")
    config = jaxlm.TrainConfig(text="~/text.txt", model="counts", tokenizer="char", device="cpu")
    run = start_run(config, "~/runs/counts")
    assert run == tmp_path / "runs" / "counts"
    jaxlm.save_model("~/model.safetensors", *load_model("~/runs/counts"))
    assert load_model("~/model.safetensors").model == load_model(run).model
    assert (open_run("~/runs/counts").path, resume_run("~/runs/counts")) == (run, run)
    assert [row["path"] for row in list_runs("~/runs")] == [str(run)]
    assert read_json(run / "config.json")["text"] == str(tmp_path / "text.txt")
    assert read_manifest(run)["state"] == "done"
