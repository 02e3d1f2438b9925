"""The `jaxlm` command: its options, and how it answers. What it does is in `commands.py`, imported late."""

import argparse
import contextlib
import difflib
import io
import itertools
import json
import os
import re
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
from tyro.conf import DisallowNone, OmitArgPrefixes, Positional, arg

from jaxlm.runs.config import TrainConfig, read_config, reset_dependent_options


@dataclass(frozen=True)
class Train:
    """Trains a model in a run's folder; stopped by whatever, --resume goes on to the same bits."""

    training: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    resume: DisallowNone[Path | None] = None
    """Go on with the run in this folder. Its options stay; only --num-steps may grow."""
    config: DisallowNone[Path | None] = None
    """Take the options from this JSON file, as a run's config.json; those typed beside it come first."""
    out: DisallowNone[Path | None] = None
    """The run's folder; None is runs/MODEL-CORPUS-TOKENIZER-DATE-TIME."""
    overwrite: bool = False
    """Replace the run that --out already holds."""
    json: bool = False
    """One JSON document on standard output, all else on standard error."""


@dataclass(frozen=True)
class Evaluate:
    """Nats per token, perplexity and bits per byte of a text under a trained model."""

    model: Annotated[Path, Positional, arg(metavar="MODEL")]
    """A run's folder, a saved model's folder, or an exported file."""
    text: DisallowNone[Path | None] = None
    """A UTF-8 text file; None is the text of the run, or --corpus."""
    corpus: DisallowNone[str | None] = None
    """A named corpus; None is the text of the run, or --text."""
    part: DisallowNone[Literal["validation", "train", "all"] | None] = None
    """Which tokens: the last tenth (or --val-fraction) validates. None: validation of its own text, all of any."""
    checkpoint: Literal["final", "best", "last"] | int = "final"
    """Of a run: final, best (by validation), last, or a number of steps."""
    batch_size: int = 256
    """Windows scored at once; for speed and memory alone."""
    device: str = "auto"
    """auto, cpu, gpu, cuda, rocm, tpu or metal."""
    json: bool = False
    """One JSON document on standard output, all else on standard error."""


@dataclass(frozen=True)
class Sample:
    """Text drawn from a trained model; on a terminal it appears as it is drawn."""

    model: Annotated[Path, Positional, arg(metavar="MODEL")]
    """A run's folder, a saved model's folder, or an exported file."""
    prompt: str = ""
    """What to go on from. Line ends come before one that is shorter than the model's context."""
    num_tokens: int = 200
    """Tokens to draw after the prompt."""
    temperature: float = 1.0
    """Divides the logits: below 1 is bolder, 0 takes the likeliest token each time."""
    top_k: DisallowNone[int | None] = None
    """Draw among the k likeliest tokens alone."""
    top_p: DisallowNone[float | None] = None
    """Draw among the fewest tokens that hold this share of the probability, in (0, 1]."""
    streams: int = 1
    """Texts to draw, side by side."""
    seed: int = 0
    """Every random choice follows from it: 0 to 2**32 - 1."""
    checkpoint: Literal["final", "best", "last"] | int = "final"
    """Of a run: final, best (by validation), last, or a number of steps."""
    device: str = "auto"
    """auto, cpu, gpu, cuda, rocm, tpu or metal."""
    json: bool = False
    """One JSON document on standard output, all else on standard error."""


@dataclass(frozen=True)
class Tokenize:
    """Trains a tokenizer, or takes a saved one, and shows what it makes of a text."""

    text: DisallowNone[Path | None] = None
    """A UTF-8 text file; None is --corpus."""
    corpus: str = "tinyshakespeare"
    """A named corpus."""
    tokenizer: Literal["char", "byte", "bpe"] = "bpe"
    """The kind to train on the text."""
    vocab_size: DisallowNone[int | None] = None
    """Tokens of a BPE vocabulary, at least 256; None is 4096."""
    load: DisallowNone[Path | None] = None
    """A saved tokenizer (tokenizer.json, or a folder that holds it), instead of one trained here."""
    encode: DisallowNone[str | None] = None
    """Show how this is cut into tokens."""
    out: DisallowNone[Path | None] = None
    """Save the tokenizer to this file."""
    json: bool = False
    """One JSON document on standard output, all else on standard error."""


@dataclass(frozen=True)
class Corpus:
    """The named corpora: list them, fetch one ahead of time, verify what is cached, and where it lies."""

    action: Positional[Literal["list", "fetch", "verify"]] = "list"
    """list: where each lies. fetch: have it here before the network is gone. verify: compare with its sha256."""
    name: Annotated[str | None, Positional, DisallowNone, arg(metavar="[NAME]")] = None
    """The corpus; None is all of them."""
    json: bool = False
    """One JSON document on standard output, all else on standard error."""


