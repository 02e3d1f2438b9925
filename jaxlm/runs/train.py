"""Runs of training that last: started, stopped, gone on with, and read again. `jaxlm train` is this."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from jaxlm.checkpoints.model_files import load_model
from jaxlm.checkpoints.train_states import (
    Checkpoint,
)
from jaxlm.models import init
from jaxlm.runs.artifacts import write_artifacts
from jaxlm.runs.config import (
    TrainConfig,
    config_to_json,
    differing_options,
    fill_defaults,
    format_flag,
    read_config,
    resolve,
)
from jaxlm.runs.directory import check_run_path, create_run, new_run_path, run_session
from jaxlm.runs.load import config_from_manifest, load_run_tokenizer
from jaxlm.runs.lock import lock_run
from jaxlm.runs.manifest import describe_environment, read_manifest, write_json
from jaxlm.runs.results import describe_dataset
from jaxlm.runs.session import latest_usable_checkpoint, restore_position, train_with_checkpoints
from jaxlm.runs.setup import TrainingSetup, prepare_training
from jaxlm.runs.tensorboard import check_tensorboard
from jaxlm.text.corpora import load_corpus, read_text
from jaxlm.text.tokenizers import tokenizer_to_json
from jaxlm.utils.atomic_files import remove
from jaxlm.utils.checksums import sha256_of
from jaxlm.utils.json_files import read_json
from jaxlm.utils.signals import terminate_as_interrupt
from jaxlm.utils.terminal import print_plain
from jaxlm.utils.timing import measure_time

# What is written when the training has ended, results.json last; first to go when a run goes on.
_FINISHED = ("results.json", "report.html", "samples.txt", "curves.png", "counts.png", "model")


def start_run(
    config: TrainConfig,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    console: Console | None = None,
    on_start: Callable[[Path], object] | None = None,
) -> Path:
    """Trains a model as `config` says, in a new run's folder, and returns its path.

    The folder holds a checkpoint of every so often, so that `resume_run` can go on to the same bits whatever
    stops this. Ctrl-C or SIGTERM saves one and ends as KeyboardInterrupt; a second ends the process.

    Args:
        out: the folder; None is a new one below `runs`.
        overwrite: replace the run that `out` already holds.
        console: where to say how it stands; None says nothing.
        on_start: told the folder, once there is a run in it to go on with.

    Raises:
        FileExistsError: `out` holds something.
        BlockingIOError: another process works in `out`.
        OSError, ValueError: an option is wrong, or the text, the device or the folder cannot be used.
        FloatingPointError: the training diverged.
    """
    console = console or Console(quiet=True)
    config = _checked(config)
    if config.decoupled_decay and not config.weight_decay:
        raise ValueError("--decoupled-decay needs a --weight-decay above 0")
    if out is not None:
        check_run_path(out, overwrite=overwrite)
    with terminate_as_interrupt():
        job = prepare_training(config, None, console)
        path = out or new_run_path(f"{config.model}-{'text' if config.text else config.corpus}-{config.tokenizer}")
        options, facts = config_to_json(config), _facts(job)
        with create_run(path, "train", options, job.device, facts=facts, overwrite=overwrite):
            if on_start is not None:
                on_start(path)
            print_plain(console, f"run: {path}")
            job.data.tokenizer.save(path / "tokenizer.json")
            _work(path, job, None, console)
    return path


def resume_run(path: Path, config: TrainConfig | None = None, *, console: Console | None = None) -> Path:
    """Goes on with a run that was stopped, to the same bits as if it had not been, and returns `path`.

    Args:
        config: the run's, or the same but for a larger `num_steps`; None is the run's. (With the constant
            schedule a run that grew has the bits of one that was as long from the start; a cosine that ended
            starts to fall anew, and the manifest says so.)

    Raises:
        FileNotFoundError: `path` holds no run.
        BlockingIOError: another process works in it.
        ValueError: it is no run of training, `config` or the text is another, or the manifest is damaged.
        OSError, FloatingPointError: as `start_run`.
    """
    console = console or Console(quiet=True)
    read_manifest(path)  # before a lock is written to what may be no run's folder
    with terminate_as_interrupt(), lock_run(path):
        manifest = read_manifest(path)
        before = config_from_manifest(path, manifest)
        config = _checked(before) if config is None else _grown(path, before, config)
        if manifest["state"] == "done" and config == before and _is_finished(path):
            print_plain(console, f"{path} is done: {config.num_steps} steps; --num-steps lets it go on")
            return path
        _tell_of_edits(path, before)
        _check_text(path, manifest, config)
        job = prepare_training(config, load_run_tokenizer(path, manifest), console)
        _check_tokenizer(path, manifest, job)
        news = list(_news(manifest, before, config, job.device))
        for note in news:
            print_plain(console, f"note: {note}")
        checkpoint = None if job.optimizer is None else latest_usable_checkpoint(path, job)
        if checkpoint is None and job.optimizer is not None and (path / "model").exists():
            raise ValueError(f"{path} has a model and no checkpoint to go on from; start another run (--config)")
        options, notes = config_to_json(config), [*manifest["notes"], *news]
        with run_session(path, {**manifest, "config": options, "notes": notes}, job.device):
            for name in _FINISHED:
                remove(path / name)
            write_json(path / "config.json", options)
            job.data.tokenizer.save(path / "tokenizer.json")
            checkpoint = None if job.optimizer is None else restore_position(path, job, checkpoint)
            print_plain(
                console, f"run: {path}, from step {0 if checkpoint is None else int(checkpoint.state.step)}"
            )
            _work(path, job, checkpoint, console)
    return path


def _checked(config: TrainConfig) -> TrainConfig:
    config = resolve(config)
    if config.tensorboard:
        check_tensorboard()
    return config


def _facts(job: TrainingSetup) -> dict[str, Any]:
    described = describe_dataset(job.data, job.config.tokenizer)
    described["tokenizer"] |= {"sha256": sha256_of(tokenizer_to_json(job.data.tokenizer).encode())}
    return described


def _grown(path: Path, before: TrainConfig, config: TrainConfig) -> TrainConfig:
    """`config`, once it is known to be the run's but for a larger num_steps; or for where the same text lies."""
    config = _checked(config)
    differing = differing_options(before, config)
    if None not in (before.text, config.text):
        differing.pop("text", None)  # its sha256 decides
    if config.num_steps > before.num_steps:
        if config.patience is not None:  # its last record was none of the longer run's, and has been counted
            raise ValueError(f"{path} has --patience {config.patience}, and cannot grow: start another run")
        del differing["num_steps"]
    if differing:
        named = ", ".join(f"{format_flag(name)} {old}, not {new}" for name, (old, new) in differing.items())
        raise ValueError(
            f"{path} was started with {named}; --num-steps alone may change, and only grow: start another run"
        )
    return config


