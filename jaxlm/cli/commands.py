"""What the subcommands of `jaxlm` do: functions that say it to a console, if there is one, and return it as JSON.

A script may call them too. They raise ValueError, OSError and FloatingPointError with a line for the user.
"""

import codecs
import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlm.checkpoints.model_files import export_model, import_model, save_model
from jaxlm.devices.listing import describe_devices
from jaxlm.devices.probe_cache import clear_probe_cache
from jaxlm.devices.selection import choose_device, format_device, resolve_device
from jaxlm.evaluation.evaluate import evaluate
from jaxlm.evaluation.loss import bits_per_byte
from jaxlm.models.interface import num_params
from jaxlm.runs.config import DEFAULT_VOCAB_SIZE, TrainConfig, format_flag
from jaxlm.runs.directory import is_run, timestamped_paths
from jaxlm.runs.load import open_model, read_run_config
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.metrics_log import read_metrics
from jaxlm.runs.report.plots import plot_curves
from jaxlm.runs.report.tables import results_table, runs_table, show_whitespace
from jaxlm.runs.setup import SAMPLE_FOLD
from jaxlm.runs.summary import list_runs, summarise_run
from jaxlm.runs.train import resume_run, start_run
from jaxlm.sampling.sample import sample_stream
from jaxlm.text.batching import split_ids
from jaxlm.text.corpora import CORPORA, Corpus, cached_corpus_path, load_corpus, read_text, verify_corpus
from jaxlm.text.tokenizers import Tokenizer, load_tokenizer, train_tokenizer
from jaxlm.utils.json_files import read_json
from jaxlm.utils.terminal import escape_controls, print_plain, stderr_console, write


