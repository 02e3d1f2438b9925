"""The options of a training run: defaults, JSON format and range checks."""

import dataclasses
import os
import reprlib
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from jaxlm.utils.json_files import read_json


# The docstring and the comments after the fields are the help text of `jaxlm train --help`.
@dataclass(frozen=True)
class TrainConfig:
    """Options of a training run. None selects the default of the chosen model or tokenizer.

    >>> TrainConfig(model="bigram", lr=0.5).num_steps
    6000
    """

    model: Literal["counts", "bigram", "mlp"] = "mlp"  # counts: add-k smoothing. bigram, mlp: neural.
    corpus: str = "tinyshakespeare"  # Named corpus: tinyshakespeare, or shakespeare (all plays).
    text: Path | None = None  # UTF-8 text file to use instead of a named corpus.
    tokenizer: Literal["char", "byte", "bpe"] = "bpe"  # Unit of a token: character, byte, or byte-pair encoding.
    vocab_size: int | None = None  # bpe: size of the vocabulary, at least 256; None means 4096.
    val_fraction: float = 0.1  # Fraction of tokens for validation (the last part of the text), between 0 and 1.
    smoothing: float | None = None  # counts: the constant k added to every pair count; None means 1.
    context_length: int | None = None  # mlp: number of context tokens; None means 3.
    embedding_dim: int | None = None  # bigram, mlp: size of the embedding; None means 64 for bigram, 32 for mlp.
    hidden_dim: int | None = None  # mlp: number of hidden units; None means 64.
    dropout: float | None = None  # mlp: probability of dropping a hidden unit, in [0, 1); None means 0.
    direct_connections: bool = False  # mlp: also connect the embeddings directly to the logits.
    num_steps: int = 6000  # Total number of training steps.
    batch_size: int = 128  # Windows per minibatch.
    lr: float | None = None  # Peak learning rate of SGD; None means 2.0 for bigram and 0.5 for mlp.
    schedule: Literal["cosine", "constant"] = "cosine"  # Learning rate: cosine decay to 0, or constant.
    warmup_steps: int = 0  # Steps of linear warmup from lr / (warmup_steps + 1) to lr.
    momentum: float = 0.9  # Momentum of SGD, in [0, 1).
    weight_decay: float = 0.0  # Coefficient of L2 weight decay, added to the gradient as weight_decay * param.
    decoupled_decay: bool = False  # Apply the decay to the update instead, so that it bypasses momentum.
    clip_norm: float | None = 1.0  # Maximum global norm of the gradient; None disables clipping.
    log_every: int = 250  # Steps between records of minibatch loss and validation loss.
    # Stop after this many records without improvement and keep the best params, which makes the validation loss
    # of the result optimistic. None never stops early.
    patience: int | None = None
    seed: int = 0  # Seed of all random numbers, in [0, 2**32 - 1].
    save_every: int | None = None  # Steps between checkpoints, in addition to --save-seconds.
    save_seconds: float = 30.0  # Seconds between checkpoints.
    keep: int = 2  # Number of latest checkpoints to keep; the best by validation is kept as well.
    device: str = "auto"  # auto, cpu, gpu, cuda, rocm, tpu or metal.
    tensorboard: bool = False  # Also write TensorBoard events; requires pip install 'jaxlm[tensorboard]'.

    def __post_init__(self) -> None:
        """Check the types. NumPy scalars become Python numbers, and a `text` of type `str` becomes a `Path`."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _convert(field, getattr(self, field.name)))


# The options that apply to some models or tokenizers only, with their defaults.
_DEPENDENT_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "model": {
        "counts": {"smoothing": 1.0},
        "bigram": {"embedding_dim": 64, "lr": 2.0},
        "mlp": {"context_length": 3, "embedding_dim": 32, "hidden_dim": 64, "dropout": 0.0, "lr": 0.5}
        | {"direct_connections": False},
    },
    "tokenizer": {"char": {}, "byte": {}, "bpe": {"vocab_size": 4096}},
}
_MAX = 2**31 - 1  # sizes and step numbers are int32
_INTERVALS = {
    "vocab_size": f"[256, {_MAX}]",
    "seed": f"[0, {2**32 - 1}]",
    "val_fraction": "(0, 1)",
    "clip_norm": f"(0, {_MAX}]",
    **dict.fromkeys(("dropout", "momentum"), "[0, 1)"),
    **dict.fromkeys(("smoothing", "lr", "warmup_steps", "weight_decay", "save_seconds"), f"[0, {_MAX}]"),
    **dict.fromkeys(("context_length", "embedding_dim", "hidden_dim", "num_steps", "batch_size"), f"[1, {_MAX}]"),
    **dict.fromkeys(("log_every", "patience", "save_every", "keep"), f"[1, {_MAX}]"),
}


def resolve(config: TrainConfig) -> TrainConfig:
    """Check ranges and conflicts, fill in the defaults, and make the path of the text absolute."""
    for name, interval in _INTERVALS.items():
        if (value := getattr(config, name)) is not None and not _is_inside(value, interval):
            raise ValueError(f"{name} must be in {interval}, got {reprlib.repr(value)}")
    if config.text is not None and config.corpus != TrainConfig.corpus:
        raise ValueError(f"text {config.text} and corpus {config.corpus} exclude each other; remove one")
    if config.warmup_steps >= config.num_steps:
        raise ValueError(f"warmup_steps must be below num_steps {config.num_steps}, got {config.warmup_steps}")
    filled = {}
    for choice, by_choice in _DEPENDENT_OPTIONS.items():
        defaults = by_choice[getattr(config, choice)]
        for name in sorted(set().union(*by_choice.values())):
            value = getattr(config, name)
            if name in defaults:
                filled[name] = defaults[name] if value is None else value
            elif value is not None and value is not False:
                raise ValueError(f"{name} {value} does not apply to {choice} {getattr(config, choice)}; remove it")
    return dataclasses.replace(config, **filled, text=config.text and config.text.absolute())


def reset_dependent_options(config: TrainConfig, **choices: str) -> TrainConfig:
    """Reset the options that depend on the model or tokenizer, if `choices` contains another one."""
    others = [name for name, choice in choices.items() if choice != getattr(config, name)]
    names = {name for other in others for options in _DEPENDENT_OPTIONS[other].values() for name in options}
    return dataclasses.replace(config, **{name: getattr(TrainConfig, name) for name in names})


def config_to_json(config: TrainConfig) -> dict[str, Any]:
    """Return the options as a JSON object for `config_from_json`."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items()}