@dataclass(frozen=True)
class Runs:
    """Lists runs with their headline figures; two or more are compared in one table and one plot."""

    paths: Annotated[tuple[Path, ...], Positional, arg(metavar="[RUN ...]")] = (Path("runs"),)
    """One folder of runs, to list them; or the folders of runs, to show one or compare several."""
    plot: DisallowNone[Path | None] = None
    """Where the comparison's plot goes, a .png; None is runs/comparison-DATE-TIME.png."""
    json: bool = False
    """One JSON document on standard output, all else on standard error."""


@dataclass(frozen=True)
class Devices:
    """The devices that JAX offers here, and which of them "auto" takes."""

    probe: bool = False
    """Try every plugin again, whatever was found before."""
    json: bool = False
    """One JSON document on standard output, all else on standard error."""


@dataclass(frozen=True)
class Export:
    """Writes a trained model as one safetensors file, to be mailed."""

    model: Annotated[Path, Positional, arg(metavar="MODEL")]
    """A run's folder, a saved model's folder, or an exported file."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """The file to write, as model.safetensors."""
    checkpoint: Literal["final", "best", "last"] | int = "final"
    """Of a run: final, best (by validation), last, or a number of steps."""
    overwrite: bool = False
    """Replace the file that is there."""
    json: bool = False
    """One JSON document on standard output, all else on standard error."""


@dataclass(frozen=True)
class Import:
    """Reads a file that `jaxlm export` wrote, checks it, and saves it as a model's folder."""

    file: Annotated[Path, Positional, arg(metavar="FILE")]
    """The file that `jaxlm export` wrote."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """The folder to save the model to."""
    json: bool = False
    """One JSON document on standard output, all else on standard error."""


Command = Train | Evaluate | Sample | Tokenize | Corpus | Runs | Devices | Export | Import


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 done, 2 what the user can mend, 130 interrupted.

    Raises:
        SystemExit: help was asked for, and has been printed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    from jaxlm.utils.terminal import run_command

    if "--json" not in words:
        return run_command(lambda: _run(words))
    document: dict[str, Any] = {}
    code = run_command(lambda: document.update(_run(words)), on_failure=lambda line: document.update(error=line))
    text = json.dumps(document, allow_nan=False, indent=2)
    return run_command(lambda: print(text, flush=True)) or code


def parse(words: Sequence[str]) -> Command:
    """The command that the words stand for; the options of a run or a file are the defaults of `train`'s.

    Raises:
        SystemExit: help was asked for, and has been printed.
        ValueError: they are not understood; or --resume or --config name no options.
        OSError: what they name cannot be read.
    """
    _check_first(words)
    train = Train(training=_known_options(words)) if words[0] == "train" else Train()
    union: Any = Annotated[Train, tyro.conf.subcommand("train", default=train)]
    for name, each in _COMMANDS.items():
        if each is not Train:
            union |= Annotated[each, tyro.conf.subcommand(name)]
    for record in (TrainConfig, *_COMMANDS.values()):
        record.__annotations__.update({name: _as_union(hint) for name, hint in record.__annotations__.items()})
    config = (tyro.conf.FlagCreatePairsOff,)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command: Command = tyro.cli(
                union, prog="jaxlm", description=_DESCRIPTION, args=list(words), config=config
            )
    except SystemExit as stop:
        if stop.code:
            raise ValueError(f"{_in_one_line(said.getvalue())}; see jaxlm {words[0]} --help") from None
        if list(words[:2]) == ["--tyro-print-completion", "bash"]:
            print(_FILES_TOO)
        raise
    except AssertionError as error:  # tyro's way to say that it writes no completion for this shell
        raise ValueError(str(error)) from None
    return command


_COMMANDS: dict[str, type[Command]] = {
    "train": Train,
    "evaluate": Evaluate,
    "sample": Sample,
    "tokenize": Tokenize,
    "corpus": Corpus,
    "runs": Runs,
    "devices": Devices,
    "export": Export,
    "import": Import,
}
# Where tyro's completion in bash has nothing to offer, as for a run's folder, it offers an empty word.
_FILES_TOO = r"""
_jaxlm_of_tyro=$(complete -p jaxlm | sed 's/.* -F \([^ ]*\) .*/\1/')
_jaxlm() { "$_jaxlm_of_tyro" "$@"; [[ -n "${COMPREPLY[*]}" ]] || COMPREPLY=(); }
complete -o default -F _jaxlm jaxlm
"""
_DESCRIPTION = "Next-token language models: train them, resume, evaluate, sample, compare."


def _run(words: Sequence[str]) -> dict[str, Any]:
    """Does what the words say, and returns what there is to tell of it, as plain JSON."""
    is_first = "jax" not in sys.modules
    command = parse(words)
    if is_first and _is_for_cpu(command):
        _start_cpu_alone()
    with _late_interrupt():
        from jaxlm.cli import commands
        from jaxlm.runs.metrics_log import replace_nonfinite
        from jaxlm.utils.compilation_cache import enable_compilation_cache
        from jaxlm.utils.terminal import stderr_console, stdout_console
    actions: dict[type[Command], Callable[..., dict[str, Any]]] = {
        Train: commands.train_model,
        Evaluate: commands.evaluate_text,
        Sample: commands.sample_text,
        Tokenize: commands.inspect_tokenizer,
        Corpus: commands.tend_corpora,
        Runs: commands.show_runs,
        Devices: commands.show_devices,
        Export: commands.export_file,
        Import: commands.import_file,
    }
    options = {name: value for name, value in vars(command).items() if name not in ("json", "config")}
    enable_compilation_cache()
    console = stderr_console() if command.json else stdout_console()
    with warnings.catch_warnings():
        # On most accelerators JAX warns at each compilation that they take over no array: a copy more, no news.
        warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
        document: dict[str, Any] = replace_nonfinite(actions[type(command)](**options, console=console))
    return document


def _is_for_cpu(command: Command) -> bool:
    if isinstance(command, Export | Import):
        return True
    device = getattr(command.training if isinstance(command, Train) else command, "device", None)
    return device == "cpu" or (device == "auto" and os.environ.get("JAXLM_DEVICE") == "cpu")


def _start_cpu_alone() -> None:
    """Tells JAX, unless the user told it another, so that no plugin is loaded, and none has to be tried."""
    if os.environ.get("JAX_PLATFORMS"):
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # to read the options of a run that is resumed
        import jax

        jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _late_interrupt() -> Iterator[None]:
    """Within it a Ctrl-C is put off until its end: one that comes while JAX is imported aborts the process."""
    came: list[int] = []
    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda signum, frame: came.append(signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if came:
        raise KeyboardInterrupt


def _check_first(words: Sequence[str]) -> None:
    """The command comes first: tyro's words for what else stands there are hard to understand."""
    names = ", ".join(_COMMANDS)
    first = words[0] if words else ""
    if first in _COMMANDS or first in ("-h", "--help") or first.startswith("--tyro-"):
        return
    if not words:
        raise ValueError(f"name a command: {names}; see jaxlm --help")
    if first.startswith("-"):
        raise ValueError(f"{first} stands before the command; put it behind, as in: jaxlm runs {first}")
    close = "".join(f" (is it {name}?)" for name in difflib.get_close_matches(first, _COMMANDS, n=1))
    raise ValueError(f"there is no command {first!r}{close}; there are {names}; see jaxlm --help")


