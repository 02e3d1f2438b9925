"""How many times longer does PyTorch take for the same work as jaxlm?

    python -m experiments.speed.pytorch.compare               # about 5 min on 2 CPU cores
    python -m experiments.speed.pytorch.compare --rows step   # only the workloads whose title contains "step"
    python -m experiments.speed.pytorch.compare --quick       # tiny sizes, half a minute

Requires PyTorch, see `experiments/speed/README.md`. Everything runs on the CPU. All variants of a workload are
timed in turn, A B A B, with compile time apart. Figures are microseconds per pair, step, token or window. *Best
PyTorch* is the faster of an idiomatic eager loop, which cuts its windows by one gather, and `torch.compile`.
*Course* is written as in a course: windows cut in a Python list, one eager step at a time, a Python loop that
samples. The tokens are a fixed stream with Zipf's frequencies.

Expected: the ratios in `experiments/speed/README.md`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jaxlm
from experiments.shared.benchmark import Benchmark, run_benchmarks
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.machine import cpu_name, import_torch, num_cores
from experiments.shared.options import BenchmarkOptions


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions(BenchmarkOptions):
    """Time jaxlm against PyTorch, workload by workload."""

    rows: str = ""
    """Only the workloads whose title contains this text."""


def prepare(options: ComparisonOptions) -> Experiment:
    """Check the options and import PyTorch."""
    torch = import_torch()
    from experiments.speed.pytorch import workloads

    sizes = workloads.QUICK if options.quick else workloads.Sizes()
    builders = workloads.make_workloads(sizes)
    chosen = {title: build for title, build in builders.items() if options.rows in title}
    if not chosen:
        raise ValueError(f"no workload's title contains {options.rows!r}; the workloads are {'; '.join(builders)}")
    return Experiment("pytorch-comparison", partial(measure, options, torch, chosen), jaxlm.resolve_device("cpu"))


def measure(
    options: ComparisonOptions, torch: Any, builders: dict[str, Callable[[], Benchmark]], run: RunContext
) -> Findings:
    """Time each workload."""
    # PyTorch's OpenMP threads keep spinning after its last call, and slow down the next variant.
    repeats, rest_seconds = (1, 0.0) if options.quick else (options.repeats, 0.3)
    findings = run_benchmarks(builders, run, repeats=repeats, rest_seconds=rest_seconds)
    machine = {
        "cpu": {"name": cpu_name(), "cores": num_cores()},
        "torch": {"version": torch.__version__, "threads": torch.get_num_threads()},
    }
    return findings._replace(results=machine | dict(findings.results))


if __name__ == "__main__":
    main(ComparisonOptions, prepare)
