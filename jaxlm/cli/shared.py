"""Helpers of several subcommands: open a model, choose a device, read a text, make a table."""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxlm
from jaxlm.cli.options import Console
from jaxlm.utils.terminal import escape_controls, print_plain


def open_model_on_cpu(path: Path, checkpoint: str | int) -> tuple[Any, Any, Any]:
    """Return `open_model(path, checkpoint)`. Explain a missing path and a run of several models."""
    from jaxlm.runs.manifest import read_manifest

    if not path.exists():
        remedy = "name a run directory, a saved model directory or an exported file"
        raise FileNotFoundError(f"{path} does not exist; {remedy}")
    if (path / "manifest.json").exists() and read_manifest(path)["kind"] != "train":
        models = sorted(str(model.parent) for model in path.glob("models/*/model.json"))
        raise ValueError(f"{path} is a run of several models; name one of {', '.join(models) or 'them'}")
    with on_cpu():
        return jaxlm.open_model(path, checkpoint)


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Make the CPU the default device of JAX within the block, unless JAX_PLATFORMS excludes it."""
    import jax

    platforms: str | None = jax.config.jax_platforms  # type: ignore[attr-defined]
    has_cpu = not platforms or "cpu" in platforms.split(",")
    with jax.default_device(jaxlm.resolve_device("cpu") if has_cpu else None):
        yield


def select_device(device: str, variables: Any, console: Console) -> Any:
    """Choose a device for a model with these variables, print it with the reason, and return it."""
    from jaxlm.devices.selection import choose_device, format_device
    from jaxlm.models.interface import num_params

    choice = choose_device(device, num_weights=num_params(variables))
    print_plain(console, f"device: {format_device(choice.device)}: {choice.reason}")
    return choice.device


def load_text(text: Path | None, corpus: str | None) -> "jaxlm.Corpus":
    """Return the text of `--text`, or else of `--corpus`."""
    return jaxlm.load_corpus(corpus or "") if text is None else jaxlm.read_text(text)


def describe_text(corpus: "jaxlm.Corpus") -> dict[str, str]:
    """Return the name (of a file, its path), source and checksum of a text as JSON."""
    from jaxlm.text.corpora import CORPORA

    name = corpus.name if corpus.name in CORPORA else corpus.source
    return {"text": name, "source": corpus.source, "sha256": corpus.sha256}


def resume_hint(path: Path | str) -> str:
    """Return the command that resumes a run, quoted for a shell."""
    return f"resume with: jaxlm train --resume {shlex.quote(str(path))}"


def make_table(*columns: str) -> Any:
    """Return an empty table with these column headers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(make_cell(column), overflow="fold")
    return table


def make_cell(value: Any) -> Any:
    """Return a table cell: "-" for None, control characters escaped."""
    from rich.text import Text

    return Text("-" if value is None else escape_controls(str(value)))
