"""Parse the command line into the options record of one subcommand."""

import argparse
import contextlib
import difflib
import io
import itertools
import re
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import tyro

from jaxlm.cli.corpus import CorpusOptions, manage_corpora
from jaxlm.cli.devices import DevicesOptions, show_devices
from jaxlm.cli.evaluate import EvaluateOptions, evaluate_text
from jaxlm.cli.exchange import ExportOptions, ImportOptions, export_file, import_file
from jaxlm.cli.runs import RunsOptions, show_runs
from jaxlm.cli.sample import SampleOptions, sample_text
from jaxlm.cli.startup import defer_interrupt
from jaxlm.cli.tokenize import TokenizeOptions, inspect_tokenizer
from jaxlm.cli.train import TrainOptions, train_model
from jaxlm.runs.config import TrainConfig, read_config, reset_dependent_options

# Each subcommand's options record, and the function that takes it and a console and returns a JSON document.
COMMANDS: dict[str, tuple[type, Callable[..., dict[str, Any]]]] = {
    "train": (TrainOptions, train_model),
    "evaluate": (EvaluateOptions, evaluate_text),
    "sample": (SampleOptions, sample_text),
    "tokenize": (TokenizeOptions, inspect_tokenizer),
    "corpus": (CorpusOptions, manage_corpora),
    "runs": (RunsOptions, show_runs),
    "devices": (DevicesOptions, show_devices),
    "export": (ExportOptions, export_file),
    "import": (ImportOptions, import_file),
}

_DESCRIPTION = "Train, resume, evaluate, sample and compare next-token language models."

# Tyro's bash completion suggests an empty word where it has no suggestion. Suggest nothing instead, so that bash
# completes file names.
_COMPLETE_FILES = r"""
_jaxlm_options=$(complete -p jaxlm | sed 's/.* -F \([^ ]*\) .*/\1/')
_jaxlm() { "$_jaxlm_options" "$@"; [[ -n "${COMPREPLY[*]}" ]] || COMPREPLY=(); }
complete -o default -F _jaxlm jaxlm
"""


def parse(words: Sequence[str]) -> Any:
    """Return the options record of the subcommand that the words name.

    For `train`, the defaults are the options of the run to `--resume`, or those in the file `--config`.

    Raises:
        SystemExit: help was requested and has been printed.
        ValueError, OSError: the words, the run or the file are not valid.
    """
    _check_command(words)
    train = TrainOptions(training=_default_config(words) if words[0] == "train" else TrainConfig())
    union: Any = Annotated[TrainOptions, tyro.conf.subcommand("train", default=train)]
    for name, (record, _) in COMMANDS.items():
        if name != "train":
            union |= Annotated[record, tyro.conf.subcommand(name)]
    for record in (TrainConfig, *(record for record, _ in COMMANDS.values())):
        hints = record.__annotations__
        hints.update({name: _with_typing_union(hint) for name, hint in hints.items()})
    config, message = (tyro.conf.FlagCreatePairsOff,), io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(union, prog="jaxlm", description=_DESCRIPTION, args=list(words), config=config)
    except SystemExit as stop:
        if stop.code:
            raise ValueError(f"{_to_one_line(message.getvalue())}; see jaxlm {words[0]} --help") from None
        if list(words[:2]) == ["--tyro-print-completion", "bash"]:
            print(_COMPLETE_FILES)
        raise
    except AssertionError as error:  # how tyro reports a shell that it cannot complete for
        raise ValueError(str(error)) from None


def _check_command(words: Sequence[str]) -> None:
    """Raise a ValueError unless a subcommand comes first. Tyro's own message is hard to understand."""
    names = ", ".join(COMMANDS)
    first = words[0] if words else ""
    if first in COMMANDS or first in ("-h", "--help") or first.startswith("--tyro-"):
        return
    if not words:
        raise ValueError(f"missing command; choose one of {names}; see jaxlm --help")
    if first.startswith("-"):
        raise ValueError(f"{first} must come after the command, as in: jaxlm runs {first}")
    similar = "".join(f" (did you mean {name}?)" for name in difflib.get_close_matches(first, COMMANDS, n=1))
    raise ValueError(f"unknown command {first!r}{similar or f'; choose one of {names}'}; see jaxlm --help")


def _default_config(words: Sequence[str]) -> TrainConfig:
    """Return the defaults of `train`: the options of `--resume`, those of `--config`, or TrainConfig()."""
    scanner = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("resume", "config"):
        scanner.add_argument(f"--{name}", type=Path, nargs="?")  # tyro reports a missing value
    choices = ("model", "tokenizer", "corpus", "text")  # other options depend on them
    for name in choices:
        scanner.add_argument(f"--{name}", nargs="?")
    found, _ = scanner.parse_known_args(list(words))
    if found.resume is not None and found.config is not None:
        raise ValueError("--resume reads the options from the run; remove --config")
    if found.resume is not None:
        with defer_interrupt():
            from jaxlm.runs.load import read_run_config
        return read_run_config(found.resume)
    if found.config is None:
        return TrainConfig()
    try:
        typed = {name: getattr(found, name) for name in choices if getattr(found, name) is not None}
        return reset_dependent_options(read_config(found.config), **typed)
    except OSError as error:
        raise OSError(
            f"cannot read {found.config} ({error.strerror}); "
            "--config must name a JSON file of options, such as a run's config.json"
        ) from None


def _with_typing_union(hint: Any) -> Any:
    """Replace `X | None` by `Optional[X]`: of the latter, tyro checks defaults without typeguard (0.1 s)."""
    if isinstance(hint, types.UnionType):
        return Union[get_args(hint)]  # noqa: UP007
    if get_origin(hint) is Annotated:
        return Annotated[(_with_typing_union(get_args(hint)[0]), *hint.__metadata__)]
    return hint


def _to_one_line(box: str) -> str:
    """Return the error and the suggestion from the box that tyro prints, without examples and help."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│ ") for line in plain.splitlines()]
    num_title_lines = 1 if plain.startswith("╭") else 2  # in ASCII a rule follows the title
    paragraph = itertools.takewhile(lambda line: line.strip("─-"), lines[num_title_lines:])
    error = " ".join(paragraph).removeprefix("Error parsing ").replace(". Expected", ", expected").rstrip(".")
    error = error[:1].lower() + error[1:] or "invalid options"
    if "Perhaps you meant:" not in lines:
        return error
    return f"{error} (did you mean {lines[lines.index('Perhaps you meant:') + 1]}?)"
