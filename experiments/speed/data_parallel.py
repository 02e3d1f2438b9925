"""When does it pay to share each batch between processes? Predicted and measured steps of 1, 2 and 4 processes.

    python -m experiments.speed.data_parallel            # 8 minutes on 2 CPU cores
    python -m experiments.speed.data_parallel --quick    # 1 minute

The MLP at V=4096, N=3, D=32, H=64 (403,520 parameters). Each of P local processes trains on B / P rows of each
batch and averages its gradient with the others. The prediction is the sum of two times that are measured apart: a
step on B / P rows in P processes at once that do not communicate, and an all-reduce of the gradient.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import BenchmarkOptions
from experiments.shared.report import format_records
from jaxlm.utils.processes import find_free_port, run_together

_PROGRAM = "experiments.speed.data_parallel_process"


@dataclass(frozen=True, kw_only=True)
class DataParallelOptions(BenchmarkOptions):
    """Time the training steps of 1, 2 and 4 processes that share each batch."""


def prepare(options: DataParallelOptions) -> Experiment:
    """Check the options."""
    return Experiment("data-parallel", partial(measure, options))


def measure(options: DataParallelOptions, run: RunContext) -> Findings:
    """Time each batch size with each number of processes."""
    num_steps, repeats = (10, 1) if options.quick else (200, options.repeats)
    rows = list(time_all([256] if options.quick else [128, 1024, 8192], num_steps, repeats, run))
    columns = {
        "batch": "{batch_size}", "processes": "{num_processes}",
        "alone (ms)": "{alone:.2f}", "all-reduce (ms)": "{all_reduce:.2f}", "predicted (ms)": "{predicted:.2f}",
        "measured (ms)": "{together:.2f}", "grad shards (ms)": "{grad_shards:.2f}",
        "predicted efficiency": "{predicted_efficiency:.2f}", "measured efficiency": "{efficiency:.2f}",
    }  # fmt: skip
    return Findings({"rows": rows}, format_records(rows, columns))


def time_all(batch_sizes: list[int], num_steps: int, repeats: int, run: RunContext) -> Iterator[dict[str, Any]]:
    """Yield the milliseconds of each combination. Efficiency is T(1) / (P T(P))."""
    for batch_size in batch_sizes:
        single = None
        for num_processes in (1, 2) if repeats == 1 else (1, 2, 4):
            times = time_processes(num_processes, batch_size, max(num_steps * 128 // batch_size, 10), repeats)
            single = single or times
            run.log(f"batch {batch_size}, {num_processes} processes: {times['together']:.2f} ms a step")
            times["predicted"] = times["alone"] + times["all_reduce"] * (num_processes > 1)
            speedups = {"predicted_efficiency": "predicted", "efficiency": "together"}
            shares = {name: single["alone"] / times[time] / num_processes for name, time in speedups.items()}
            yield {"batch_size": batch_size, "num_processes": num_processes, **times, **shares}


def time_processes(num_processes: int, batch_size: int, num_steps: int, repeats: int) -> dict[str, float]:
    """Return what process 0 of `data_parallel_process` measures."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        out, port = Path(folder, "times.json"), find_free_port()
        numbers = [port, batch_size, num_steps, repeats]
        commands = [
            [sys.executable, "-m", _PROGRAM, *map(str, [num_processes, process, *numbers, out])]
            for process in range(num_processes)
        ]
        if code := run_together(commands):
            raise ChildProcessError(f"{_PROGRAM} failed with exit code {code}")
        times: dict[str, float] = json.loads(out.read_text("utf-8"))
        return times


if __name__ == "__main__":
    main(DataParallelOptions, prepare)
