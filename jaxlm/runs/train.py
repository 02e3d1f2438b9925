"""Runs of training that last: started, stopped, gone on with, and read again. `jaxlm train` is this."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxlm.checkpoints import (
    Checkpoint,
    best_step,
    checkpoint_path,
    checkpoint_steps,
    is_readable,
    latest_checkpoint,
    load_checkpoint,
)
from jaxlm.config import (
    TrainConfig,
    config_from_json,
    config_to_json,
    differing_options,
    flag,
    read_config,
    resolve,
    with_defaults,
)
from jaxlm.console import say
from jaxlm.corpora import load_corpus, read_text
from jaxlm.data import line_start_prompt
from jaxlm.evaluation import evaluate
from jaxlm.files import read_json, remove, sha256_of, write_atomically
from jaxlm.interruption import terminate_as_interrupt
from jaxlm.jobs import SAMPLE_FOLD, Job, fresh_state, make_job, make_model, make_optimizer
from jaxlm.metrics import read_metrics
from jaxlm.models import init
from jaxlm.report import plot_counts, plot_curves, render_page, samples_text
from jaxlm.results import TITLES, describe_data, describe_model, describe_results
from jaxlm.runs import (
    check_run_path,
    create_run,
    describe_environment,
    lock_run,
    new_run_path,
    read_manifest,
    run_session,
    write_json,
)
from jaxlm.sampling import sample
from jaxlm.saved_models import import_model, load_model, save_model
from jaxlm.saved_training import go_back_to, train_saving, usable_checkpoint
from jaxlm.tensorboard import check_tensorboard
from jaxlm.timing import timed
from jaxlm.tokenizers import Tokenizer, load_tokenizer, tokenizer_to_json
from jaxlm.training import TrainState

_SAMPLE_TOKENS = 100
_REMEDY = "go on with the run (--resume) to make it anew"

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
        job = make_job(config, None, console)
        path = out or new_run_path(f"{config.model}-{'text' if config.text else config.corpus}-{config.tokenizer}")
        options, facts = config_to_json(config), _facts(job)
        with create_run(path, "train", options, job.device, facts=facts, overwrite=overwrite):
            if on_start is not None:
                on_start(path)
            say(console, f"run: {path}")
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
        before = _config_of(path, manifest)
        config = _checked(before) if config is None else _grown(path, before, config)
        if manifest["state"] == "done" and config == before and _is_finished(path):
            say(console, f"{path} is done: {config.num_steps} steps; --num-steps lets it go on")
            return path
        _tell_of_edits(path, before)
        _check_text(path, manifest, config)
        job = make_job(config, _saved_tokenizer(path, manifest), console)
        _check_tokenizer(path, manifest, job)
        news = list(_news(manifest, before, config, job.device))
        for note in news:
            say(console, f"note: {note}")
        checkpoint = None if job.optimizer is None else usable_checkpoint(path, job)
        if checkpoint is None and job.optimizer is not None and (path / "model").exists():
            raise ValueError(f"{path} has a model and no checkpoint to go on from; start another run (--config)")
        options, notes = config_to_json(config), [*manifest["notes"], *news]
        with run_session(path, {**manifest, "config": options, "notes": notes}, job.device):
            for name in _FINISHED:
                remove(path / name)
            write_json(path / "config.json", options)
            job.data.tokenizer.save(path / "tokenizer.json")
            checkpoint = None if job.optimizer is None else go_back_to(path, job, checkpoint)
            say(console, f"run: {path}, from step {0 if checkpoint is None else int(checkpoint.state.step)}")
            _work(path, job, checkpoint, console)
    return path


def run_config(path: Path) -> TrainConfig:
    """The options of the run of training at `path`. Raises as `resume_run` does."""
    return _config_of(path, read_manifest(path))


def open_model(path: Path, checkpoint: str | int = "final") -> tuple[Any, Any, Tokenizer]:
    """A trained model, its variables and its tokenizer, from a run, a saved model's folder, or an exported file.

    Raises:
        FileNotFoundError, ValueError: as `load_run`, `load_model` and `import_model`; or it has no tokenizer.
    """
    if (path / "manifest.json").exists():
        return load_run(path, checkpoint)
    if checkpoint != "final":
        raise ValueError(f"{path} is no run, so it has no checkpoint {checkpoint!r}")
    if path.is_dir() and not (path / "model.json").exists():
        raise FileNotFoundError(f"{path} holds no run and no saved model; name one, as RUN or RUN/models/mlp")
    model, variables, tokenizer = load_model(path) if path.is_dir() else import_model(path)
    if tokenizer is None:
        raise ValueError(f"{path} was saved without a tokenizer; use load_model(path) and your own ids")
    return model, variables, tokenizer


def load_run(path: Path, checkpoint: str | int = "final") -> tuple[Any, Any, Tokenizer]:
    """The model of a run of training, its variables and its tokenizer.

    Args:
        checkpoint: "final", which is the last one until the run is done; "last"; "best" by validation; or the
            number of steps done.

    Raises:
        FileNotFoundError: `path` holds no run, or the run no such checkpoint.
        ValueError: what is needed of it is damaged.
    """
    manifest = read_manifest(path)
    config = _config_of(path, manifest)
    if checkpoint == "final" and (manifest["state"] == "done" or (path / "model").exists()):
        return _load_final(path / "model")
    tokenizer = _saved_tokenizer(path, manifest)
    if tokenizer is None:
        raise ValueError(f"{path / 'tokenizer.json'} is damaged or missing; {_REMEDY}")
    model, optimizer = make_model(config, tokenizer.vocab_size), make_optimizer(config)
    if optimizer is None:
        raise FileNotFoundError(f"{path} has no checkpoint {checkpoint!r}: counts are made at once; name final")
    like = fresh_state(model, optimizer, config)
    state = _find_checkpoint(path, checkpoint, like).state
    return model, jax.device_put({"params": state.params}), tokenizer


def _find_checkpoint(path: Path, checkpoint: str | int, like: TrainState) -> Checkpoint:
    folder = path / "checkpoints"
    steps, best = checkpoint_steps(folder), best_step(folder)
    if not steps:
        raise FileNotFoundError(f"{path} has no checkpoint yet; {_REMEDY}")
    if checkpoint in ("final", "last"):
        if (found := latest_checkpoint(folder, like)) is None:
            raise ValueError(f"{path} has no checkpoint that is whole; {_REMEDY}")
        return found
    damaged = [step for step in steps if not is_readable(checkpoint_path(folder, step))]
    if checkpoint == "best" and damaged:
        message = (
            "%s: the checkpoint of step %d is damaged, and may have been the best; the best of the others is used"
        )
        logging.getLogger(__name__).warning(message, folder, damaged[0])
    step = best if checkpoint == "best" else checkpoint
    if step not in steps:
        there = ", ".join(map(str, ["final", *([] if best is None else ["best"]), "last", *steps]))
        raise FileNotFoundError(f"{path} has no checkpoint {checkpoint!r}; there are {there}")
    return load_checkpoint(checkpoint_path(folder, int(step)), like)


def _load_final(path: Path) -> tuple[Any, Any, Tokenizer]:
    try:
        model, variables, tokenizer = load_model(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {_REMEDY}") from None
    if tokenizer is None:
        raise ValueError(f"{path} is damaged: it has no tokenizer; {_REMEDY}")
    return model, variables, tokenizer


def _checked(config: TrainConfig) -> TrainConfig:
    config = resolve(config)
    if config.tensorboard:
        check_tensorboard()
    return config


def _facts(job: Job) -> dict[str, Any]:
    described = describe_data(job.data, job.config.tokenizer)
    described["tokenizer"] |= {"sha256": sha256_of(tokenizer_to_json(job.data.tokenizer).encode())}
    return described


def _config_of(path: Path, manifest: Mapping[str, Any]) -> TrainConfig:
    if manifest["kind"] != "train":
        raise ValueError(
            f"{path} is a run of {manifest['kind']}, not of train; its models are in {path / 'models'}"
        )
    # An option that came after the run has its default.
    return with_defaults(config_from_json(manifest["config"], origin=path / "manifest.json"))


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
        named = ", ".join(f"{flag(name)} {old}, not {new}" for name, (old, new) in differing.items())
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
        differing = differing_options(before, with_defaults(read_config(origin)))
        named = ", ".join(f"{flag(name)} {new}, not {old}" for name, (old, new) in differing.items())
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


def _check_tokenizer(path: Path, manifest: Mapping[str, Any], job: Job) -> None:
    was, now = manifest.get("tokenizer", {}).get("sha256"), _facts(job)["tokenizer"]["sha256"]
    if was != now:
        raise ValueError(
            f"the tokenizer trained on {job.data.corpus.source} has the sha256 {now}; {path} was trained with "
            f"another, {was}"
        )


def _saved_tokenizer(path: Path, manifest: Mapping[str, Any]) -> Tokenizer | None:
    """The run's tokenizer; None where its file is missing or damaged, and it must be trained again."""
    origin = path / "tokenizer.json"
    try:
        tokenizer = load_tokenizer(origin)
        if sha256_of(tokenizer_to_json(tokenizer).encode()) == manifest["tokenizer"]["sha256"]:
            return tokenizer
        logging.getLogger(__name__).warning("%s is not the tokenizer of this run", origin)
    except FileNotFoundError:
        pass  # the run was stopped before it was written
    except (ValueError, OSError, KeyError, TypeError) as error:
        logging.getLogger(__name__).warning("%s", error)
    return None


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


