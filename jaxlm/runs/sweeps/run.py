"""Run a sweep: many training runs in one directory."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax
from rich.console import Console

from jaxlm.runs.config import TrainConfig, config_from_json, config_to_json, with_absolute_paths
from jaxlm.runs.lock import lock_run
from jaxlm.runs.summary import is_done
from jaxlm.runs.sweeps.packs import group_by_shape, train_group, unfinished_packs
from jaxlm.runs.sweeps.plan import run_names
from jaxlm.runs.train import resume_run, start_run
from jaxlm.utils.atomic_files import expand, write_atomically
from jaxlm.utils.checks import check_at_least
from jaxlm.utils.json_files import add_checksum, check_document, read_json
from jaxlm.utils.processes import start_child
from jaxlm.utils.signals import terminate_as_interrupt
from jaxlm.utils.terminal import drop_output_errors, print_plain

PLAN_FILE = "sweep.json"
# Of one run, such as a text that is too short for it. Others, such as a full disk, end the sweep.
_RUN_ERRORS = FloatingPointError, ValueError, BlockingIOError, FileExistsError
_VERSION = 1


def run_sweep(
    path: str | os.PathLike[str],
    configs: Sequence[TrainConfig] | None = None,
    *,
    workers: int = 1,
    index: int | None = None,
    console: Console | None = None,
) -> Path:
    """Train all runs of a sweep that are not done, each in its own run directory below `path`, and return `path`.

    Host function; not for use inside `jit`. Finished runs are skipped, and started ones continue, so that a sweep
    that was killed any number of times ends with the same results.

    Runs of `model` bigram or mlp with `optimizer` sgd that differ only in `lr`, `weight_decay`, `momentum`,
    `clip_norm`, `warmup_steps` and `seed` are trained together as one vmapped program. Each equals its single run
    up to rounding. The others are trained by `start_run`. A run that diverges or cannot be trained is reported and
    does not stop the others.

    Args:
        path: directory of the sweep.
        configs: the options of each run, such as those of `plan_sweep`; None continues the sweep in `path`. An
            existing sweep must be repeated in full; runs that differ from its own only in the seed are added.
        workers: number of processes for the runs that are not trained together.
        index: train only the run of this index in the plan, by `start_run`, for a scheduler that starts one job
            per run.
        console: where to print progress; None prints nothing.

    Raises:
        FileNotFoundError: `configs` is None and `path` is not a sweep.
        BlockingIOError: Another process trains this sweep, or, with `index`, this run.
        ValueError: The sweep in `path` has other runs, or an option is invalid.
        FloatingPointError: Training diverged, with `index`.
        OSError, KeyboardInterrupt: as in `start_run`.

    >>> import tempfile
    >>> config = TrainConfig(model="counts", tokenizer="byte", text=Path(__file__))
    >>> sweep = run_sweep(tempfile.mkdtemp(), [replace(config, smoothing=k) for k in (0.1, 1.0)])
    >>> sorted(each.name for each in sweep.iterdir() if each.is_dir())
    ['0-smoothing=0.1', '1-smoothing=1.0']
    """
    check_at_least("workers", workers, 1)
    path = expand(path)
    runs = open_sweep(path) if configs is None else _create_sweep(path, configs)
    if index is not None and not 0 <= index < len(runs):
        raise ValueError(f"index must be in [0, {len(runs)}), got {index}")
    output = drop_output_errors(console)
    try:
        with terminate_as_interrupt(), output as console:
            if index is not None:
                name = list(runs)[index]
                _run_alone(path / name, runs[name], console)
                return path
            with lock_run(path):
                _run_all(path, runs, workers, console)
    except KeyboardInterrupt as stop:
        arguments = "" if index is None else f" --index {index}"
        hint = f"continue with: jaxlm sweep --out {shlex.quote(str(path))}{arguments}"
        signal = str(stop).partition(";")[0] or "SIGINT"
        raise KeyboardInterrupt(f"{signal}; {hint}") from None
    return path


def open_sweep(path: Path) -> dict[str, TrainConfig]:
    """Return the options of each run of a sweep by the name of its directory, in the order of the plan."""
    origin = path / PLAN_FILE
    if not origin.exists():
        remedy = "pass the options of its runs (--grid or --random) to start one"
        raise FileNotFoundError(f"{path} is not a sweep: {PLAN_FILE} is missing; {remedy}")
    document = check_document(read_json(origin), _VERSION, origin=origin, what="sweep")
    return {name: config_from_json(options, origin=origin) for name, options in document["runs"].items()}


def _create_sweep(path: Path, configs: Sequence[TrainConfig]) -> dict[str, TrainConfig]:
    """Write the plan, or add runs to it that differ from those in it only in the seed."""
    configs = list(map(with_absolute_paths, configs))
    path.mkdir(parents=True, exist_ok=True)
    entries = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}  # without locks
    if entries and PLAN_FILE not in entries:
        raise FileExistsError(f"{path} is not empty and not a sweep; choose another path")
    runs = open_sweep(path) if entries else {}
    planned = dict.fromkeys(runs.values())
    added = [config for config in configs if config not in planned]
    if entries:
        settings = {replace(config, seed=0) for config in planned}
        if not (planned.keys() <= set(configs) and {replace(config, seed=0) for config in added} <= settings):
            remedy = "repeat its options, with the same or more seeds, or choose another path"
            raise ValueError(f"{path} is a sweep of other runs; {remedy}")
    if not added:
        return runs
    names = run_names([*planned, *added])[len(planned) :]
    runs |= dict(zip(names, added, strict=True))
    document = {"version": _VERSION, "runs": {name: config_to_json(each) for name, each in runs.items()}}
    write_atomically(path / PLAN_FILE, add_checksum(document))
    return runs


def _run_all(path: Path, runs: dict[str, TrainConfig], workers: int, console: Console) -> None:
    """Continue the packs, start new ones of the runs without a directory, and then train the others alone."""
    packs = unfinished_packs(path, runs)
    started = {name for pack in packs for name in pack}
    new = {name: runs[name] for name in runs if name not in started and not (path / name).exists()}
    packs += [group for group in group_by_shape(new) if len(group) > 1]
    for pack in packs:
        try:
            for not_written in train_group(path, {name: runs[name] for name in pack}, console):
                _run_each(path, {name: runs[name] for name in not_written}, 1, console)
        except _RUN_ERRORS as error:
            print_plain(console, f"{pack[0]} to {pack[-1]}: {error}")
    packed = {name for pack in packs for name in pack}
    _run_each(path, {name: runs[name] for name in runs if name not in packed}, workers, console)


def _run_each(path: Path, runs: dict[str, TrainConfig], workers: int, console: Console) -> None:
    """Train the runs that are not done, each by itself. A run that fails, or is in use, is reported."""
    waiting = [name for name in runs if not is_done(path / name)]
    if workers > 1 and len(waiting) > 1:
        _run_processes(path, waiting, workers, console)
        return
    for number, name in enumerate(waiting, 1):
        try:
            _run_alone(path / name, runs[name], console)
        except _RUN_ERRORS as error:
            print_plain(console, f"{name}: {error}")
        if number % 100 == 0:
            # Each run compiles; after about 330, LLVM would end the process.
            jax.clear_caches()  # type: ignore[no-untyped-call]


def _run_alone(path: Path, config: TrainConfig, console: Console) -> None:
    if (path / "manifest.json").exists():
        resume_run(path, config, console=console)
    else:
        start_run(config, path, console=console)


def _run_processes(path: Path, names: Sequence[str], workers: int, console: Console) -> None:
    """Train the runs in processes, `workers` at a time. Their errors are printed on standard error."""
    indices = {name: index for index, name in enumerate(open_sweep(path))}
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number, name in enumerate(names, 1):
            _wait_for_processes(running, workers - 1)
            print_plain(console, f"{name}: started, {len(names) - number} waiting")
            command = [sys.executable, "-m", "jaxlm", "sweep", f"--out={path}", f"--index={indices[name]}"]
            running.append(start_child(command, stdout=subprocess.DEVNULL))
        _wait_for_processes(running, 0)
    finally:
        for process in running:
            process.terminate()  # saves a checkpoint
        _wait_for_processes(running, 0)


def _wait_for_processes(running: list["subprocess.Popen[bytes]"], most: int) -> None:
    """Wait until at most this number of processes run, and remove the others from the list."""
    while len(running) > most:
        for process in [each for each in running if each.poll() is not None]:
            with process:  # closes its pipe
                running.remove(process)
        time.sleep(0.05)
