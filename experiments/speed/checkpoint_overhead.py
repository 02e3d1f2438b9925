"""What does it cost that a run is saved as it trains? The default MLP of `jaxlm train`, saved and not, A B A B.

    python -m experiments.speed.checkpoint_overhead           # about 3 min on 2 CPU cores with nothing else running
    python -m experiments.speed.checkpoint_overhead --quick   # 200 steps, twice: that all of it runs, in 20 s

*not saved* is `train_lm` alone, which keeps its records in memory. *saved every 30 s* is what `jaxlm train` does
by default: each record goes to `metrics.jsonl`, and the state to a checkpoint then, at the end, and at the best
validation. *every 100 steps* saves sixty times where the default saves once or twice.

Expected: saved at the default interval, training takes at most 1.05 times as long.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console

from experiments.shared.benchmark import Benchmark, RatioTarget, Variant, format_benchmarks, run_benchmark
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.runs.directory import check_run_path, create_run, new_run_path
from jaxlm.runs.manifest import describe_environment, write_json
from jaxlm.runs.session import train_with_checkpoints
from jaxlm.runs.setup import TrainingSetup, prepare_training, train_options
from jaxlm.training.loop import train_lm
from jaxlm.utils.atomic_files import write_atomically
from jaxlm.utils.terminal import print_plain, run_command, stdout_console

_TITLE = "training of the default MLP"
_QUICK_STEPS = 200


@dataclass(frozen=True)
class SavingConfig:
    """Times training that is saved against training that is not."""

    repeats: int = 5
    """Samples of each."""
    out: Path | None = None
    """The run's folder; None is runs/saving-cost-DATE-TIME."""
    overwrite: bool = False
    """Replace the run that --out already holds."""
    quick: bool = False
    """A short training, two samples: checks that all of it runs, and judges nothing."""


def run_saving(config: SavingConfig, console: Console) -> Path:
    """Runs the experiment and returns its folder, in which `results.json` comes last.

    Raises:
        ValueError, OSError: what the user can mend, in one line.
    """
    if config.out is not None:
        check_run_path(config.out, overwrite=config.overwrite)
    if config.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {config.repeats}")
    options = TrainConfig(num_steps=_QUICK_STEPS) if config.quick else TrainConfig()
    job = prepare_training(resolve(options), None, console)
    out = config.out or new_run_path("saving-cost")
    settings = json.loads(json.dumps(asdict(config), default=str))
    with create_run(out, "saving-cost", settings, job.device, overwrite=config.overwrite):
        with contest(out, job, judges=not config.quick) as row:
            measured = {_TITLE: run_benchmark(row, repeats=2 if config.quick else config.repeats, rest_seconds=0.0)}
        text = format_benchmarks(measured)
        write_atomically(out / "table.txt", text)
        results = {"schema_version": 1, "config": settings, "rows": measured}
        write_json(out / "results.json", results | describe_environment(job.device))
    print_plain(console, f"\n{text}")
    return out


@contextmanager
def contest(out: Path, job: TrainingSetup, *, judges: bool) -> Iterator[Benchmark]:
    """The ways to train the job, and what is claimed if it `judges`; within the block they save below `out`."""
    with tempfile.TemporaryDirectory(dir=out) as folder:
        path = Path(folder)
        often = job._replace(config=replace(job.config, save_every=100))
        ways = {
            "not saved": lambda: trained(job),
            "saved every 30 s": lambda: saved(job, path),
            "every 100 steps": lambda: saved(often, path),
        }
        variants = {name: Variant(way, job.config.num_steps) for name, way in ways.items()}
        target = RatioTarget("saved / not saved", "saved every 30 s", "not saved", 1.05, at_most=True)
        yield Benchmark("step", variants, [target] if judges else [])


def trained(job: TrainingSetup) -> Any:
    """The variables that `train_lm` comes to, with the records of a run."""
    variables, _ = train_lm(job.model, job.data.train_ids, **train_options(job))
    return variables


def saved(job: TrainingSetup, path: Path) -> Any:
    """The same variables, by a run that saves to `path`."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    with jax.default_device(job.device):
        variables, _ = train_with_checkpoints(path, job, None, Console(quiet=True))
    return variables


if __name__ == "__main__":
    options = tyro.cli(SavingConfig, prog="saving_cost")
    sys.exit(run_command(lambda: run_saving(options, stdout_console())))
