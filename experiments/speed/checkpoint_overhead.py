"""What does saving a run cost? The default MLP of `jaxlm train`, saved and not saved, A B A B.

    python -m experiments.speed.checkpoint_overhead           # about 3 min on 2 CPU cores, nothing else running
    python -m experiments.speed.checkpoint_overhead --quick   # 200 steps, two samples, 20 s

*not saved* is `jaxlm.train`, which writes nothing. *saved every 30 s* is the default of `jaxlm train`:
each record goes to `metrics.jsonl`, and the state to a checkpoint every 30 s, at the end, and at the best
validation. *saved every 100 steps* saves sixty times; the default saves once or twice.

Target: with the default interval, training takes at most 1.05 times as long.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

import jaxlm
from experiments.shared.benchmark import Benchmark, Ratio, Variant, run_benchmarks
from experiments.shared.experiment import Experiment, Findings, RunContext, main
from experiments.shared.options import BenchmarkOptions
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.runs.session import train_with_checkpoints
from jaxlm.runs.setup import TrainingSetup, prepare_training, train_options


@dataclass(frozen=True, kw_only=True)
class OverheadOptions(BenchmarkOptions):
    """Time training with checkpoints against training without."""


def prepare(options: OverheadOptions) -> Experiment:
    """Check the options, and load the text and the model."""
    config = TrainConfig(num_steps=200) if options.quick else TrainConfig()
    setup = prepare_training(resolve(config), None, Console(quiet=True))
    return Experiment("checkpoint-overhead", partial(measure, options, setup), setup.device)


def measure(options: OverheadOptions, setup: TrainingSetup, run: RunContext) -> Findings:
    """Train with each variant in turn. Checkpoints go to a temporary folder in the run directory."""
    with tempfile.TemporaryDirectory(dir=run.path) as folder:
        repeats = 2 if options.quick else options.repeats
        return run_benchmarks({"default MLP": partial(make_benchmark, setup, Path(folder))}, run, repeats=repeats)


def make_benchmark(setup: TrainingSetup, path: Path) -> Benchmark:
    """Return the variants of one training, per step."""
    often = setup._replace(config=replace(setup.config, save_every=100))
    calls = {
        "not saved": partial(train, setup),
        "saved every 30 s": partial(train_and_save, setup, path),
        "saved every 100 steps": partial(train_and_save, often, path),
    }
    variants = {name: Variant(call, setup.config.num_steps) for name, call in calls.items()}
    return Benchmark("step", variants, [Ratio("saved every 30 s / not saved", "saved every 30 s", "not saved")])


def train(setup: TrainingSetup) -> Any:
    """Return the trained variables."""
    *_, (state, _) = jaxlm.train(setup.model, setup.data.train_ids, **train_options(setup))
    return state.variables


def train_and_save(setup: TrainingSetup, path: Path) -> Any:
    """Return the same variables from a training that saves to `path`."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    with jax.default_device(setup.device):
        variables, _ = train_with_checkpoints(path, setup, None, Console(quiet=True))
    return variables


if __name__ == "__main__":
    main(OverheadOptions, prepare)