def _work(path: Path, job: Job, checkpoint: Checkpoint | None, console: Console) -> None:
    """Trains, from the checkpoint on, and then writes the model, its figures, pictures and page."""
    train_seconds = None
    with timed() as timing, jax.default_device(job.device):
        if job.optimizer is None:
            variables = job.model.fit(init(job.model, jax.random.key(job.config.seed)), job.data.train_ids)  # type: ignore[attr-defined]
        else:
            variables, train_seconds = train_saving(path, job, checkpoint, console)
    with jax.default_device(job.device):
        seconds = timing.run_seconds if train_seconds is None else train_seconds
        _finish(path, job, variables, timing.compile_seconds, seconds)


def _finish(path: Path, job: Job, variables: Any, compile_seconds: float, train_seconds: float) -> None:
    """The model, its figures, samples, pictures and page; last `results.json`."""
    config, data, title = job.config, job.data, TITLES[job.config.model]
    remove(path / "model")
    save_model(path / "model", job.model, variables, data.tokenizer)
    evaluation = evaluate(job.model, variables, data.val_ids, device=job.device)
    row = describe_model(
        config.model,
        title,
        job.model,
        variables,
        evaluation,
        data.val_bytes_per_token,
        is_trained=job.optimizer is not None,
        compile_seconds=compile_seconds,
        train_seconds=train_seconds,
    )
    prompt_ids = line_start_prompt(data, job.model.context_length)
    key = jax.random.fold_in(jax.random.key(config.seed), SAMPLE_FOLD)
    prompt = data.tokenizer.decode(prompt_ids)
    try:
        drawn = sample(job.model, variables, prompt_ids, _SAMPLE_TOKENS, key=key, device=job.device)
        text = data.tokenizer.decode(drawn)
    except ValueError as error:  # counts without smoothing, after a token they never saw
        text = f"{prompt} ({error})"
    results = describe_results(
        data, config.tokenizer, config.seed, [row], prompt, {title: text}, describe_environment(job.device)
    )
    write_atomically(path / "samples.txt", samples_text(results["samples"]))
    if job.optimizer is not None:
        plot_curves(path / "curves.png", {title: read_metrics(path / "metrics.jsonl")}, {}, job.model.vocab_size)
    else:
        tokens = [data.tokenizer.decode([token]) for token in range(data.tokenizer.vocab_size)]
        plot_counts(path / "counts.png", np.asarray(variables["counts"]["table"]), tokens)
    write_atomically(path / "report.html", render_page(path, results, title=f"{title}, {data.corpus.name}"))
    write_json(path / "results.json", results)
