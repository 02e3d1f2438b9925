"""jaxlm against PyTorch, job by job: how many times longer does PyTorch take for the same work?

    python -m experiments.speed.pytorch.compare               # about 5 min on 2 CPU cores with nothing else running
    python -m experiments.speed.pytorch.compare --rows step   # only the rows whose name holds "step"
    python -m experiments.speed.pytorch.compare --quick       # tiny sizes: that all of it runs, in half a minute

It needs `pip install '.[bench]'`. Everything runs on the CPU. All variants of a row take turns in one run,
A B A B, compile time apart; the figures are microseconds a pair, step, token or window. *Best PyTorch* is the
better of an idiomatic eager loop, its windows cut by one gather, and `torch.compile`; *course* is how a course
writes it: windows cut in a Python list, one eager step at a time, a Python loop that samples. The tokens are one
fixed Zipf-like stream.

Expected: the ratios of the README's table. "wanted" is what was aimed at; a NO beside it says by how much it is
missed, and the README why.
"""

import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

import jaxlm
from experiments.shared.benchmark import format_benchmarks, run_benchmark
from experiments.shared.machine import cpu_name, find_torch, num_cores
from jaxlm.runs.directory import check_run_path, create_run, new_run_path
from jaxlm.runs.manifest import describe_environment, write_json
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.terminal import print_plain, run_command, stdout_console


@dataclass(frozen=True)
class ComparisonConfig:
    """Times jaxlm against PyTorch, job by job."""

    rows: str = ""
    """Only the rows whose name holds this."""
    repeats: int = 7
    """Samples of each contestant."""
    num_tokens: int = 20_000
    """Tokens that a call of jaxlm's `sample` draws for one stream."""
    out: Path | None = None
    """The run's folder; None is runs/pytorch-comparison-DATE-TIME."""
    overwrite: bool = False
    """Replace the run that --out already holds."""
    quick: bool = False
    """Tiny sizes, one sample: checks that all of it runs, measures nothing and targets nothing."""


def run_comparison(config: ComparisonConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, which holds every row as soon as it is measured.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    if config.out is not None:
        check_run_path(config.out, overwrite=config.overwrite)
    for name, value in (("--repeats", config.repeats), ("--num-tokens", config.num_tokens)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    jobs, torch = import_jobs()
    builders = jobs.all_jobs(jobs.QUICK if config.quick else jobs.Sizes(num_tokens=config.num_tokens))
    chosen = {name: build for name, build in builders.items() if config.rows in name}
    if not chosen:
        raise ValueError(f"no row's name holds {config.rows!r}; the rows are: {'; '.join(builders)}")
    out = config.out or new_run_path("pytorch-comparison")
    settings = json.loads(json.dumps(asdict(config), default=str))
    cpu = jaxlm.resolve_device("cpu")
    rows: dict[str, Any] = {}
    with (
        create_run(out, "pytorch-comparison", settings, cpu, overwrite=config.overwrite),
        jax.default_device(cpu),  # that is where PyTorch's tensors are
    ):
        for name, build in chosen.items():
            print_plain(console, f"timing: {name}")
            torch.compiler.reset()  # it keeps eight programs of a function and then compiles no more
            row = build()
            rows[name] = run_benchmark(
                row._replace(targets=()) if config.quick else row,
                repeats=1 if config.quick else config.repeats,
                # The threads of PyTorch's OpenMP go on spinning after its last call, and slow whoever comes next.
                rest_seconds=0.0 if config.quick else 0.3,
                on_failure=functools.partial(print_plain, console),
            )
            print_plain(console, format_benchmarks({name: rows[name]}))
            write_results(out, settings, rows, torch, cpu)
    print_plain(console, f"\n{format_benchmarks(rows)}\nlook at {out / 'results.json'}")
    return out


def write_results(
    out: Path, settings: Mapping[str, Any], rows: Mapping[str, Any], torch: Any, cpu: jax.Device
) -> None:
    """The rows measured so far, for people and for programs."""
    results = {
        "schema_version": 1,
        "config": settings,
        "rows": rows,
        "cpu": {"name": cpu_name(), "cores": num_cores(), "jax_devices": len(jax.devices("cpu"))},
        "torch": {"version": torch.__version__, "threads": torch.get_num_threads()},
        **describe_environment(cpu),
    }
    write_atomically(out / "table.txt", format_benchmarks(rows))
    write_json(out / "results.json", results)


def import_jobs() -> tuple[Any, Any]:
    """The modules `experiments.speed.pytorch.workloads` and `torch`. Raises a ValueError that says why there is no torch."""
    torch, why_not = find_torch()
    if torch is None:
        raise ValueError(why_not)
    from experiments.speed.pytorch import workloads as pytorch_jobs

    return pytorch_jobs, torch


if __name__ == "__main__":
    options = tyro.cli(ComparisonConfig, prog="pytorch_comparison")
    # Each core a device of its own, over which the vmapped runs are spread; all else runs on the first.
    jax.config.update("jax_num_cpu_devices", num_cores())  # type: ignore[no-untyped-call]
    sys.exit(run_command(lambda: run_comparison(options, stdout_console())))
