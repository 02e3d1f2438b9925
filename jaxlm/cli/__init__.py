"""The `jaxlm` command: parse the command line, run a subcommand, and print its result or error."""

import contextlib
import gc
import itertools
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from jaxlm.cli.corpus import CorpusOptions, manage_corpora
from jaxlm.cli.count import CountOptions, count_tokens
from jaxlm.cli.course import CourseOptions, run_course
from jaxlm.cli.devices import DevicesOptions, show_devices
from jaxlm.cli.encode import EncodeOptions, encode_paths
from jaxlm.cli.evaluate import EvaluateOptions, evaluate_text
from jaxlm.cli.exchange import ExportOptions, ImportOptions, export_file, import_file
from jaxlm.cli.page import PageOptions, write_page
from jaxlm.cli.processes import connected, run_local_processes
from jaxlm.cli.runs import RunsOptions, show_runs
from jaxlm.cli.sample import SampleOptions, sample_text
from jaxlm.cli.score import ScoreOptions, score_text
from jaxlm.cli.shared import TYRO_CONFIG
from jaxlm.cli.sweep import SweepOptions, run_sweep
from jaxlm.cli.tokenize import TokenizeOptions, inspect_tokenizer
from jaxlm.cli.train import TrainingOptions, TrainOptions, parse_over_saved_options, train_model
from jaxlm.runs.metrics_log import replace_nonfinite
from jaxlm.utils.processes import end_with_parent
from jaxlm.utils.signals import catch_stop_signals
from jaxlm.utils.terminal import escape_controls, make_console, run_command

# Each subcommand's options record, and the function that takes it and a console and returns a JSON document.
COMMANDS: dict[str, tuple[type, Callable[..., dict[str, Any]]]] = {
    "train": (TrainOptions, train_model),
    "sweep": (SweepOptions, run_sweep),
    "evaluate": (EvaluateOptions, evaluate_text),
    "score": (ScoreOptions, score_text),
    "sample": (SampleOptions, sample_text),
    "tokenize": (TokenizeOptions, inspect_tokenizer),
    "encode": (EncodeOptions, encode_paths),
    "count": (CountOptions, count_tokens),
    "corpus": (CorpusOptions, manage_corpora),
    "runs": (RunsOptions, show_runs),
    "devices": (DevicesOptions, show_devices),
    "page": (PageOptions, write_page),
    "export": (ExportOptions, export_file),
    "import": (ImportOptions, import_file),
    "course": (CourseOptions, run_course),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 is success, 1 an exercise that does not pass or a sweep with a run that is not done, 2 an error that the user
    can fix, 130 an interruption, and 75 an interruption of one run of a sweep (EX_TEMPFAIL: start it again). A
    process that lost another process of its run ends with 69 (EX_UNAVAILABLE). `arguments` are the words after
    `jaxlm`; None means `sys.argv[1:]`. Raises SystemExit after tyro has printed help or a usage error.
    """
    if arguments is None:  # the process is the command's own
        # With Python's defaults, garbage collection takes 12 % of the 4 s of `jaxlm train --num-steps 500`.
        gc.set_threshold(100_000, 50, 100)
    words = list(sys.argv[1:] if arguments is None else arguments)
    document: dict[str, Any] = {}
    code, message = run_command(lambda: document.update(_run(words)))
    if message and "--json" in words:
        with contextlib.suppress(OSError):  # the error was that of printing to a full disk
            print(json.dumps({"error": message}, indent=2), flush=True)
    if code == 130 and words[:1] == ["sweep"] and any(word.split("=")[0] == "--index" for word in words):
        return 75
    return code or int(document.get("passed") is False)


def _parse(words: list[str]) -> Any:
    """Return the options of the subcommand that the words name."""
    escaped = [escape_controls(word) for word in words]
    if escaped != words:
        _parse(escaped)  # if the words are not valid, print them without control characters
    try:
        return tyro.extras.subcommand_cli_from_dict(
            {name: record for name, (record, _) in COMMANDS.items()},
            prog="jaxlm",
            description="Train, resume, evaluate, sample and compare next-token language models.",
            args=words,
            config=TYRO_CONFIG,
        )
    except AssertionError as error:  # --tyro-print-completion of an unknown shell
        raise ValueError(error) from None
    except SystemExit as stop:
        for option, text in itertools.pairwise(words if stop.code else ()):
            if option in ("--prompt", "--encode") and text.startswith("-"):
                hint = "A text that starts with a dash needs an equals sign"
                print(f"{hint}: {shlex.quote(f'{option}={text}')}", file=sys.stderr)
        if stop.code and "--json" in words:
            print(json.dumps({"error": "these arguments are not valid; standard error says why"}))
        raise


def _run(words: list[str]) -> dict[str, Any]:
    """Run the subcommand, print its JSON document if requested, and return it."""
    options = _parse(words)
    if isinstance(options, TrainOptions) and options.sharing.processes is not None:
        run_local_processes(words, options.sharing.processes)  # one of them prints the document
        return {}
    end_with_parent()  # if `jaxlm train --processes` or `jaxlm sweep --workers` started this process
    if not isinstance(options, CorpusOptions | CourseOptions):
        options = _start_jax(words, options)
    function = dict(COMMANDS.values())[type(options)]
    sharing = connected(options.sharing) if isinstance(options, TrainOptions) else contextlib.nullcontext()
    with warnings.catch_warnings(), sharing:
        # Harmless: most accelerators cannot reuse donated buffers, and JAX warns at every compilation.
        warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
        document = function(options, make_console(stderr=options.json))
    if options.json and document:
        print(json.dumps(replace_nonfinite(document), allow_nan=False, indent=2), flush=True)
    return document


def _start_jax(words: Sequence[str], options: Any) -> Any:
    """Import and configure JAX, and return the options, with those of `--resume` or `--config` as defaults."""
    is_jax_new = "jax" not in sys.modules
    with catch_stop_signals() as stop_requested:  # a KeyboardInterrupt during `import jax` would abort the process
        import jax

        import jaxlm.models  # noqa: F401  imports flax
        from jaxlm.devices.plugins import disable_plugins, installed_plugins
        from jaxlm.utils.compilation_cache import enable_compilation_cache
    if stopped := stop_requested():
        raise KeyboardInterrupt(stopped)
    if isinstance(options, TrainingOptions):
        options = parse_over_saved_options(words[1:], options)
    if is_jax_new and needs_only_cpu(options) and (os.environ.get("JAX_PLATFORMS") or "cpu") == "cpu":
        jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]  # starts no accelerator plugin
        disable_plugins(installed_plugins())  # JAX would still import them
    enable_compilation_cache()
    return options


def needs_only_cpu(options: Any) -> bool:
    """Return whether the subcommand needs no accelerator: `--device cpu`, or export, import and page."""
    device = getattr(getattr(options, "training", options), "device", None)
    return (os.environ.get("JAXLM_DEVICE") if device == "auto" else device) == "cpu"
