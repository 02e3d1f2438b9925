"""`jaxlm sweep`."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

import jaxlm
from jaxlm.cli.shared import Console
from jaxlm.cli.train import TrainingOptions
from jaxlm.runs.config import TrainConfig, read_config


@dataclass(frozen=True)
class SweepOptions(TrainingOptions):
    """Train one run for each combination of options, or continue a sweep.

    Each run has a directory in --out, for all other subcommands. Finished runs are skipped, and started ones
    continue. Runs that differ only in the seed and in numbers of sgd are trained together. `jaxlm runs DIR` shows
    the results.
    """

    _: KW_ONLY
    # Directory of the sweep. Without --grid and --random, continue the sweep in it.
    out: Path
    # Values of an option, such as lr=0.1,0.3,1 or seed=0..4. Repeat it for all combinations with other options.
    grid: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=VALUES")] = ()
    # Number of random settings, and the range of each option, such as 50 lr=log:0.01..3 momentum=0..0.95.
    random: Annotated[tuple[str, ...], arg(metavar="N NAME=RANGE ...")] = ()
    random_seed: int = 0  # Seed of --random.
    workers: int = 1  # Processes for the runs that are not trained together.
    # Train only the run of this index, from 0, for a scheduler with one job per run. After a signal, the exit
    # code is 75, so that the scheduler starts the job again.
    index: int | None = None


def run_sweep(options: SweepOptions, console: Console) -> dict[str, Any]:
    """Start or continue a sweep; print its table, or with `--index` the figures of the run."""
    from jaxlm.cli.runs import show_sweep

    configs = plan(options)
    if configs is None and options.training != TrainConfig():
        remedy = "the options are those of the sweep in --out; remove the others"
        raise ValueError(f"without --grid and --random, {remedy}")
    path = jaxlm.run_sweep(options.out, configs, workers=options.workers, index=options.index, console=console)
    if options.index is not None:
        return jaxlm.list_sweep_runs(path)[options.index]
    document = show_sweep(path, console)
    return document | {"passed": all(row["state"] == "done" for row in document["runs"])}


def plan(options: SweepOptions) -> list[TrainConfig] | None:
    """Return the options of each run, or None without --grid and --random."""
    from jaxlm.runs.sweeps.plan import parse_values

    if not options.grid and not options.random:
        return None
    grid = {name: parse_values(values) for name, values in split_pairs("--grid", options.grid).items()}
    settings: Any = [{}]
    drawn: dict[str, str] = {}
    if options.random:
        count, *ranges = options.random
        if not count.isdecimal() or not int(count) or not ranges:
            raise ValueError(f"--random must be a number of runs and ranges, got {' '.join(options.random)}")
        drawn = split_pairs("--random", ranges)
        settings = jaxlm.draw_settings(int(count), drawn, seed=options.random_seed)
    saved = TrainConfig() if options.config is None else read_config(options.config)
    for name in [*grid, *drawn]:
        value = getattr(options.training, name, None)
        if value not in (getattr(saved, name, None), getattr(TrainConfig, name, None)):
            given = f"--{name.replace('_', '-')} {value}"
            other = f"{'--grid' if name in grid else '--random'} {name}"
            raise ValueError(f"{given} and {other} exclude each other; remove one")
    return jaxlm.plan_sweep(options.training, grid, settings)


def split_pairs(option: str, words: Any) -> dict[str, str]:
    """Return the values of words such as "lr=0.1,0.3", by name. A name may have dashes, as on the command line."""
    pairs: dict[str, str] = {}
    for word in words:
        name, separator, values = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not separator or not values or name in pairs:
            problem = "names an option twice" if name in pairs else "must be NAME=VALUES such as lr=0.1,0.3"
            raise ValueError(f"{option} {problem}, got {word!r}")
        pairs[name] = values
    return pairs
