"""The options of a training run: defaults, JSON format and range checks."""

import dataclasses
import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jaxlm.utils.json_files import read_json


# The docstring and the string below each field are the help text of `jaxlm train --help`.
@dataclass(frozen=True)
class TrainConfig:
    """Options of a training run. None selects the default of the chosen model or tokenizer."""

    model: Literal["counts", "bigram", "mlp"] = "mlp"
    """counts: table of pair counts with add-k smoothing. bigram: neural bigram. mlp: Bengio's MLP."""
    corpus: str = "tinyshakespeare"
    """Named corpus: tinyshakespeare, or shakespeare (all plays)."""
    text: Path | None = None
    """UTF-8 text file to use instead of a named corpus."""
    tokenizer: Literal["char", "byte", "bpe"] = "bpe"
    """Unit of a token: a character, a byte, or a piece learned by byte-pair encoding."""
    vocab_size: int | None = None
    """bpe: size of the vocabulary, at least 256; None means 4096."""
    val_fraction: float = 0.1
    """Fraction of tokens used for validation (the last part of the text), between 0 and 1."""
    smoothing: float | None = None
    """counts: the constant k added to every pair count; None means 1."""
    context_length: int | None = None
    """mlp: number of context tokens; None means 3."""
    embedding_dim: int | None = None
    """bigram, mlp: size of the embedding; None means 64 for bigram and 32 for mlp."""
    hidden_dim: int | None = None
    """mlp: number of hidden units; None means 64."""
    dropout: float | None = None
    """mlp: probability of dropping a hidden unit during training, in [0, 1); None means 0."""
    direct_connections: bool = False
    """mlp: connect the embeddings directly to the logits, in addition to the hidden layer."""
    num_steps: int = 6000
    """Total number of training steps."""
    batch_size: int = 128
    """Windows per minibatch."""
    lr: float | None = None
    """Peak learning rate of SGD; None means 2.0 for bigram and 0.5 for mlp."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate schedule: cosine decay to 0 at --num-steps, or constant."""
    warmup_steps: int = 0
    """Steps of linear warmup from lr / (warmup_steps + 1) to lr."""
    momentum: float = 0.9
    """Momentum of SGD, in [0, 1)."""
    weight_decay: float = 0.0
    """Coefficient of L2 weight decay, added to the gradient as weight_decay * param."""
    decoupled_decay: bool = False
    """Apply the weight decay to the update instead of the gradient, so that it bypasses momentum."""
    clip_norm: float | None = 1.0
    """Maximum global norm of the gradient; larger gradients are scaled down. None disables clipping."""
    log_every: int = 250
    """Steps between records of minibatch loss and validation loss."""
    patience: int | None = None
    """Stop after this many records without improvement and keep the best params; None never stops early.
    The validation loss of the result is then optimistic, because the params were selected by it."""
    seed: int = 0
    """Seed of all random numbers, in [0, 2**32 - 1]."""
    save_every: int | None = None
    """Steps between checkpoints, in addition to --save-seconds; None uses --save-seconds only."""
    save_seconds: float = 30.0
    """Seconds between checkpoints."""
    keep: int = 2
    """Number of latest checkpoints to keep; the best by validation is kept as well."""
    device: str = "auto"
    """auto, cpu, gpu, cuda, rocm, tpu or metal."""
    tensorboard: bool = False
    """Also write TensorBoard events to the run directory; requires pip install 'jaxlm[tensorboard]'."""


# The options that apply to some models only, with their defaults.
_MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "counts": {"smoothing": 1.0},
    "bigram": {"embedding_dim": 64, "lr": 2.0},
    "mlp": {"context_length": 3, "embedding_dim": 32, "hidden_dim": 64, "dropout": 0.0, "lr": 0.5},
}
_MODEL_OPTIONS = {name for defaults in _MODEL_DEFAULTS.values() for name in defaults}
DEFAULT_VOCAB_SIZE = 4096
_MAX = 2**31 - 1  # sizes and step numbers are int32
_BOUNDS = {  # name: (least, most)
    "vocab_size": (256, _MAX),
    "seed": (0, 2**32 - 1),
    **dict.fromkeys(("smoothing", "lr", "warmup_steps", "weight_decay", "save_seconds"), (0, _MAX)),
    **dict.fromkeys(("context_length", "embedding_dim", "hidden_dim", "num_steps", "batch_size"), (1, _MAX)),
    **dict.fromkeys(("log_every", "patience", "save_every", "keep"), (1, _MAX)),
}


