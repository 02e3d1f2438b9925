"""jaxlm against PyTorch, job by job: how many times longer does PyTorch take for the same work?

    python -m experiments.pytorch_comparison               # about 4 min on 2 CPU cores with nothing else running
    python -m experiments.pytorch_comparison --rows step   # only the rows whose name holds "step"
    python -m experiments.pytorch_comparison --quick       # tiny sizes: that all of it runs, in half a minute

It needs `pip install '.[bench]'`. All contestants of a row take turns in one run, A B A B, compile time apart;
the figures are microseconds a pair, step, token or window. *Best PyTorch* is the better of an idiomatic eager
loop, its windows cut by one gather, and `torch.compile`; *course* is how a course writes it: windows cut in a
Python list, one eager step at a time, a Python loop that samples. The tokens are one fixed Zipf-like stream.

Expected: the ratios of the README's table. "wanted" is what was aimed at; a NO beside it says by how much it is
missed, and the README why.
"""

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

import jaxlm
from experiments.contest import cpu_name, measure, table_text
from jaxlm.console import exit_code, say, standard_output
from jaxlm.files import write_atomically
from jaxlm.runs import describe_environment, new_run_path, write_json


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
    """The folder for results.json and table.txt; None is runs/pytorch-comparison-DATE-TIME."""
    quick: bool = False
    """Tiny sizes, one sample: checks that all of it runs, and measures nothing."""


def run_comparison(config: ComparisonConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, which holds every row as soon as it is measured.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    jobs, torch = import_jobs()
    for name, value in (("--repeats", config.repeats), ("--num-tokens", config.num_tokens)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    builders = jobs.all_jobs(jobs.QUICK if config.quick else jobs.Sizes(num_tokens=config.num_tokens))
    chosen = {name: build for name, build in builders.items() if config.rows in name}
    if not chosen:
        raise ValueError(f"no row's name holds {config.rows!r}; the rows are: {'; '.join(builders)}")
    out = config.out or new_run_path("pytorch-comparison")
    if (out / "results.json").exists():
        raise FileExistsError(f"{out} holds results; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(os.cpu_count())
    rows = {}
    for name, build in chosen.items():
        say(console, f"timing: {name}")
        torch.compiler.reset()  # it keeps eight programs of a function and then compiles no more
        rows[name] = measure(
            build(),
            repeats=1 if config.quick else config.repeats,
            # The threads of PyTorch's OpenMP go on spinning after its last call, and slow whoever comes next.
            rest_seconds=0.0 if config.quick else 0.3,
            on_failure=functools.partial(say, console),
        )
        say(console, table_text({name: rows[name]}))
        write_results(out, config, rows, torch)
    say(console, f"\n{table_text(rows)}\nlook at {out / 'results.json'}")
    return out


def write_results(out: Path, config: ComparisonConfig, rows: Mapping[str, Any], torch: Any) -> None:
    """The rows measured so far, for people and for programs."""
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
    results = {
        "schema_version": 1,
        "config": settings,
        "rows": rows,
        "cpu": {"name": cpu_name(), "cores": os.cpu_count(), "jax_devices": len(jax.devices())},
        "torch": {"version": torch.__version__, "threads": torch.get_num_threads()},
        **describe_environment(jaxlm.resolve_device()),
    }
    write_atomically(out / "table.txt", table_text(rows))
    write_json(out / "results.json", results)


def import_jobs() -> tuple[Any, Any]:
    """The modules `experiments.pytorch_jobs` and `torch`. Raises a ValueError that says how to install torch."""
    try:
        import torch
    except ModuleNotFoundError:
        raise ValueError("torch is not installed: pip install '.[bench]'") from None
    from experiments import pytorch_jobs

    return pytorch_jobs, torch


if __name__ == "__main__":
    options = tyro.cli(ComparisonConfig, prog="pytorch_comparison")
    # Each core a device of its own, over which the vmapped runs are spread; all else runs on the first.
    jax.config.update("jax_num_cpu_devices", os.cpu_count())  # type: ignore[no-untyped-call]
    sys.exit(exit_code(lambda: run_comparison(options, standard_output())))
