"""Start and resume training runs."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from rich.console import Console

from jaxlm.checkpoints.train_states import Checkpoint
from jaxlm.models import CountsBigramLM, CountsNgramLM, LanguageModel
from jaxlm.runs.config import TrainConfig, config_to_json, resolve
from jaxlm.runs.directory import check_run_path, create_run, new_run_path, resume_hint, run_session
from jaxlm.runs.load import load_run_tokenizer, open_run
from jaxlm.runs.lock import lock_run
from jaxlm.runs.manifest import describe_environment
from jaxlm.runs.own import Metrics, Own, complete_own, describe_own, make_own, tokenizer_checksum
from jaxlm.runs.processes import (
    fit_counts,
    follow_run,
    is_follower,
    lead_followers,
    receive_start,
    wait_for_processes,
)
from jaxlm.runs.results import ARTIFACTS, describe_dataset, write_artifacts
from jaxlm.runs.session import latest_usable_checkpoint, return_to_checkpoint, train_with_checkpoints
from jaxlm.runs.setup import TrainingSetup, prepare_training
from jaxlm.text.dataset import open_source
from jaxlm.text.tokenizer_files import TOKENIZER_FILE
from jaxlm.utils.atomic_files import expand, remove
from jaxlm.utils.signals import terminate_as_interrupt
from jaxlm.utils.terminal import drop_output_errors, print_plain
from jaxlm.utils.timing import measure_time


def start_run(
    config: TrainConfig,
    path: str | os.PathLike[str] | None = None,
    *,
    model: LanguageModel | None = None,
    optimizer: optax.GradientTransformation | None = None,
    tokenizer: Any = None,
    metrics: Metrics = None,
    overwrite: bool = False,
    mesh: Mesh | None = None,
    console: Console | None = None,
) -> Path:
    """Train a model in a new run directory and return its path.

    Host function; not for use inside `jit`. `resume_run` continues a stopped run, with a bit-identical result. The
    first SIGINT or SIGTERM saves a checkpoint and raises KeyboardInterrupt, whose message says how to resume.

    Args:
        config: options of the run.
        path: the run directory; None creates `runs/MODEL-CORPUS-TOKENIZER-DATE-TIME`.
        model: a model of your own instead of that of `config`, whose options of models must be unset.
        optimizer: an Optax optimizer instead of that of `config`.
        tokenizer: a tokenizer with `encode`, `decode` and `vocab_size` instead of that of `config`.
        metrics: name -> `metric(model, variables, val_ids)`, a number, computed at each record and at the end.
        overwrite: replace the run in `path`.
        mesh: devices that share each batch, instead of `config.device`. If several processes have them, all make
            the same call, and process 0 writes `path`.
        console: where to print progress; None prints nothing.

    Raises:
        FileExistsError: `path` is not empty, and not a run to overwrite.
        BlockingIOError: Another process uses `path`.
        OSError, ValueError: An option is invalid, or the text, the device or `path` cannot be used.
        FloatingPointError: Training diverged.

    >>> import tempfile
    >>> config = TrainConfig(model="counts", tokenizer="byte", text=Path(__file__))
    >>> run = start_run(config, tempfile.mkdtemp())
    >>> (run / "report.html").exists()
    True
    """
    own = make_own(model, optimizer, tokenizer, metrics)
    config = resolve(config, has_own_model=model is not None)
    wait_for_processes(mesh)  # see `gather_from_processes`
    if is_follower(mesh):
        return _follow(config, own, mesh)
    with lead_followers(mesh) as start, terminate_as_interrupt(), drop_output_errors(console) as console:
        if path is not None:
            check_run_path(expand(path), overwrite=overwrite)
        setup = prepare_training(config, own, console, mesh)
        source = "text" if config.text else "tokens" if config.tokens else config.corpus
        label = f"{setup.name}-{source}-{setup.tokenizer_name}"
        path = new_run_path(label) if path is None else expand(path)
        details = describe_setup(setup, own)
        run = create_run(path, "train", config_to_json(config), setup.device, overwrite=overwrite, **details)
        with _interrupt_with_remedy(path, own), run:
            start(path, setup, None)
            _train(path, setup, None, console)
    return path


def resume_run(
    path: str | os.PathLike[str],
    config: TrainConfig | None = None,
    *,
    model: LanguageModel | None = None,
    optimizer: optax.GradientTransformation | None = None,
    tokenizer: Any = None,
    metrics: Metrics = None,
    mesh: Mesh | None = None,
    console: Console | None = None,
) -> Path:
    """Resume a stopped run and return its path. The result is bit-identical to that of an uninterrupted run.

    Host function; not for use inside `jit`. A finished run does not change.

    Args:
        path: the run directory.
        config: the options of the run; None keeps them. `num_steps` may be larger, and `text` another path to the
            same text. A cosine schedule is recomputed for the new length.
        model, optimizer, tokenizer, metrics: those of `start_run`, if it had them. The model only if it is of your
            own class.
        mesh: as in `start_run`; other devices than before are allowed.
        console: where to print progress; None prints nothing.

    Raises:
        FileNotFoundError: `path` is not a run directory.
        BlockingIOError: Another process uses `path`.
        ValueError: `path` is not a training run, the options or the text differ, or the manifest is damaged.
        OSError, FloatingPointError: as in `start_run`.

    >>> import tempfile
    >>> config = TrainConfig(model="counts", tokenizer="byte", text=Path(__file__))
    >>> run = start_run(config, tempfile.mkdtemp())
    >>> resume_run(run) == run
    True
    """
    path, own = expand(path), make_own(model, optimizer, tokenizer, metrics)
    own = complete_own(path, open_run(path).manifest["own"], own, "resume_run")  # before a lock is created there
    wait_for_processes(mesh)  # see `gather_from_processes`
    if is_follower(mesh):
        return _follow(open_run(path).config if config is None else config, own, mesh, path)
    remedy, output = _interrupt_with_remedy(path, own), drop_output_errors(console)
    with lead_followers(mesh) as start, terminate_as_interrupt(), remedy, output as console, lock_run(path):
        _, manifest, before = run = open_run(path)
        config = resolve(before if config is None else config, has_own_model=own.model is not None)
        _check_options(path, before, config)
        if manifest["state"] == "done" and config == before:
            print_plain(console, f"{path} is done: {config.num_steps} steps; raise num_steps to extend it")
            return path
        # Compare the text first: the run's tokenizer may be unable to encode another text.
        source = config.corpus, config.text, config.tokens
        corpus, _ = open_source(*source, verify=False)  # `prepare_training` verifies it
        _check_sha256(path, manifest, "corpus", corpus.sha256, f" ({corpus.source})")
        if own.tokenizer is None and manifest["sessions"]:
            own = own._replace(tokenizer=load_run_tokenizer(run))
        setup = prepare_training(config, own, console, mesh)
        _check_sha256(path, manifest, "tokenizer", tokenizer_checksum(setup.data))
        changes = list(_describe_changes(manifest, before.num_steps, setup))
        for change in changes:
            print_plain(console, f"note: {change}")
        checkpoint = latest_usable_checkpoint(path, setup) if manifest["sessions"] else None
        options, notes = config_to_json(config), [*manifest["notes"], *changes]
        fields = {**manifest, "config": options, "notes": notes, "num_devices": setup.num_devices}
        with run_session(path, fields, setup.device):
            for name in ARTIFACTS:
                remove(path / name)
            return_to_checkpoint(path, setup, checkpoint)
            start(path, setup, checkpoint)
            _train(path, setup, checkpoint, console)
    return path


def _follow(config: TrainConfig, own: Own, mesh: Mesh, resumed: Path | None = None) -> Path:
    """Take part in a run that process 0 starts or resumes, and return its path."""
    with terminate_as_interrupt(), drop_output_errors(None) as console:
        start = receive_start(mesh)
        if start is None:
            return resumed or Path()
        config = resolve(config, has_own_model=own.model is not None)
        if resumed and own.tokenizer is None:
            own = own._replace(tokenizer=load_run_tokenizer(open_run(resumed)))
        follow_run(prepare_training(config, own, console, mesh), start)
    return Path(start.path)


def describe_setup(setup: TrainingSetup, own: Own) -> dict[str, Any]:
    """Return the fields of a training run's manifest that its options do not determine."""
    details = describe_dataset(setup.data, setup.tokenizer_name)
    details["tokenizer"] |= {"sha256": tokenizer_checksum(setup.data)}
    return details | {"model": setup.name, "own": describe_own(own), "num_devices": setup.num_devices}