def resolve(config: TrainConfig) -> TrainConfig:
    """Check every option, fill in the defaults, and make the path of the text absolute.

    Raises a ValueError for a wrong type, a value out of range, or an option that does not apply.
    """
    _check_types(config)
    for name, (least, most) in _BOUNDS.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            raise _range_error(name, value, f"[{least}, {most}]")
    if not 0 < config.val_fraction < 1:
        raise _range_error("val_fraction", config.val_fraction, "(0, 1)")
    if config.dropout is not None and not 0 <= config.dropout < 1:
        raise _range_error("dropout", config.dropout, "[0, 1)")
    if not 0 <= config.momentum < 1:
        raise _range_error("momentum", config.momentum, "[0, 1)")
    if config.clip_norm is not None and not 0 < config.clip_norm <= _MAX:
        raise _range_error("clip_norm", config.clip_norm, f"(0, {_MAX}]")
    if config.text is not None and config.corpus != TrainConfig.corpus:
        raise ValueError(f"--text {config.text} and --corpus {config.corpus} exclude each other; remove one")
    if config.warmup_steps >= config.num_steps:
        raise ValueError(f"--warmup-steps {config.warmup_steps} must be below --num-steps {config.num_steps}")
    for name in sorted(_MODEL_OPTIONS - _MODEL_DEFAULTS[config.model].keys()):
        if (value := getattr(config, name)) is not None:
            raise ValueError(f"{format_flag(name)} {value} does not apply to --model {config.model}")
    if config.direct_connections and config.model != "mlp":
        raise ValueError(f"--direct-connections does not apply to --model {config.model}")
    if config.tokenizer != "bpe" and config.vocab_size is not None:
        raise ValueError(f"--vocab-size {config.vocab_size} does not apply to --tokenizer {config.tokenizer}")
    return fill_defaults(config)


def fill_defaults(config: TrainConfig) -> TrainConfig:
    """Return `resolve(config)` without the checks, for the options of an existing run."""
    filled = {
        name: value for name, value in _MODEL_DEFAULTS[config.model].items() if getattr(config, name) is None
    }
    if config.tokenizer == "bpe" and config.vocab_size is None:
        filled["vocab_size"] = DEFAULT_VOCAB_SIZE
    if config.text is not None:
        filled["text"] = Path(config.text).absolute()
    return dataclasses.replace(config, **filled)


def config_to_json(config: TrainConfig) -> dict[str, Any]:
    """Return the options as a JSON object for `config_from_json`."""
    fields = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def config_from_json(document: Any, *, origin: str | Path) -> TrainConfig:
    """Return the config in a JSON object; missing options take their defaults.

    Raises a ValueError that names `origin` and the option.
    """
    if not isinstance(document, dict):
        raise ValueError(f"{origin} is not a config: expected a JSON object of options such as {{'model': 'mlp'}}")
    options = dict(document)
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    if unknown := sorted(options.keys() - set(names)):
        raise ValueError(f"{origin}: unknown option {unknown[0]!r:.100}; available options: {', '.join(names)}")
    if isinstance(options.get("text"), str):
        options["text"] = Path(options["text"])
    config = TrainConfig(**options)
    try:
        _check_types(config)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
    return config


def read_config(path: str | Path) -> TrainConfig:
    """Read a config from a JSON file with any subset of the options."""
    return config_from_json(read_json(path), origin=path)


def reset_dependent_options(config: TrainConfig, **choices: Any) -> TrainConfig:
    """Reset the options that depend on the model, tokenizer or text, if `choices` contains another one."""
    reset: dict[str, Any] = {}
    if choices.get("model", config.model) != config.model:
        reset |= {**dict.fromkeys(_MODEL_OPTIONS), "direct_connections": False}
    if choices.get("tokenizer", config.tokenizer) != config.tokenizer:
        reset |= {"vocab_size": None}
    if choices.get("corpus") is not None:
        reset |= {"text": None}
    if choices.get("text") is not None:
        reset |= {"corpus": TrainConfig.corpus}
    return dataclasses.replace(config, **reset)


def diff_configs(config: TrainConfig, other: TrainConfig) -> str:
    """Return the options that differ between two configs, such as "--lr 0.5, not 0.1", or ""."""
    pairs = {name: (value, getattr(other, name)) for name, value in vars(config).items()}
    return ", ".join(f"{format_flag(name)} {a}, not {b}" for name, (a, b) in pairs.items() if a != b)


def format_flag(name: str) -> str:
    """Return the command-line flag of an option: `--num-steps` for `num_steps`."""
    return "--" + name.replace("_", "-")


def _range_error(name: str, value: float, interval: str) -> ValueError:
    return ValueError(f"{format_flag(name)} must be in {interval}, got {reprlib.repr(value)}")


_TYPE_NAMES: dict[type, str] = {int: "an integer", float: "a finite number", str: "a string"}
_TYPE_NAMES |= {bool: "true or false", Path: "a path", type(None): "null"}


def _check_types(config: TrainConfig) -> None:
    for name, hint in get_type_hints(TrainConfig).items():
        value, choices = getattr(config, name), get_args(hint) or (hint,)
        if get_origin(hint) is Literal:
            is_valid, expected = value in choices, "one of " + ", ".join(choices)
        else:  # a type, or a union of types
            is_valid = any(_has_type(value, each) for each in choices)
            expected = " or ".join(_TYPE_NAMES[each] for each in choices)
        if not is_valid:
            raise ValueError(f"{format_flag(name)} must be {expected}, got {reprlib.repr(value)}")


def _has_type(value: Any, expected: type) -> bool:
    if expected is float:
        return type(value) in (int, float) and -math.inf < value < math.inf
    if expected is int:
        return type(value) is int  # not bool
    return isinstance(value, expected)
