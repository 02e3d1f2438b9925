"""The frame of every experiment: options, run directory, results, table and pictures.

An experiment has a record of options, `prepare(options)`, which checks them, and `measure(options, run)`, which
does the work; `experiments/README.md` has an example. The frame checks the shared options, creates the run
directory, runs `measure` on the experiment's device, writes `table.txt`, one PNG per picture and finally
`results.json`, and prints the table. A test calls `run_experiment(prepare, options, console)`.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import tyro
from rich.console import Console

import jaxlm
from experiments.shared.options import BenchmarkOptions, RunOptions, check_options
from jaxlm.runs.directory import create_run, new_run_path
from jaxlm.runs.manifest import describe_environment, write_json
from jaxlm.runs.report.plots import save_figure
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.compilation_cache import enable_compilation_cache
from jaxlm.utils.terminal import make_console, print_plain, run_command

Options = TypeVar("Options", bound=RunOptions)


class Findings(NamedTuple):
    """The outcome of an experiment.

    Args:
        results: figures as JSON values, written to `results.json` together with the options, the versions and the
            device. A key given here replaces the frame's.
        table: the same figures as text, written to `table.txt`; "" writes no file.
        pictures: matplotlib figures by the name of their PNG file, without the suffix.
    """

    results: Mapping[str, Any]
    table: str = ""
    pictures: Mapping[str, Any] = {}


class RunContext(NamedTuple):
    """The run in progress."""

    path: Path
    device: jax.Device
    console: Console

    def log(self, text: str) -> None:
        """Print a line about the progress of the run."""
        print_plain(self.console, text)


@dataclass(frozen=True)
class Experiment:
    """An experiment with checked options.

    Args:
        name: the `kind` in the manifest, and the first part of the run directory's name.
        measure: does the work, on `device`.
        device: None selects the device that `--device auto` selects.
        details: further entries of the manifest, such as the checksum of the text.
    """

    name: str
    measure: Callable[[RunContext], Findings]
    device: jax.Device | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def run_experiment(prepare: Callable[[Options], Experiment], options: Options, console: Console) -> Path:
    """Run an experiment and return its run directory.

    Raises:
        ValueError, OSError: an option is wrong, or the text or the run directory cannot be used. No run directory
            is created.
    """
    begin = time.perf_counter()
    check_options(options)
    experiment = prepare(options)
    device = jaxlm.resolve_device("auto") if experiment.device is None else experiment.device
    path = options.out or new_run_path(experiment.name)
    settings = json.loads(json.dumps(asdict(options), default=str))
    with (
        create_run(
            path, experiment.name, settings, device, overwrite=options.overwrite, **experiment.details
        ) as run,
        jax.default_device(device),
    ):
        findings = experiment.measure(RunContext(run, device, console))
        if findings.table:
            write_atomically(run / "table.txt", findings.table + "\n")
        for name, figure in findings.pictures.items():
            save_figure(figure, run / f"{name}.png")
        common = {"schema_version": 1, "config": settings, **describe_environment(device)}
        write_json(run / "results.json", common | dict(findings.results))
    if findings.table:
        print_plain(console, f"\n{findings.table}\n")
    print_plain(console, f"{time.perf_counter() - begin:.0f} s; results are in {path}")
    return path


def main(options_type: type[Options], prepare: Callable[[Options], Experiment]) -> None:
    """Run an experiment from the command line and exit with its status."""
    options = tyro.cli(options_type, prog=Path(sys.argv[0]).stem)
    if not isinstance(options, BenchmarkOptions):  # benchmarks measure compile times
        enable_compilation_cache()
    # `run_command` replaces a closed standard output, so the console is made within it.
    sys.exit(run_command(lambda: run_experiment(prepare, options, make_console()))[0])