def train_model(
    training: TrainConfig,
    *,
    resume: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """`start_run`, or `resume_run` of the run at `resume`; returns its headline figures and its `results.json`.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; it says how to go on.
    """
    console = console or Console(quiet=True)
    if resume is not None and (out is not None or overwrite):
        raise ValueError("--resume goes on in the run's own folder; leave --out and --overwrite out")
    begun = [] if resume is None else [resume]
    try:
        if resume is None:
            path = start_run(training, out, overwrite=overwrite, console=console, on_start=begun.append)
        else:
            path = resume_run(resume, training, console=console)
    except KeyboardInterrupt as stop:
        if not begun:
            raise
        raise KeyboardInterrupt(f"by {str(stop) or 'SIGINT'}; {_how_to_go_on(begun[0])}") from None
    results = read_json(path / "results.json")
    console.print(results_table(results["models"]))
    write(console, f"\n{next(iter(results['samples'].values()))}\n\n")
    print_plain(console, f"look at {path / 'report.html'}; or: jaxlm sample {_typed(path)}")
    return summarise_run(path) | {"results": results}


def evaluate_text(
    model: Path,
    *,
    text: Path | None = None,
    corpus: str | None = None,
    part: Literal["validation", "train", "all"] | None = None,
    checkpoint: str | int = "final",
    batch_size: int = 256,
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Any]:
    """Nats per token, perplexity and bits per byte of a text, or of a part of it, under a trained model.

    Args:
        model: a run, a saved model's folder, or an exported file.
        text, corpus: a file, or a named corpus; where both are None, the text that the run was trained on.
        part: None is "validation" of a run's own text, and "all" of any other.
    """
    console = console or Console(quiet=True)
    if text is not None and corpus is not None:
        raise ValueError(f"--text {text} and --corpus {corpus} both name a text; leave one of them out")
    trained, variables, tokenizer = _open(model, checkpoint)
    target_device = _chosen_device(device, variables, console)
    is_own = text is None and corpus is None
    config = read_run_config(model) if is_run(model) else None
    if is_own and config is None:
        raise ValueError(
            f"{model} is no run, so it has no text of its own: name one by --text FILE or --corpus NAME"
        )
    read = _own_text(model) if is_own else _read(text, corpus)
    ids = tokenizer.encode(read.text)
    part = part or ("validation" if is_own else "all")
    if part != "all":
        train_ids, val_ids = split_ids(ids, 0.1 if config is None else config.val_fraction)
        ids = train_ids if part == "train" else val_ids
    evaluation = evaluate(trained, variables, ids, batch_size=batch_size, device=target_device)
    bits = bits_per_byte(evaluation.nats_per_token, len(tokenizer.decode_bytes(ids)) / len(ids))
    print_plain(
        console,
        f"{_label(read)}, {part}: {evaluation.num_tokens:,} tokens, perplexity {evaluation.perplexity:,.2f}, "
        f"{evaluation.nats_per_token:.4f} nats/token, {bits:.3f} bits/byte",
    )
    return {
        "model": str(model),
        **_origin(read),
        "part": part,
        **evaluation._asdict(),
        "bits_per_byte": bits,
        "device": target_device.platform,
    }


def sample_text(
    model: Path,
    *,
    prompt: str = "",
    num_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    streams: int = 1,
    seed: int = 0,
    checkpoint: str | int = "final",
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Any]:
    """Texts that a trained model draws after the prompt; a single one appears on a terminal as it is drawn.

    Args:
        model: a run, a saved model's folder, or an exported file.
        prompt: where it is shorter than the model's context, line ends come before it, which are not shown.
    """
    console = console or Console(quiet=True)
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must lie in 0..{2**32 - 1}, got {seed}")
    if streams < 1:
        raise ValueError(f"--streams must be at least 1, got {streams}")
    trained, variables, tokenizer = _open(model, checkpoint)
    # Standard output is for the text alone.
    target_device = _chosen_device(device, variables, console if console.quiet else stderr_console())
    prompt_ids = tokenizer.encode(prompt)
    padded = _long_enough(prompt_ids, tokenizer, trained.context_length)
    pieces = sample_stream(
        trained,
        variables,
        np.tile(padded, (streams, 1)),
        num_tokens,
        key=jax.random.fold_in(jax.random.key(seed), SAMPLE_FOLD),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        device=target_device,
        tokens_per_piece=1 if streams == 1 and console.is_terminal else None,
    )
    if streams == 1:
        pieces = _written(pieces, prompt, tokenizer, console)
    ids = np.concatenate([np.tile(prompt_ids, (streams, 1)), *pieces], axis=1)
    texts = [tokenizer.decode(stream) for stream in ids]
    if streams > 1:
        for number, text in enumerate(texts, 1):
            write(console, f"--- {number} ---\n{text}\n")
    return {"model": str(model), "prompt": prompt, "samples": texts, "ids": ids.tolist()}


def inspect_tokenizer(
    *,
    text: Path | None = None,
    corpus: str = "tinyshakespeare",
    tokenizer: Literal["char", "byte", "bpe"] = "bpe",
    vocab_size: int | None = None,
    load: Path | None = None,
    encode: str | None = None,
    out: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """What a tokenizer, trained here or saved earlier, makes of a text; `out` is where it is saved.

    Args:
        text: a file, instead of the named corpus.
        vocab_size: of a BPE tokenizer that is trained here; None is 4096.
        load: a tokenizer's file, or a run or a saved model that holds one, instead of one trained here.
        encode: show how this is cut into tokens.
    """
    console = console or Console(quiet=True)
    if vocab_size is not None and (load is not None or tokenizer != "bpe"):
        raise ValueError(f"--vocab-size {vocab_size} is for a BPE tokenizer that is trained here; leave it out")
    if out is not None and out.exists():
        raise FileExistsError(f"{out} exists; choose another --out, or remove it first")
    read = _read(text, corpus)
    if load is None:
        made = train_tokenizer(tokenizer, read.text, DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size)
    else:
        made = load_tokenizer(load / "tokenizer.json" if load.is_dir() else load)
    ids = made.encode(read.text)
    encoded = None if encode is None else made.encode(encode)
    if out is not None:
        made.save(out)
    tokens = [made.decode([token]) for token in range(made.vocab_size)]
    counts = np.bincount(ids, minlength=made.vocab_size)
    frequent = [int(token) for token in np.argsort(-counts, kind="stable")[:20] if counts[token]]
    longest = sorted(range(len(tokens)), key=lambda token: -len(tokens[token]))[:10]
    document: dict[str, Any] = {
        **_origin(read),
        "vocab_size": made.vocab_size,
        "tokens": len(ids),
        "bytes_per_token": len(read.text.encode()) / len(ids),
        "unused": int((counts == 0).sum()),
        "frequent": [{"id": token, "token": tokens[token], "count": int(counts[token])} for token in frequent],
        "longest": [{"id": token, "token": tokens[token]} for token in longest],
        "encoded": None if encoded is None else [{"id": int(id_), "token": tokens[id_]} for id_ in encoded],
        "out": None if out is None else str(out),
    }
    print_plain(
        console,
        f"{_label(read)}: {len(read.text):,} characters, {len(ids):,} tokens, "
        f"{document['bytes_per_token']:.3f} bytes/token, vocabulary {made.vocab_size:,} "
        f"({document['unused']:,} of it not in this text)",
    )
    print_plain(console, "frequent: " + "  ".join(show_whitespace(tokens[token]) for token in frequent))
    print_plain(console, "longest: " + "  ".join(show_whitespace(tokens[token]) for token in longest))
    if encoded is not None:
        print_plain(
            console, "encoded: " + " ".join(f"{show_whitespace(tokens[token])}[{token}]" for token in encoded)
        )
    if out is not None:
        print_plain(console, f"saved: {out}")
    return document


def tend_corpora(
    action: Literal["list", "fetch", "verify"] = "list", name: str | None = None, *, console: Console | None = None
) -> dict[str, Any]:
    """Where the named corpora lie, once they are fetched, or compared with their sha256; `name` None is all."""
    format_device = []
    for each in CORPORA if name is None else (name,):
        path = cached_corpus_path(each)
        if action == "fetch":
            load_corpus(each)
        elif action == "verify":
            verify_corpus(each)
        num_bytes = path.stat().st_size if path.exists() else None
        format_device.append({"name": each, "path": str(path), "bytes": num_bytes})
        state = f"not here yet (jaxlm corpus fetch {each})" if num_bytes is None else f"{num_bytes:,} bytes"
        verified = ", as its sha256 says" if action == "verify" else ""
        print_plain(console or Console(quiet=True), f"{each}: {state}{verified}, {path}")
    return {"action": action, "corpora": format_device}


def show_runs(
    paths: Sequence[Path] = (Path("runs"),), *, plot: Path | None = None, console: Console | None = None
) -> dict[str, Any]:
    """The runs in one folder; or one run; or two and more, compared in one table and one plot.

    Args:
        plot: the comparison's picture, a .png; None is a new one below `runs`.
    """
    console = console or Console(quiet=True)
    paths = list(dict.fromkeys(paths))
    if plot is not None and len(paths) == 1:
        raise ValueError(f"--plot {plot} is of a comparison: name two runs or more, not {paths[0]} alone")
    if len(paths) > 1:
        return _compared(paths, plot, console)
    if (paths[0] / "manifest.json").exists():
        return _told(paths[0], console)
    return _listed(paths[0], console)


def show_devices(*, probe: bool = False, console: Console | None = None) -> dict[str, Any]:
    """The devices of `describe_devices`, and which of them "auto" takes; `probe` tries every plugin again."""
    console = console or Console(quiet=True)
    if probe:
        clear_probe_cache()
    document = describe_devices()
    table = _table("platform", "device", "plugin", "verdict", "GFLOP/s", "GB/s")
    for row in document["devices"]:
        plugin = row["plugin"] and f"{row['plugin']} {row['version']}"
        figures = (None if row[name] is None else f"{row[name]:,.0f}" for name in ("gflops", "gbytes"))
        table.add_row(*map(_cell, (row["platform"], row["device"], plugin, row["verdict"], *figures)))
    console.print(table)
    for row in document["devices"]:
        if row["reason"]:
            print_plain(
                console, escape_controls(f"{row['plugin']} {row['version']}: {row['verdict']}: {row['reason']}")
            )
    choices = {(choice["device"], choice["reason"]): choice["num_weights"] for choice in document["auto"]}
    for (device, reason), num_weights in choices.items():
        size = f" (for a model of {num_weights:,} weights)" if len(choices) > 1 else ""
        print_plain(console, escape_controls(f"auto{size} takes {device}: {reason}"))
    return document


def export_file(
    model: Path,
    out: Path,
    *,
    checkpoint: str | int = "final",
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """`export_model` of a run, a saved model's folder or an exported file, to the file `out`."""
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; name a file, as {out / 'model.safetensors'}")
    trained, variables, tokenizer = _open(model, checkpoint)
    export_model(out, trained, variables, tokenizer, overwrite=overwrite)
    num_bytes = out.stat().st_size
    print_plain(console or Console(quiet=True), f"wrote {out}: {num_bytes:,} bytes, {_in_words(trained)}")
    return {"file": str(out), "bytes": num_bytes, "model": _described(trained)}


def import_file(file: Path, out: Path, *, console: Console | None = None) -> dict[str, Any]:
    """`import_model` of a file, saved as the folder `out`."""
    with _on_cpu():
        model, variables, tokenizer = import_model(file)
    save_model(out, model, variables, tokenizer)
    print_plain(console or Console(quiet=True), f"saved {out}: {_in_words(model)}")
    return {"path": str(out), "model": _described(model)}


def _how_to_go_on(path: Path | str) -> str:
    return f"go on with: jaxlm train --resume {_typed(path)}"


def _typed(path: Path | str) -> str:
    return shlex.quote(str(path))


def _open(path: Path, checkpoint: str | int) -> tuple[Any, Any, Tokenizer]:
    """`open_model`, with a word for what it cannot know that the user wants."""
    if not path.exists():
        raise FileNotFoundError(
            f"there is no {path}; name a run's folder, a saved model's folder, or an exported file"
        )
    if (path / "manifest.json").exists() and read_manifest(path)["kind"] != "train":
        models = sorted(str(model.parent) for model in path.glob("models/*/model.json"))
        raise ValueError(f"{path} is a run of several models; name one of {', '.join(models) or 'them'}")
    with _on_cpu():
        return open_model(path, checkpoint)


def _chosen_device(device: str, variables: Any, console: Console) -> jax.Device:
    """That of `choose_device`, with a line on the console."""
    choice = choose_device(device, num_weights=num_params(variables))
    print_plain(console, f"device: {format_device(choice.device)}: {choice.reason}")
    return choice.device


@contextlib.contextmanager
def _on_cpu() -> Iterator[None]:
    """Where JAX has a CPU, what is read goes there: no accelerator is needed, nor shall one be in the way."""
    platforms: str | None = jax.config.jax_platforms  # type: ignore[attr-defined]
    has_cpu = not platforms or "cpu" in platforms.split(",")
    with jax.default_device(resolve_device("cpu") if has_cpu else None):
        yield


def _read(text: Path | None, corpus: str | None) -> Corpus:
    return load_corpus(corpus or "") if text is None else read_text(text)


def _own_text(run: Path) -> Corpus:
    """The text that a run was trained on, as long as it is still that one."""
    config = read_run_config(run)
    read = _read(config.text, config.corpus)
    if read.sha256 != read_manifest(run)["corpus"]["sha256"]:
        raise ValueError(f"{read.source} has changed since {run} was trained on it; --text takes it as it is now")
    return read


def _label(read: Corpus) -> str:
    return read.name if read.name in CORPORA else read.source


def _origin(read: Corpus) -> dict[str, str]:
    return {"text": _label(read), "source": read.source, "sha256": read.sha256}


def _long_enough(ids: np.ndarray[Any, Any], tokenizer: Tokenizer, context_length: int) -> np.ndarray[Any, Any]:
    """The prompt's ids, with line ends before them where the model's context is longer."""
    try:
        line_end = tokenizer.encode("\n")[-1:]
    except ValueError:  # characters, without one
        line_end = np.zeros(1, np.int32)
    return np.concatenate([np.repeat(line_end, max(context_length - len(ids), 0)), ids])


def _written(
    pieces: Iterator[np.ndarray[Any, Any]], prompt: str, tokenizer: Tokenizer, console: Console
) -> Iterator[np.ndarray[Any, Any]]:
    """The pieces [1, n], once the text that each completes is written: a character may lie in several tokens."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    write(console, prompt)
    try:
        for piece in pieces:
            write(console, decoder.decode(tokenizer.decode_bytes(piece[0])))
            yield piece
    finally:  # an error's line, or the shell's, begins a line of its own
        write(console, decoder.decode(b"", final=True) + "\n")


def _listed(folder: Path, console: Console) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; jaxlm train makes runs, below runs/ or at its --out"
        )
    rows = list_runs(folder)
    if rows:
        console.print(runs_table(rows))
    else:
        print_plain(console, f"no runs in {folder}; jaxlm train makes them, below runs/ or at its --out")
    _say_what_ails(rows, console)
    return {"runs": rows}


def _told(path: Path, console: Console) -> dict[str, Any]:
    manifest = read_manifest(path)
    rows = [summarise_run(path) | {"run": str(path)}]
    console.print(runs_table(rows))
    ended = f", ended {manifest['ended']}" if manifest["ended"] else ""
    print_plain(console, escape_controls(f"started {manifest['started']}{ended}; {manifest['seconds']:,.1f} s"))
    for note in manifest["notes"]:
        print_plain(console, escape_controls(f"note: {note}"))
    _say_what_ails(rows, console)
    return {"runs": rows, "manifest": manifest}


def _say_what_ails(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Why runs ended before they were done, and how those of training go on."""
    for row in rows:
        if row["state"] not in ("done", "running"):
            why = f" ({row['why']})" if row["why"] else ""
            is_stopped = row["kind"] == "train" and row["state"] in ("interrupted", "killed")
            remedy = f"; {_how_to_go_on(row['path'])}" if is_stopped else ""
            print_plain(console, escape_controls(f"{row['run']}: {row['state']}{why}{remedy}"))


def _compared(paths: Sequence[Path], plot: Path | None, console: Console) -> dict[str, Any]:
    if plot is not None and (plot.suffix.lower() != ".png" or plot.is_dir()):
        raise ValueError(f"--plot {plot} must name a .png file")
    manifests = {str(path): read_manifest(path) for path in paths}
    rows = [summarise_run(path) | {"run": str(path)} for path in paths]
    console.print(runs_table(rows))
    differing = _differing({path: manifest["config"] for path, manifest in manifests.items()})
    if differing:
        table = _table("", *manifests)
        for name, values in differing.items():
            table.add_row(format_flag(name), *map(_cell, values.values()))
        console.print("", table, sep="\n")
    print_plain(console, "")
    notes = list(_cautions(list(manifests.values())))
    for note in notes:
        print_plain(console, f"note: {note}")
    _say_what_ails(rows, console)
    if plot is None:
        plot = next(path for path in timestamped_paths("comparison", ".png") if not path.exists())
    plot.parent.mkdir(parents=True, exist_ok=True)
    _plot_comparison(plot, paths, rows, manifests)
    print_plain(console, f"look at {plot}")
    return {"runs": rows, "differing": differing, "notes": notes, "plot": str(plot)}


def _differing(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The options in which the runs differ: their values, by run."""
    names = dict.fromkeys(name for config in configs.values() for name in config)
    values = {name: {path: config.get(name) for path, config in configs.items()} for name in names}
    return {name: each for name, each in values.items() if len({repr(value) for value in each.values()}) > 1}


def _cautions(manifests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What of the figures of these runs does not compare."""

    def differ(name: str) -> bool:
        return len({repr(manifest.get(name, {}).get("sha256")) for manifest in manifests}) > 1

    if differ("corpus"):
        yield "these runs are of different texts: their figures do not compare"
    elif differ("tokenizer"):
        yield "these runs have different tokenizers: bits/byte compare, perplexity and nats/token do not"


def _plot_comparison(
    plot: Path,
    paths: Sequence[Path],
    rows: Sequence[Mapping[str, Any]],
    manifests: Mapping[str, Mapping[str, Any]],
) -> None:
    curves: dict[str, list[dict[str, Any]]] = {}
    floors: dict[str, float] = {}
    for path, row in zip(paths, rows, strict=True):
        lines = read_metrics(path / "metrics.jsonl")
        for line in lines:
            curves.setdefault(f"{path}: {line['model']}", []).append(line)
        if not lines and row["perplexity"] is not None:
            floors[f"{path}: {row['model']}"] = row["perplexity"]
    vocab_sizes = {manifest.get("tokenizer", {}).get("vocab_size") for manifest in manifests.values()}
    plot_curves(plot, curves, floors, vocab_sizes.pop() if len(vocab_sizes) == 1 else None)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(_cell(column), overflow="fold")
    return table


def _cell(value: Any) -> Text:
    return Text("-" if value is None else escape_controls(str(value)))


def _in_words(model: Any) -> str:
    described = _described(model)
    return f"{described.pop('class')}({', '.join(f'{name}={value}' for name, value in described.items())})"


def _described(model: Any) -> dict[str, Any]:
    fields = {name: value for name, value in vars(model).items() if isinstance(value, int | float)}
    return {"class": type(model).__name__, **fields}
