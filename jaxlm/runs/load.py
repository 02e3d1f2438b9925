"""load."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxlm.checkpoints.model_files import import_model, load_model
from jaxlm.checkpoints.train_states import (
    Checkpoint,
    best_step,
    checkpoint_path,
    checkpoint_steps,
    is_readable,
    latest_checkpoint,
    load_checkpoint,
)
from jaxlm.runs.config import (
    TrainConfig,
    config_from_json,
    fill_defaults,
)
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.setup import abstract_state, make_model, make_optimizer
from jaxlm.text.tokenizers import Tokenizer, load_tokenizer, tokenizer_to_json
from jaxlm.training.state import TrainState
from jaxlm.utils.checksums import sha256_of

RESUME_REMEDY = "go on with the run (--resume) to make it anew"


def read_run_config(path: Path) -> TrainConfig:
    """The options of the run of training at `path`. Raises as `resume_run` does."""
    return config_from_manifest(path, read_manifest(path))


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
    config = config_from_manifest(path, manifest)
    if checkpoint == "final" and (manifest["state"] == "done" or (path / "model").exists()):
        return _load_final(path / "model")
    tokenizer = load_run_tokenizer(path, manifest)
    if tokenizer is None:
        raise ValueError(f"{path / 'tokenizer.json'} is damaged or missing; {RESUME_REMEDY}")
    model, optimizer = make_model(config, tokenizer.vocab_size), make_optimizer(config)
    if optimizer is None:
        raise FileNotFoundError(f"{path} has no checkpoint {checkpoint!r}: counts are made at once; name final")
    like = abstract_state(model, optimizer, config)
    state = _find_checkpoint(path, checkpoint, like).state
    return model, jax.device_put({"params": state.params}), tokenizer


def _find_checkpoint(path: Path, checkpoint: str | int, like: TrainState) -> Checkpoint:
    folder = path / "checkpoints"
    steps, best = checkpoint_steps(folder), best_step(folder)
    if not steps:
        raise FileNotFoundError(f"{path} has no checkpoint yet; {RESUME_REMEDY}")
    if checkpoint in ("final", "last"):
        if (found := latest_checkpoint(folder, like)) is None:
            raise ValueError(f"{path} has no checkpoint that is whole; {RESUME_REMEDY}")
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
        raise FileNotFoundError(f"{error}; {RESUME_REMEDY}") from None
    if tokenizer is None:
        raise ValueError(f"{path} is damaged: it has no tokenizer; {RESUME_REMEDY}")
    return model, variables, tokenizer


def config_from_manifest(path: Path, manifest: Mapping[str, Any]) -> TrainConfig:
    if manifest["kind"] != "train":
        raise ValueError(
            f"{path} is a run of {manifest['kind']}, not of train; its models are in {path / 'models'}"
        )
    # An option that came after the run has its default.
    return fill_defaults(config_from_json(manifest["config"], origin=path / "manifest.json"))


def load_run_tokenizer(path: Path, manifest: Mapping[str, Any]) -> Tokenizer | None:
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