def _known_options(words: Sequence[str]) -> TrainConfig:
    scanner = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scanner.add_argument("--resume", type=Path, nargs="?")  # without a value: that is tyro's to tell
    scanner.add_argument("--config", type=Path, nargs="?")
    choices = ("model", "tokenizer", "corpus", "text")
    for name in choices:
        scanner.add_argument(f"--{name}", nargs="?")
    known, _ = scanner.parse_known_args(list(words))
    if known.resume is not None and known.config is not None:
        raise ValueError("--resume takes the options of its run; leave --config out")
    if known.resume is not None:
        with _late_interrupt():
            from jaxlm.runs.load import read_run_config
        return read_run_config(known.resume)
    if known.config is None:
        return TrainConfig()
    try:
        typed = {name: getattr(known, name) for name in choices if getattr(known, name) is not None}
        return reset_dependent_options(read_config(known.config), **typed)
    except OSError as error:
        raise OSError(
            f"cannot read {known.config} ({error.strerror}); "
            "--config takes a JSON file of options, as a run's config.json"
        ) from None


def _as_union(hint: Any) -> Any:
    """`X | None` as the equal `Optional[X]`, whose defaults tyro checks without typeguard: 0.1 s to import."""
    if isinstance(hint, types.UnionType):
        return Union[get_args(hint)]  # noqa: UP007
    if get_origin(hint) is Annotated:
        return Annotated[(_as_union(get_args(hint)[0]), *hint.__metadata__)]
    return hint


def _in_one_line(boxed: str) -> str:
    """What tyro says in a box: what is wrong, and what it is like; without its examples and its help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    lines = [line.strip("│ ") for line in plain.splitlines()]
    num_title_lines = 1 if plain.startswith("╭") else 2  # in ASCII it has a line below it
    said = itertools.takewhile(lambda line: line.strip("─-"), lines[num_title_lines:])
    wrong = " ".join(said).removeprefix("Error parsing ").replace(". Expected", ", expected").rstrip(".")
    wrong = wrong[:1].lower() + wrong[1:] or "the options are not understood"
    if "Perhaps you meant:" not in lines:
        return wrong
    return f"{wrong}; did you mean {lines[lines.index('Perhaps you meant:') + 1]}?"