@contextmanager
def _interrupt_with_remedy(path: Path, own: Own) -> Iterator[None]:
    """Add to the message of a KeyboardInterrupt how to resume the run."""
    try:
        yield
    except KeyboardInterrupt as stop:
        arguments = "".join(f", {name}=..." for name in describe_own(own))
        hint = f"resume with: resume_run({str(path)!r}{arguments})" if arguments else resume_hint(path)
        raise KeyboardInterrupt(f"{str(stop) or 'SIGINT'}; {hint}") from None


def _train(path: Path, setup: TrainingSetup, checkpoint: Checkpoint | None, console: Console) -> None:
    """Train from the checkpoint, and write the results."""
    start = "" if checkpoint is None else f", from step {int(checkpoint.state.step)}"
    print_plain(console, f"run: {path}{start}")
    if setup.saved_tokenizer is not None:
        setup.saved_tokenizer.save(path / TOKENIZER_FILE)
    with jax.default_device(setup.device):
        with measure_time() as timing:
            if isinstance(setup.model, CountsBigramLM | CountsNgramLM):
                variables, seconds = fit_counts(setup), None
            else:
                variables, seconds = train_with_checkpoints(path, setup, checkpoint, console)
        seconds = timing.run_seconds if seconds is None else seconds
        write_artifacts(path, setup, variables, timing.compile_seconds, seconds)
        wait_for_processes(setup.mesh)


