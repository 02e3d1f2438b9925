"""Load the model, options and tokenizer of a run."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxlm.checkpoints import train_states
from jaxlm.checkpoints.model_files import load_model
from jaxlm.checkpoints.train_states import Checkpoint
from jaxlm.runs.config import TrainConfig, config_from_json, fill_defaults
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.setup import abstract_state, make_model, make_optimizer
from jaxlm.text.tokenizers import Tokenizer, load_tokenizer, tokenizer_to_json
from jaxlm.training.early_stopping import EarlyStopping
from jaxlm.training.state import TrainState
from jaxlm.utils.checksums import sha256_of

_RESUME_REMEDY = "resume the run with --resume to restore it"
_log = logging.getLogger(__name__)


def open_model(path: str | os.PathLike[str], checkpoint: str | int = "final") -> tuple[Any, Any, Tokenizer]:
    """Load a model, its variables and its tokenizer from a run, a saved model, or an exported file.

    Host function; not for use inside `jit`.

    Args:
        path: A run directory, a directory of `save_model`, or a file of `export_model`.
        checkpoint: As in `load_run`; only for runs.

    Raises:
        FileNotFoundError: There is no model at `path`.
        ValueError: A file is damaged, or the model was saved without a tokenizer.

    >>> import jaxlm, tempfile
    >>> config = TrainConfig(model="counts", tokenizer="byte", text=Path(__file__))
    >>> run = jaxlm.start_run(config, tempfile.mkdtemp())
    >>> model, variables, tokenizer = open_model(run / "model")
    """
    path = Path(path)
    if (path / "manifest.json").exists():
        return load_run(path, checkpoint)
    if checkpoint != "final":
        raise ValueError(f"{path} is not a run directory, so it has no checkpoint {checkpoint!r}")
    model, variables, tokenizer = load_model(path)
    if tokenizer is None:
        raise ValueError(f"{path} was saved without a tokenizer; use load_model(path) and your own ids")
    return model, variables, tokenizer


def load_run(path: str | os.PathLike[str], checkpoint: str | int = "final") -> tuple[Any, Any, Tokenizer]:
    """Load the model of a training run, its variables and its tokenizer.

    Host function; not for use inside `jit`.

    Args:
        path: The run directory.
        checkpoint: "final" (the result, or the last checkpoint of an unfinished run), "last", "best" (by
            validation), or a number of steps.

    Raises:
        FileNotFoundError: `path` is not a run directory, or has no such checkpoint.
        ValueError: A file is damaged.

    >>> import jaxlm, tempfile
    >>> config = TrainConfig(model="counts", tokenizer="byte", text=Path(__file__))
    >>> model, variables, tokenizer = load_run(jaxlm.start_run(config, tempfile.mkdtemp()))
    """
    path = Path(path)
    manifest = read_manifest(path)
    config = config_from_manifest(path, manifest)
    if checkpoint == "final" and (manifest["state"] == "done" or (path / "model").exists()):
        try:
            return open_model(path / "model")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; {_RESUME_REMEDY}") from None
    tokenizer = load_run_tokenizer(path, manifest)
    if tokenizer is None:
        raise ValueError(f"{path / 'tokenizer.json'} is damaged or missing; {_RESUME_REMEDY}")
    model, optimizer = make_model(config, tokenizer.vocab_size), make_optimizer(config)
    if optimizer is None:
        raise FileNotFoundError(f"{path} has no checkpoint {checkpoint!r}; a counts model has only 'final'")
    state = _load_checkpoint(path, checkpoint, abstract_state(model, optimizer, config)).state
    return model, jax.device_put(state.variables), tokenizer


def read_run_config(path: Path) -> TrainConfig:
    """Return the options of a training run."""
    return config_from_manifest(path, read_manifest(path))


def config_from_manifest(path: Path, manifest: Mapping[str, Any]) -> TrainConfig:
    """Return the options in the manifest of the training run `path`."""
    if (kind := manifest["kind"]) != "train":
        raise ValueError(f"{path} is a {kind} run, not a train run; its models are in {path / 'models'}")
    # Options that an older version of jaxlm did not have take their defaults.
    return fill_defaults(config_from_json(manifest["config"], origin=path / "manifest.json"))


def load_run_tokenizer(path: Path, manifest: Mapping[str, Any]) -> Tokenizer | None:
    """Return the tokenizer of a run, or None if its file is missing or damaged."""
    origin = path / "tokenizer.json"
    try:
        tokenizer = load_tokenizer(origin)
        if tokenizer_checksum(tokenizer) == manifest["tokenizer"]["sha256"]:
            return tokenizer
        _log.warning("%s is not the tokenizer of this run", origin)
    except FileNotFoundError:
        pass  # the run was stopped before the file was written
    except (ValueError, OSError) as error:
        _log.warning("%s", error)
    return None


def tokenizer_checksum(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 of the file that `tokenizer.save` writes."""
    return sha256_of(tokenizer_to_json(tokenizer).encode())


def _load_checkpoint(
    path: Path, checkpoint: str | int, like: tuple[TrainState, EarlyStopping | None]
) -> Checkpoint:
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
