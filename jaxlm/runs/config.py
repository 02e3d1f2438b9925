"""What defines a run of training: options with defaults, read from JSON and checked before any work is done."""

import dataclasses
import math
import reprlib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jaxlm.utils.json_files import read_json


@dataclass(frozen=True)
class TrainConfig:
    """All that a run's result follows from. None is the model's own default, which `resolve` fills in."""

    model: Literal["counts", "bigram", "mlp"] = "mlp"
    """counts: add-k smoothed pairs. bigram: an embedding and a projection. mlp: Bengio's network."""
    corpus: str = "tinyshakespeare"
    """A named corpus: tinyshakespeare, or shakespeare (all the plays)."""
    text: Path | None = None
    """A UTF-8 text file of your own, instead of a named corpus."""
    tokenizer: Literal["char", "byte", "bpe"] = "bpe"
    """What a token is: a character, a byte, or a piece learnt by byte-pair encoding."""
    vocab_size: int | None = None
    """Tokens of the BPE vocabulary, at least 256; None is 4096."""
    val_fraction: float = 0.1
    """The share of the tokens, the last ones, that validates: between 0 and 1."""
    smoothing: float | None = None
    """counts: the k that is added to every pair's count; None is 1."""
    context_length: int | None = None
    """mlp: tokens of context; None is 3."""
    embedding_dim: int | None = None
    """bigram, mlp: dimensions of the embedding; None is 64 for bigram, 32 for mlp."""
    hidden_dim: int | None = None
    """mlp: units of the hidden layer; None is 64."""
    dropout: float | None = None
    """mlp: the share of the hidden units that each step of training leaves out, below 1; None is 0."""
    direct_connections: bool = False
    """mlp: Bengio's connections from the embeddings to the logits, past the hidden layer."""
    num_steps: int = 6000
    """Training steps in all."""
    batch_size: int = 128
    """Windows in the minibatch of a step."""
    lr: float | None = None
    """Learning rate of SGD, at its start; None is 2.0 for bigram, 0.5 for mlp."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on: by a half cosine to 0 at --num-steps, or as it is."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises to --lr, on a straight line."""
    momentum: float = 0.9
    """Momentum of SGD, at least 0 and below 1."""
    weight_decay: float = 0.0
    """L2 decay, added to the gradient as weight_decay * param."""
    decoupled_decay: bool = False
    """Add the decay to the step instead of the gradient, so that momentum does not gather it."""
    clip_norm: float | None = 1.0
    """The largest norm of the whole gradient, a larger one is scaled down; None clips nothing."""
    log_every: int = 250
    """Steps between two records: minibatch loss and validation."""
    patience: int | None = None
    """End the training when so many records in a row bring no better validation, and keep the best (its
    validation flatters it, for it was chosen by that); None never."""
    seed: int = 0
    """Every random choice follows from it: 0 to 2**32 - 1."""
    save_every: int | None = None
    """Steps between two checkpoints, beside those by --save-seconds; None is by seconds alone."""
    save_seconds: float = 30.0
    """Seconds between two checkpoints."""
    keep: int = 2
    """How many of the latest checkpoints are kept; that of the best validation is kept beside them."""
    device: str = "auto"
    """auto, cpu, gpu, cuda, rocm, tpu or metal."""
    tensorboard: bool = False
    """Write TensorBoard events to the run's folder too; needs the extra: pip install 'jaxlm[tensorboard]'."""


# What None means, by model; an option that a model lacks here is not for it.
_MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "counts": {"smoothing": 1.0},
    "bigram": {"embedding_dim": 64, "lr": 2.0},
    "mlp": {"context_length": 3, "embedding_dim": 32, "hidden_dim": 64, "dropout": 0.0, "lr": 0.5},
}
_MODEL_OPTIONS = sorted({name for defaults in _MODEL_DEFAULTS.values() for name in defaults})

DEFAULT_VOCAB_SIZE = 4096

# The least value of each number.
_LEAST = {
    "vocab_size": 256,
    "smoothing": 0,
    "context_length": 1,
    "embedding_dim": 1,
    "hidden_dim": 1,
    "dropout": 0,
    "num_steps": 1,
    "batch_size": 1,
    "lr": 0,
    "warmup_steps": 0,
    "momentum": 0,
    "weight_decay": 0,
    "clip_norm": 0,
    "log_every": 1,
    "patience": 1,
    "seed": 0,
    "save_every": 1,
    "save_seconds": 0,
    "keep": 1,
}
_MOST_INT = 2**31 - 1  # more is no size, and no number of steps that int32 counts


