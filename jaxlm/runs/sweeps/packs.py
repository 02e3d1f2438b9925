"""Train the runs of a sweep that differ only in the numbers of SGD and the seed as one vmapped program: a pack."""

import dataclasses
import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxlm.checkpoints import train_states
from jaxlm.checkpoints.train_states import Checkpoint
from jaxlm.evaluation.evaluate import Evaluation
from jaxlm.evaluation.evaluate_many import evaluate_many
from jaxlm.models.interface import num_init_params
from jaxlm.runs.config import TrainConfig, config_to_json, resolve
from jaxlm.runs.directory import create_run
from jaxlm.runs.manifest import write_json
from jaxlm.runs.metrics_log import format_metrics
from jaxlm.runs.own import Own
from jaxlm.runs.results import metrics_line, write_artifacts
from jaxlm.runs.setup import TrainingSetup, make_optimizer, prepare_training, train_key
from jaxlm.runs.summary import is_done
from jaxlm.runs.train import describe_setup
from jaxlm.text.tokenizer_files import TOKENIZER_FILE
from jaxlm.training.early_stopping import EarlyStopping, update_best
from jaxlm.training.loop import check_training
from jaxlm.training.state import Record, TrainState, init_state
from jaxlm.training.sweep import make_runs_mesh, train_packed
from jaxlm.utils.atomic_files import remove, write_atomically
from jaxlm.utils.json_files import read_json
from jaxlm.utils.signals import catch_stop_signals
from jaxlm.utils.terminal import print_plain, progress
from jaxlm.utils.timing import measure_time

_MAX_WEIGHTS = 2**24  # of the runs of a pack; training holds about six arrays of this size: 400 MB
_PREFIX, _NAMES = "pack-", "runs.json"


def group_by_shape(configs: Mapping[str, TrainConfig]) -> list[list[str]]:
    """Return the names of the runs, grouped so that each group can be trained as one program."""
    groups: dict[Any, list[str]] = {}
    for name, config in configs.items():
        groups.setdefault(_shape_of(resolve(config)) or name, []).append(name)
    return list(groups.values())


def _shape_of(config: TrainConfig) -> Any:
    """Return what two runs must share to be one program, or None if the run cannot be packed."""
    is_sgd = config.model != "counts" and config.optimizer == "sgd"
    if not is_sgd or config.tensorboard or (config.patience, config.grad_shards) != (None, None):
        return None
    # With zero momentum or warmup, or without clipping, `sgd` has another program.
    is_used = bool(config.momentum), bool(config.warmup_steps), config.clip_norm is not None
    numbers: Any = {"lr": None, "weight_decay": 0.0, "momentum": 0.0, "warmup_steps": 0, "clip_norm": None}
    return dataclasses.replace(config, seed=0, **numbers), is_used


def unfinished_packs(sweep: Path, runs: Collection[str]) -> list[list[str]]:
    """Return the names of the runs of each pack that was started and is not finished.

    Raises a ValueError if a pack is damaged or has other runs than `runs`.
    """
    packs = []
    for path in sorted(sweep.glob(f"{_PREFIX}*/{_NAMES}")):
        names: Any = None
        with suppress(ValueError):
            names = read_json(path)
        is_list = isinstance(names, list) and all(isinstance(each, str) and each in runs for each in names)
        if not names or not is_list:
            raise ValueError(f"{path} is damaged; remove {path.parent}, so that its runs are trained again")
        packs.append(names)
    return packs


def train_group(sweep: Path, configs: Mapping[str, TrainConfig], console: Console) -> Iterator[list[str]]:
    """Train the runs of a group, in as many packs as memory requires, and write their run directories.

    Yield the names of the runs of each pack that are not written: they diverged, or their directory is damaged or
    in use. A pack has checkpoints of its own, from which it continues; they are removed when the next item is
    requested.
    Raises a KeyboardInterrupt on SIGINT or SIGTERM, after saving a checkpoint.
    """
    names, resolved = list(configs), [resolve(config) for config in configs.values()]
    first = prepare_training(resolved[0], None, console)
    setups = [first._replace(config=config, optimizer=make_optimizer(config)) for config in resolved]
    size = max(1, _MAX_WEIGHTS // num_init_params(first.model))
    for begin in range(0, len(names), size):
        pack = dict(zip(names[begin : begin + size], setups[begin : begin + size], strict=True))
        folder = sweep / f"{_PREFIX}{names[begin]}"
        folder.mkdir(exist_ok=True)
        write_json(folder / _NAMES, list(pack))
        print_plain(console, f"{len(pack)} runs as one program: {names[begin]} to {list(pack)[-1]}")
        with jax.default_device(first.device):
            yield _train_pack(sweep, folder, pack, console)
        remove(folder)


def _train_pack(sweep: Path, folder: Path, pack: Mapping[str, TrainingSetup], console: Console) -> list[str]:
    """Train the runs, write their directories, and return the names of those that are not written."""
    with measure_time() as timing:
        last, evaluations = _train_together(folder, list(pack.values()), console)
    rows, not_written = [json.loads(line) for line in last.log.splitlines()], []
    for run, (name, setup) in enumerate(pack.items()):
        state, best = jax.tree.map(lambda leaf, run=run: leaf[run] if np.ndim(leaf) else leaf, last[:2])
        log = "".join(row[run] for row in rows).encode()
        checkpoint = Checkpoint(state, best, log, last.seconds / len(pack))
        try:
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params)):
                not_written.append(name)
            elif not is_done(sweep / name):
                _write_run(sweep / name, setup, checkpoint, evaluations[run], timing.compile_seconds / len(pack))
        except (ValueError, FileExistsError, BlockingIOError):  # of the directory, which `start_run` also raises
            not_written.append(name)
    return not_written


