"""Open a run, and load models from runs and from files."""

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxlm.checkpoints import model_files, train_states
from jaxlm.checkpoints.model_files import SavedModel
from jaxlm.models import LanguageModel
from jaxlm.runs.config import TrainConfig, config_from_json, resolve
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.setup import abstract_state, make_model, make_optimizer
from jaxlm.text.tokenizers import Tokenizer, load_tokenizer, tokenizer_to_json
from jaxlm.utils.checksums import sha256_of

_RESUME_REMEDY = "resume the run to restore it"


class Run(NamedTuple):
    """A training run: its path, manifest and options.

    >>> Run(Path("runs/mlp"), {"state": "done"}, TrainConfig()).config.num_steps
    6000
    """

    path: Path
    manifest: dict[str, Any]
    config: TrainConfig  # with all defaults filled in


def open_run(path: str | os.PathLike[str]) -> Run:
    """Read the manifest and the options of a training run.

    Host function; not for use inside `jit`.

    Raises:
        FileNotFoundError: `path` is not a run directory.
        ValueError: It is not a training run, or the manifest is damaged.

    >>> import jaxlm, tempfile
    >>> config = TrainConfig(model="counts", tokenizer="byte", text=Path(__file__))
    >>> run = open_run(jaxlm.start_run(config, tempfile.mkdtemp()))
    >>> run.manifest["state"], run.config.smoothing
    ('done', 1.0)
    """
    path = Path(path)
    manifest = read_manifest(path)
    if (kind := manifest["kind"]) != "train":
        raise ValueError(f"{path} is a {kind} run, not a train run; its models are in {path / 'models'}")
    # Options that did not exist when the run was started get their defaults.
    config = resolve(config_from_json(manifest["config"], origin=path / "manifest.json"))
    return Run(path, manifest, config)


def load_model(
    path: str | os.PathLike[str], checkpoint: str | int = "final", *, model: LanguageModel | None = None
) -> SavedModel:
    """Load a model, its variables and its tokenizer from a run, a saved model directory, or a saved model file.

    All files are verified by their checksums. Host function; not for use inside `jit`.

    Args:
        path: A run directory, or the directory or file that `save_model` wrote.
        checkpoint: Only for runs: "final" (the result, or the last checkpoint of an unfinished run), "last",
            "best" (by validation), or a number of steps.
        model: The saved model, if it is of your own class.

    Returns:
        Model, variables on JAX's default device, and tokenizer (None if none was saved).

    Raises:
        FileNotFoundError: `path` has no model, or the run has no such `checkpoint`.
        ValueError: A file is damaged, of another version, or does not match `model`; the message names it.

    >>> import jaxlm, tempfile
    >>> model = jaxlm.NeuralBigramLM(vocab_size=5, embedding_dim=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     jaxlm.save_model(f"{folder}/bigram", model, jaxlm.init(model, jax.random.key(0)))
    ...     load_model(f"{folder}/bigram").model == model
    True
    """
    path = Path(path)
    if (path / "manifest.json").exists():
        return _load_from_run(path, checkpoint)
    if checkpoint != "final":
        raise ValueError(f"{path} is not a run directory, so it has no checkpoint {checkpoint!r}")
    return model_files.read_model(path, model=model)


def _load_from_run(path: Path, checkpoint: str | int) -> SavedModel:
    run = open_run(path)
    if checkpoint == "final" and (run.manifest["state"] == "done" or (run.path / "model").exists()):
        try:
            return model_files.read_model(run.path / "model")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; {_RESUME_REMEDY}") from None
    tokenizer = load_run_tokenizer(run)
    if tokenizer is None:
        raise ValueError(f"{run.path / 'tokenizer.json'} is damaged or missing; {_RESUME_REMEDY}")
    model, optimizer = make_model(run.config, tokenizer.vocab_size), make_optimizer(run.config)
    if optimizer is None:
        raise FileNotFoundError(f"{path} has no checkpoint {checkpoint!r}; a counts model has only 'final'")
    state = _load_checkpoint(run.path, checkpoint, abstract_state(model, optimizer, run.config)).state
    return SavedModel(model, jax.device_put(state.variables), tokenizer)


def load_run_tokenizer(run: Run) -> Tokenizer | None:
    """Return the tokenizer of a run, or None if its file is missing or damaged."""
    origin = run.path / "tokenizer.json"
    if not origin.exists():
        return None  # the run was stopped before the file was written
    try:
        if tokenizer_checksum(tokenizer := load_tokenizer(origin)) == run.manifest["tokenizer"]["sha256"]:
            return tokenizer
        raise ValueError(f"{origin} is not the tokenizer of this run")
    except ValueError as error:
        logging.getLogger(__name__).warning("%s", error)
    return None


def tokenizer_checksum(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of the file that `tokenizer.save` writes."""
    return sha256_of(tokenizer_to_json(tokenizer).encode())


def _load_checkpoint(path: Path, checkpoint: str | int, like: train_states.Arrays) -> train_states.Checkpoint:
    folder = path / "checkpoints"
    steps, best = train_states.checkpoint_steps(folder), train_states.best_step(folder)
    if not steps:
        raise FileNotFoundError(f"{path} has no checkpoint yet; {_RESUME_REMEDY}")
    if checkpoint in ("final", "last"):
        if (latest := train_states.latest_checkpoint(folder, like)) is None:
            raise ValueError(f"{path} has no intact checkpoint; {_RESUME_REMEDY}")
        return latest
    step = best if checkpoint == "best" else checkpoint
    if step not in steps:
        available = ", ".join(map(str, ["final", *([] if best is None else ["best"]), "last", *steps]))
        raise FileNotFoundError(f"{path} has no checkpoint {checkpoint!r}; available: {available}")
    return train_states.load_checkpoint(folder, int(step), like)