def resolve(config: TrainConfig) -> TrainConfig:
    """`config` with every None that stands for a default filled in, the text's path made absolute, all checked.

    Raises:
        ValueError: a value is out of its range, or an option is not for the chosen model or tokenizer.
    """
    _check_types(config)
    for name, least in _LEAST.items():
        value = getattr(config, name)
        most = 2**32 - 1 if name == "seed" else _MOST_INT
        if value is not None and not least <= value <= most:
            raise ValueError(f"{format_flag(name)} must lie in {least}..{most}, got {reprlib.repr(value)}")
    if config.text is not None and config.corpus != TrainConfig.corpus:
        raise ValueError(f"--text {config.text} and --corpus {config.corpus} both name a text; leave one out")
    if not 0 < config.val_fraction < 1:
        raise ValueError(f"--val-fraction must lie between 0 and 1, got {config.val_fraction}")
    for name in ("momentum", "dropout"):
        if (getattr(config, name) or 0) >= 1:
            raise ValueError(f"{format_flag(name)} must be below 1, got {getattr(config, name)}")
    if config.warmup_steps >= config.num_steps:
        raise ValueError(f"--warmup-steps {config.warmup_steps} must be below --num-steps {config.num_steps}")
    if config.clip_norm == 0:
        raise ValueError(f"--clip-norm must be above 0 (or None), got {config.clip_norm}")
    defaults = _MODEL_DEFAULTS[config.model]
    for name in _MODEL_OPTIONS:
        if name not in defaults and getattr(config, name) is not None:
            raise ValueError(f"{format_flag(name)} {getattr(config, name)} is not for --model {config.model}")
    if config.direct_connections and config.model != "mlp":
        raise ValueError(f"--direct-connections is not for --model {config.model}")
    if config.tokenizer != "bpe" and config.vocab_size is not None:
        raise ValueError(
            f"--vocab-size {config.vocab_size} is for --tokenizer bpe; {config.tokenizer} has its own"
        )
    return fill_defaults(config)


def fill_defaults(config: TrainConfig) -> TrainConfig:
    """`resolve` without its checks: for options that were checked when a run began."""
    defaults = _MODEL_DEFAULTS[config.model]
    filled = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    if config.tokenizer == "bpe" and config.vocab_size is None:
        filled["vocab_size"] = DEFAULT_VOCAB_SIZE
    if config.text is not None:
        filled["text"] = Path(config.text).absolute()
    return dataclasses.replace(config, **filled)


def config_to_json(config: TrainConfig) -> dict[str, Any]:
    """The options as `config_from_json` takes them."""
    fields = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def config_from_json(document: Any, *, origin: str | Path) -> TrainConfig:
    """The config that a JSON object describes; options that it leaves out have their defaults.

    Raises:
        ValueError: it is no object, or an option is unknown or of another type; the message names `origin`.
    """
    if not isinstance(document, dict):
        raise ValueError(f"{origin} is no config: it must be a JSON object of options, as {{'model': 'mlp'}}")
    options = dict(document)
    hints = get_type_hints(TrainConfig)
    if unknown := sorted(options.keys() - hints.keys()):
        raise ValueError(f"{origin}: {unknown[0]!r:.100} is no option of training; there are {', '.join(hints)}")
    if isinstance(options.get("text"), str):
        options["text"] = Path(options["text"])
    try:
        config = TrainConfig(**options)
        _check_types(config)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
    return config


def read_config(path: str | Path) -> TrainConfig:
    """The config in a JSON file: a run's `config.json`, or one written by hand.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is no such file; the message names the path and the option.
    """
    return config_from_json(read_json(path), origin=path)


def reset_dependent_options(config: TrainConfig, **choices: Any) -> TrainConfig:
    """`config` with another model, tokenizer or text, and that one's own defaults where it had the old one's."""
    cleared: dict[str, Any] = {}
    if choices.get("model", config.model) != config.model:
        cleared |= {**dict.fromkeys(_MODEL_OPTIONS), "direct_connections": False}
    if choices.get("tokenizer", config.tokenizer) != config.tokenizer:
        cleared |= {"vocab_size": None}
    if choices.get("corpus") is not None:
        cleared |= {"text": None}
    if choices.get("text") is not None:
        cleared |= {"corpus": TrainConfig.corpus}
    return dataclasses.replace(config, **cleared)


def differing_options(config: TrainConfig, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """The options in which two configs differ, with both values."""
    pairs = {
        field.name: (getattr(config, field.name), getattr(other, field.name))
        for field in dataclasses.fields(TrainConfig)
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _check_types(config: TrainConfig) -> None:
    for name, hint in get_type_hints(TrainConfig).items():
        value = getattr(config, name)
        if not _is_of(value, hint):
            raise ValueError(f"{format_flag(name)} must be {_described(hint)}, got {reprlib.repr(value)}")


def _is_of(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_is_of(value, each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint is float:
        return type(value) in (int, float) and -math.inf < value < math.inf
    if hint is int:
        return type(value) is int
    return isinstance(value, hint)


def _described(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_described, get_args(hint)))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    names = {int: "an integer", float: "a finite number", str: "a text", bool: "true or false", Path: "a path"}
    return names.get(hint, "null")


def format_flag(name: str) -> str:
    """The option as it is typed: `--num-steps` for `num_steps`."""
    return "--" + name.replace("_", "-")
