"""`jaxlm export` and `jaxlm import`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

import jaxlm
from jaxlm.cli.shared import CommandOptions, Console, ModelOptions, open_model_on_cpu
from jaxlm.utils.terminal import print_plain

_FORMAT_OF_SUFFIX = {".safetensors": "safetensors", ".arpa": "arpa", ".stablehlo": "stablehlo"}


@dataclass(frozen=True)
class ExportOptions(ModelOptions):
    """Write a trained model for other programs, or as a single file to share."""

    device: ClassVar[str] = "cpu"
    out: Annotated[Path, Positional, arg(metavar="OUT")]  # File to write, or folder for --format hf.
    # safetensors: one file for jaxlm. arpa: n-grams for KenLM and SRILM. hf: a folder with tokenizer.json and a
    # model card. stablehlo: a program for CPU, CUDA and TPU. None means by the suffix of OUT.
    format: Literal["safetensors", "arpa", "hf", "stablehlo"] | None = None
    overwrite: bool = False  # Replace an existing file.


@dataclass(frozen=True)
class ImportOptions(CommandOptions):
    """Save an exported file, or an ARPA file of any program, as a model directory, after checking it."""

    device: ClassVar[str] = "cpu"
    file: Annotated[Path, Positional, arg(metavar="FILE")]  # File that `jaxlm export` wrote, or a .arpa file.
    out: Annotated[Path, Positional, arg(metavar="OUT")]  # Directory to create for the model.
    # .arpa: tokenizer whose tokens the words spell, or a run or saved model that has it. None saves the model
    # without one.
    tokenizer: Path | None = None


def export_file(options: ExportOptions, console: Console) -> dict[str, Any]:
    """Export a model of a run, a model directory or an exported file."""
    out = options.out
    if (kind := options.format or _FORMAT_OF_SUFFIX.get(out.suffix)) is None:
        suffixes = ", ".join(_FORMAT_OF_SUFFIX)
        raise ValueError(f"the file must end in {suffixes}, got {out}; or choose a --format")
    model, variables, tokenizer = open_model_on_cpu(options)
    replace = {"overwrite": options.overwrite}
    match kind:
        case "arpa":
            jaxlm.write_arpa(out, model, variables, tokenizer, **replace)
        case "hf":
            jaxlm.write_hugging_face(out, model, variables, tokenizer, figures=_figures_of(options), **replace)
        case "stablehlo":
            jaxlm.write_stablehlo(out, model, variables, **replace)
        case _:
            jaxlm.save_model(out, model, variables, tokenizer, **replace)
    files = [out] if out.is_file() else [path for path in out.iterdir() if path.is_file()]
    num_bytes, name = sum(path.stat().st_size for path in files), type(model).__name__
    print_plain(console, f"wrote {out}: {num_bytes:,} bytes, {name}")
    return {"file": str(out), "format": kind, "bytes": num_bytes, "model": name}


def _figures_of(options: ExportOptions) -> dict[str, Any]:
    """Return the rows of the model card that describe a finished run."""
    from jaxlm.utils.json_files import read_json

    path = options.model / "results.json"
    if options.checkpoint != "final" or not path.exists():
        return {}
    results = read_json(path)
    row, corpus = results["models"][0], results["corpus"]
    return {
        "text": f"{corpus['name']} ({corpus['license']})",
        "tokens for training": f"{results['tokens']['train']:,}",
        "tokens for validation": f"{row['num_tokens']:,}",
        "perplexity": f"{row['perplexity']:,.2f}",
        "bits per byte": f"{row['bits_per_byte']:.3f}",
    }


def import_file(options: ImportOptions, console: Console) -> dict[str, Any]:
    """Import an exported file or an ARPA file and save it as a model directory."""
    if options.file.name.lower().endswith((".arpa", ".arpa.gz")):  # `read_arpa` asks to extract a .gz file
        tokenizer = None if options.tokenizer is None else _open_tokenizer(options.tokenizer)
        model, variables, _ = jaxlm.read_arpa(options.file, tokenizer)
    elif options.tokenizer is not None:
        raise ValueError(f"--tokenizer is for .arpa files, got {options.file}, which has its own; remove it")
    else:
        model, variables, tokenizer = jaxlm.load_model(options.file)
    jaxlm.save_model(options.out, model, variables, tokenizer)
    name = type(model).__name__
    print_plain(console, f"saved {options.out}: {name}{'' if tokenizer else ', without a tokenizer'}")
    return {"path": str(options.out), "model": name}


def _open_tokenizer(path: Path) -> "jaxlm.Tokenizer":
    """Return the tokenizer of a file, a run or a saved model."""
    from jaxlm.checkpoints.model_files import MODEL_FILE

    if path.suffix == ".safetensors" or (path / MODEL_FILE).exists():
        return open_model_on_cpu(ModelOptions(path))[2]
    return jaxlm.load_tokenizer(path)