def _is_finished(path: Path) -> bool:
    """Whether all is there that a run that is done leaves, and its model whole."""
    try:
        load_model(path / "model")
        read_json(path / "results.json")
        for name in ("report.html", "samples.txt"):
            (path / name).stat()
    except (ValueError, OSError) as error:
        logging.getLogger(__name__).warning("%s; it is made anew from the last checkpoint", error)
        return False
    return True


def _tell_of_edits(path: Path, before: TrainConfig) -> None:
    """Warns of a `config.json` that is no longer the manifest's config, which is the one that counts."""
    origin = path / "config.json"
    try:
        differing = differing_options(before, fill_defaults(read_config(origin)))
        named = ", ".join(f"{format_flag(name)} {new}, not {old}" for name, (old, new) in differing.items())
        edits = f"{origin} says {named}" if differing else None
    except FileNotFoundError:
        return  # the run was stopped before it was written
    except (ValueError, OSError) as error:
        edits = str(error)
    if edits is not None:
        logging.getLogger(__name__).warning("%s; the options in manifest.json count", edits)


def _check_text(path: Path, manifest: Mapping[str, Any], config: TrainConfig) -> None:
    """Raises a ValueError unless the text is the run's; before a tokenizer that is not for it meets it."""
    corpus = load_corpus(config.corpus) if config.text is None else read_text(config.text)
    was = manifest.get("corpus", {}).get("sha256")
    if corpus.sha256 != was:
        raise ValueError(
            f"{corpus.source} has the sha256 {corpus.sha256}; {path} was trained on a text with another, {was}"
        )


def _check_tokenizer(path: Path, manifest: Mapping[str, Any], job: TrainingSetup) -> None:
    was, now = manifest.get("tokenizer", {}).get("sha256"), _facts(job)["tokenizer"]["sha256"]
    if was != now:
        raise ValueError(
            f"the tokenizer trained on {job.data.corpus.source} has the sha256 {now}; {path} was trained with "
            f"another, {was}"
        )


def _news(
    manifest: Mapping[str, Any], before: TrainConfig, config: TrainConfig, device: jax.Device
) -> Iterator[str]:
    """What makes this session another than those before it."""
    if config.num_steps > before.num_steps:
        falls = config.schedule == "cosine" and config.lr is not None  # counts have none
        schedule = "; the learning rate's cosine ends there now" if falls else ""
        yield f"--num-steps raised from {before.num_steps} to {config.num_steps}{schedule}"
    environment = describe_environment(device)
    for name in ("jaxlm", "jax", "jaxlib", "flax", "optax"):
        was, now = manifest.get("versions", {}).get(name), environment["versions"][name]
        if was != now:
            yield f"resumed with {name} {now}, earlier {was}: the last bits may differ from an unbroken run's"
    for name in ("device", "platform"):
        was, now = manifest.get(name), environment[name]
        if was != now:
            yield f"resumed on {now}, earlier on {was}: the last bits may differ from an unbroken run's"


def _work(path: Path, job: TrainingSetup, checkpoint: Checkpoint | None, console: Console) -> None:
    """Trains, from the checkpoint on, and then writes the model, its figures, pictures and page."""
    train_seconds = None
    with measure_time() as timing, jax.default_device(job.device):
        if job.optimizer is None:
            variables = job.model.fit(init(job.model, jax.random.key(job.config.seed)), job.data.train_ids)  # type: ignore[attr-defined]
        else:
            variables, train_seconds = train_with_checkpoints(path, job, checkpoint, console)
    with jax.default_device(job.device):
        seconds = timing.run_seconds if train_seconds is None else train_seconds
        write_artifacts(path, job, variables, timing.compile_seconds, seconds)