def config_from_json(document: Any, *, origin: str | Path) -> TrainConfig:
    """Return the config in a JSON object, with defaults for missing options. Errors name `origin`."""
    if not isinstance(document, dict):
        raise ValueError(f"{origin} is not a config: expected a JSON object of options such as {{'model': 'mlp'}}")
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    if unknown := sorted(document.keys() - set(names)):
        raise ValueError(f"{origin}: unknown option {unknown[0]!r:.100}; available options: {', '.join(names)}")
    try:
        return TrainConfig(**document)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


def read_config(path: str | Path) -> TrainConfig:
    """Read a config from a JSON file with any subset of the options."""
    return config_from_json(read_json(path), origin=path)


def diff_configs(config: TrainConfig, other: TrainConfig) -> str:
    """Return the options that differ between two configs, such as "lr 0.5, not 0.1", or ""."""
    pairs = zip(vars(config).items(), vars(other).values(), strict=True)
    return ", ".join(f"{name} {value}, not {there}" for (name, value), there in pairs if value != there)


def _convert(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return the value as a Python type, or raise a ValueError that names the option."""
    if type(value).__module__ == "numpy":  # a scalar; importing numpy is slow
        value = value.tolist()
    kinds = get_args(field.type) or (field.type,)
    if Path in kinds and isinstance(value, str | os.PathLike):
        value = Path(value)
    if get_origin(field.type) is Literal:
        is_valid, expected = value in kinds, "one of " + ", ".join(kinds)
    else:  # a type, or a union of a type and None
        is_number = float in kinds and type(value) is int
        is_valid = is_number or (isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)))
        expected = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
    if not is_valid:
        raise ValueError(f"{field.name} must be {expected}, got {reprlib.repr(value)}")
    return value


def _is_inside(value: float, interval: str) -> bool:
    """Return whether the number is in an interval such as "[0, 1)"."""
    least, most = map(float, interval[1:-1].split(", "))
    return least < value < most or (value == least and "[" in interval) or (value == most and "]" in interval)
