"""Open a run, and load models from runs and from files."""

import operator
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxlm.checkpoints import model_files, train_states
from jaxlm.checkpoints.model_files import SavedModel
from jaxlm.models import CountsBigramLM, CountsNgramLM, LanguageModel
from jaxlm.runs.config import TrainConfig, config_from_json, resolve
from jaxlm.runs.manifest import read_manifest
from jaxlm.runs.own import Own, complete_own
from jaxlm.runs.setup import abstract_state, make_model
from jaxlm.text.tokenizer_files import find_tokenizer, load_tokenizer, tokenizer_to_json
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.utils.atomic_files import expand
from jaxlm.utils.json_files import sha256_of


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
    path = expand(path)
    manifest = read_manifest(path)
    if (kind := manifest["kind"]) != "train":
        raise ValueError(f"{path} is a {kind} run, not a train run; its models are in {path / 'models'}")
    config = config_from_json(manifest["config"], origin=path / "manifest.json")
    return Run(path, manifest, resolve(config, has_own_model="model" in manifest["own"]))


def load_model(
    path: str | os.PathLike[str], checkpoint: str | int = "final", *, model: LanguageModel | None = None
) -> SavedModel:
    """Load a model, its variables and its tokenizer from a run, a saved model directory, or a saved model file.

    All files are verified by their checksums. Host function; not for use inside `jit`.

    Args:
        path: a run directory, or the directory or file that `save_model` wrote.
        checkpoint: only for runs: "final" (the result, or the last checkpoint of an unfinished run), "last",
            "best" (by validation), or a number of steps.
        model: the saved model, if it is of your own class.

    Returns:
        model, variables on JAX's default device, and tokenizer (None if none was saved, as one of your own class).

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
    path, checkpoint = expand(path), checkpoint if isinstance(checkpoint, str) else operator.index(checkpoint)
    if (path / "manifest.json").exists():
        return _load_from_run(path, checkpoint, model)
    if checkpoint != "final":
        raise ValueError(f"{path} is not a run directory, so it has no checkpoint {checkpoint!r}")
    return model_files.read_model(path, model=model)


def _load_from_run(path: Path, checkpoint: str | int, model: LanguageModel | None) -> SavedModel:
    run = open_run(path)
    if not run.manifest["sessions"]:  # what it replaces may still be there
        raise FileNotFoundError(f"{path} has no model, because its start was interrupted; resume it")
    own = run.manifest["own"]
    model_only = {name: own[name] for name in own.keys() & {"model"}}
    model = complete_own(path, model_only, Own(model), "load_model").model
    if checkpoint == "final" and (run.manifest["state"] == "done" or (path / "model").exists()):
        if not (path / "model").exists():
            remedy = "load a checkpoint, such as 'last', or start the run again"
            raise FileNotFoundError(f"{path / 'model'} is missing; {remedy}")
        return model_files.read_model(path / "model", model=model)
    tokenizer = load_run_tokenizer(run)
    if tokenizer is None and "tokenizer" not in own:
        raise ValueError(f"{find_tokenizer(path)} is missing; resume the run to restore it")
    model = make_model(run.config, run.manifest["tokenizer"]["vocab_size"]) if model is None else model
    if isinstance(model, CountsBigramLM | CountsNgramLM):
        raise FileNotFoundError(f"{path} has no checkpoint {checkpoint!r}; a counts model has only 'final'")
    state, best, *_ = _load_checkpoint(path, checkpoint, abstract_state(model, None, run.config))
    state = state._replace(params=best.params) if checkpoint == "best" else state
    return SavedModel(model, jax.device_put(state.variables), tokenizer)


def load_run_tokenizer(run: Run) -> Tokenizer | None:
    """Return the tokenizer of a run, or None if its file is missing. Raise a ValueError if it is damaged."""
    origin = find_tokenizer(run.path)
    if not origin.exists():
        return None  # the run was stopped before the file was written, or has a tokenizer of the caller
    tokenizer = load_tokenizer(origin)
    if sha256_of(tokenizer_to_json(tokenizer).encode()) != run.manifest["tokenizer"]["sha256"]:
        raise ValueError(f"{origin} is not the tokenizer of this run; remove it and resume the run")
    return tokenizer


def _load_checkpoint(path: Path, checkpoint: str | int, like: train_states.Arrays) -> train_states.Checkpoint:
    folder = path / "checkpoints"
    if checkpoint in ("final", "last", "best"):
        if (latest := train_states.latest_checkpoint(folder, like)) is None:
            raise FileNotFoundError(f"{path} has no usable checkpoint; resume it, or start it again if it is done")
        return latest
    if checkpoint not in (steps := train_states.checkpoint_steps(folder)):
        available = ", ".join(map(str, ["final", "best", "last", *steps]))
        raise FileNotFoundError(f"{path} has no checkpoint {checkpoint!r}; available: {available}")
    return train_states.load_checkpoint(folder, int(checkpoint), like)
