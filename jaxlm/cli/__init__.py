"""The `jaxlm` command: parse the command line, run a subcommand, and print its result or error."""

import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from jaxlm.cli.parser import COMMANDS, parse
from jaxlm.cli.startup import defer_interrupt, needs_only_cpu, use_only_cpu
from jaxlm.utils.terminal import run_command

__all__ = ["main", "parse"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 success, 2 an error that the user can fix, 130 interrupted.

    Args:
        arguments: words after `jaxlm`; None means `sys.argv[1:]`.

    Raises:
        SystemExit: help was requested and has been printed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--json" not in words:
        return run_command(lambda: _run(words))
    document: dict[str, Any] = {}
    code = run_command(lambda: document.update(_run(words)), on_failure=lambda line: document.update(error=line))
    text = json.dumps(document, allow_nan=False, indent=2)
    return run_command(lambda: print(text, flush=True)) or code


def _run(words: Sequence[str]) -> dict[str, Any]:
    """Parse the words, run the subcommand, and return its JSON document."""
    is_jax_new = "jax" not in sys.modules
    options = parse(words)
    if is_jax_new and needs_only_cpu(options):
        use_only_cpu()
    with defer_interrupt():
        import jaxlm.models  # noqa: F401  imports jax and flax
        from jaxlm.runs.metrics_log import replace_nonfinite
        from jaxlm.utils.compilation_cache import enable_compilation_cache
        from jaxlm.utils.terminal import make_console
    function = dict(COMMANDS.values())[type(options)]
    enable_compilation_cache()
    console = make_console(stderr=options.json)
    with warnings.catch_warnings():
        # Harmless: most accelerators cannot reuse donated buffers, and JAX warns at every compilation.
        warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
        document: dict[str, Any] = replace_nonfinite(function(options, console))
    return document
