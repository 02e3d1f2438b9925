"""`jaxlm export` and `jaxlm import`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tyro.conf import Positional, arg

import jaxlm
from jaxlm.cli.shared import CommandOptions, Console, ModelOptions, open_model_on_cpu
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class ExportOptions(ModelOptions):
    """Write a trained model as a single safetensors file."""

    device: ClassVar[str] = "cpu"
    out: Annotated[Path, Positional, arg(metavar="OUT")]  # File to write, such as model.safetensors.
    overwrite: bool = False  # Replace an existing file.


@dataclass(frozen=True)
class ImportOptions(CommandOptions):
    """Save a file from `jaxlm export` as a model directory, after checking it."""

    device: ClassVar[str] = "cpu"
    file: Annotated[Path, Positional, arg(metavar="FILE")]  # File that `jaxlm export` wrote.
    out: Annotated[Path, Positional, arg(metavar="OUT")]  # Directory to create for the model.


def export_file(options: ExportOptions, console: Console) -> dict[str, Any]:
    """Export a model of a run, a model directory or an exported file."""
    out = options.out
    if out.suffix != ".safetensors":
        raise ValueError(f"the file must end in .safetensors, got {out}")
    saved = open_model_on_cpu(options)
    jaxlm.save_model(out, *saved, overwrite=options.overwrite)
    num_bytes, name = out.stat().st_size, type(saved[0]).__name__
    print_plain(console, f"wrote {out}: {num_bytes:,} bytes, {name}")
    return {"file": str(out), "bytes": num_bytes, "model": name}


def import_file(options: ImportOptions, console: Console) -> dict[str, Any]:
    """Import an exported file and save it as a model directory."""
    saved = jaxlm.load_model(options.file)
    jaxlm.save_model(options.out, *saved)
    name = type(saved.model).__name__
    print_plain(console, f"saved {options.out}: {name}")
    return {"path": str(options.out), "model": name}