def _check_options(path: Path, before: TrainConfig, config: TrainConfig) -> None:
    """Raise a ValueError unless `config` has the options of the run, or extends it."""
    if config.num_steps > before.num_steps and config.patience is not None:
        # Patience counted the last record, which a longer run does not have.
        raise ValueError(f"{path} uses patience {config.patience} and cannot be extended; start another run")
    differences = []
    for name, old in vars(before).items():
        new = getattr(config, name)
        is_moved = isinstance(old, Path) and isinstance(new, Path)  # the caller compares the checksums
        if old != new and not is_moved and not (name == "num_steps" and new > old):
            differences.append(f"{name} {old}, not {new}")
    if differences:
        remedy = "only num_steps may increase: start another run"
        raise ValueError(f"{path} was started with {', '.join(differences)}; {remedy}")


def _check_sha256(path: Path, manifest: Mapping[str, Any], name: str, sha256: str, source: str = "") -> None:
    if sha256 != (expected := manifest[name]["sha256"]):
        raise ValueError(f"{path} was trained with a different {name}: sha256 {expected}, not {sha256}{source}")


def _describe_changes(manifest: Mapping[str, Any], num_steps: int, setup: TrainingSetup) -> Iterator[str]:
    """Yield how this session differs from the previous one. `num_steps` is the number of steps before."""
    config = setup.config
    if config.num_steps > num_steps:
        is_cosine = config.schedule == "cosine" and config.lr is not None and "optimizer" not in manifest["own"]
        schedule = "; the cosine schedule now ends there" if is_cosine else ""
        yield f"num_steps increased from {num_steps} to {config.num_steps}{schedule}"
    both = {"num_devices": 1, **manifest}, {**describe_environment(setup.device), "num_devices": setup.num_devices}
    names = ["device", "platform", *(["num_devices"] if config.grad_shards is None else [])]
    before, now = ({**each["versions"], **{name: each[name] for name in names}} for each in both)
    for name, value in now.items():
        if value != (old := before.get(name)):
            effect = "the last bits may differ from an uninterrupted run"
            yield f"resumed with {name} {value}, previously {old}: {effect}"
