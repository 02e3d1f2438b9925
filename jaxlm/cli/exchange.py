"""`jaxlm export` and `jaxlm import`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

import jaxlm
from jaxlm.cli.options import Checkpoint, Console, JsonFlag, ModelPath
from jaxlm.cli.shared import on_cpu, open_model_on_cpu
from jaxlm.utils.terminal import print_plain


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained model as a single safetensors file."""

    model: ModelPath
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """File to write, such as model.safetensors."""
    checkpoint: Checkpoint = "final"
    overwrite: bool = False
    """Replace an existing file."""
    json: JsonFlag = False


@dataclass(frozen=True)
class ImportOptions:
    """Save a file from `jaxlm export` as a model directory, after checking it."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """File that `jaxlm export` wrote."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """Directory to create for the model."""
    json: JsonFlag = False


def export_file(options: ExportOptions, console: Console) -> dict[str, Any]:
    """Export a model of a run, a model directory or an exported file."""
    out = options.out
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a directory; name a file, such as {out / 'model.safetensors'}")
    model, variables, tokenizer = open_model_on_cpu(options.model, options.checkpoint)
    jaxlm.export_model(out, model, variables, tokenizer, overwrite=options.overwrite)
    num_bytes = out.stat().st_size
    print_plain(console, f"wrote {out}: {num_bytes:,} bytes, {_format_model(model)}")
    return {"file": str(out), "bytes": num_bytes, "model": _describe_model(model)}


def import_file(options: ImportOptions, console: Console) -> dict[str, Any]:
    """Import an exported file and save it as a model directory."""
    with on_cpu():
        model, variables, tokenizer = jaxlm.import_model(options.file)
    jaxlm.save_model(options.out, model, variables, tokenizer)
    print_plain(console, f"saved {options.out}: {_format_model(model)}")
    return {"path": str(options.out), "model": _describe_model(model)}


def _describe_model(model: Any) -> dict[str, Any]:
    """Return the model's class and its numeric fields as JSON."""
    fields = {name: value for name, value in vars(model).items() if isinstance(value, int | float)}
    return {"class": type(model).__name__, **fields}


def _format_model(model: Any) -> str:
    fields = _describe_model(model)
    return f"{fields.pop('class')}({', '.join(f'{name}={value}' for name, value in fields.items())})"