def _train_together(
    folder: Path, setups: Sequence[TrainingSetup], console: Console
) -> tuple[Checkpoint, list[Evaluation]]:
    """Train R runs from their latest checkpoint to the last step. Return the last checkpoint and the evaluations.

    The arrays of a checkpoint are [R, ...], except the step. Each line of its log is a JSON list of the lines that
    the R runs log for one step.
    """
    setup, model, saved_at = setups[0], setups[0].model, time.monotonic()
    sizes = {name: getattr(setup.config, name) for name in ("batch_size", "num_steps", "log_every")}
    train_ids, record_ids = check_training(model, setup.data.train_ids, setup.record_ids, **sizes)
    keys, start = _init_or_load(folder, setups)
    optimizer: Any = setup.optimizer
    optimizer = optimizer._replace(init=None)  # the same `update` for all runs
    mesh = make_runs_mesh(setup.device, len(setups), num_init_params(model))
    training = train_packed(model, optimizer, train_ids, start.state, keys, mesh, val_ids=record_ids, **sizes)
    shown = progress(console, f"{len(setups)} runs", setup.config.num_steps - 1)
    with catch_stop_signals() as stop_requested, shown as show:
        for latest, records in _make_checkpoints(training, start, setup.name):
            if records is not None:
                show(records[0].step, _describe_records(records))
            if stop_requested():
                break
            if time.monotonic() - saved_at >= setup.config.save_seconds:
                train_states.save_checkpoint(folder, latest, keep=2)
                saved_at = time.monotonic()
        train_states.save_checkpoint(folder, latest, keep=2)
    if signal := stop_requested():
        raise KeyboardInterrupt(signal)
    if records is not None and setup.config.val_windows is None:
        evaluations = [record.validation for record in records if record.validation]
    else:
        evaluations = evaluate_many(model, latest.state.variables, setup.data.val_ids)
    return jax.device_get(latest), evaluations


def _init_or_load(folder: Path, setups: Sequence[TrainingSetup]) -> tuple[jax.Array, Checkpoint]:
    """Return the keys [R] of the runs, and their latest checkpoint, or else one of their initial states."""
    keys = [train_key(setup.config) for setup in setups]
    pairs: Any = zip([setup.optimizer for setup in setups], keys, strict=True)
    states = [init_state(setups[0].model, optimizer, key=key) for optimizer, key in pairs]
    stacked: TrainState = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    stacked = stacked._replace(step=states[0].step)
    worst = np.full(len(setups), np.inf, np.float32), np.zeros(len(setups), np.int32)
    start = Checkpoint(stacked, EarlyStopping(stacked.params, *worst), b"", 0.0)
    latest = train_states.latest_checkpoint(folder, start[:2]) or start
    train_states.quarantine_after(folder, int(latest.state.step))
    return jnp.stack(keys), latest


def _make_checkpoints(
    training: Iterable[tuple[TrainState, list[Record] | None]], start: Checkpoint, name: str
) -> Iterator[tuple[Checkpoint, list[Record] | None]]:
    """Yield each item of `train_packed` as a checkpoint that continues `start`, and its records."""
    best, log, begin = start.best, start.log, time.monotonic()
    for states, records in training:
        if records is not None:
            lines = [format_metrics(metrics_line(name, record)) for record in records]
            log += json.dumps(lines).encode() + b"\n"
            nats = [each.validation.nats_per_token for each in records if each.validation]
            best = update_best(best, states.params, nats)
        seconds = start.seconds + time.monotonic() - begin
        yield Checkpoint(states, best, log, seconds), records


def _describe_records(records: Sequence[Record]) -> str:
    found = [each.validation.perplexity for each in records if each.validation and isfinite(each.train_loss)]
    return f"validation perplexity {min(found):.1f} to {max(found):.1f}" if found else "all runs diverged"


def _write_run(
    path: Path, setup: TrainingSetup, checkpoint: Checkpoint, evaluation: Evaluation, compile_seconds: float
) -> None:
    """Write the directory of a finished run. An unfinished one there, of a killed process, is replaced."""
    options = config_to_json(setup.config)
    with create_run(path, "train", options, setup.device, overwrite=True, **describe_setup(setup, Own())):
        if setup.saved_tokenizer is not None:
            setup.saved_tokenizer.save(path / TOKENIZER_FILE)
        write_atomically(path / "metrics.jsonl", checkpoint.log)
        train_states.save_checkpoint(path / "checkpoints", checkpoint)
        variables = checkpoint.state.variables
        write_artifacts(path, setup, variables, compile_seconds, checkpoint.seconds, evaluation)
