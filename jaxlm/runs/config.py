"""The options of a training run: defaults, JSON format and range checks."""

import dataclasses
import functools
import os
import reprlib
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from jaxlm.utils.atomic_files import expand
from jaxlm.utils.json_files import read_json


@dataclass(frozen=True)
class _Interval:
    """An interval such as "[0, 1)": the range of an option, in the annotation of its field."""

    text: str

    def __repr__(self) -> str:
        """Return the interval as messages of the command line show it."""
        return self.text

    def __contains__(self, value: float) -> bool:
        least, most = map(float, self.text[1:-1].split(", "))
        is_end = (value == least and "[" in self.text) or (value == most and "]" in self.text)
        return least < value < most or is_end


_MAX = 2**31 - 1  # sizes and step numbers are int32
_Positive = Annotated[int, _Interval(f"[1, {_MAX}]")]
_NotNegative = Annotated[float, _Interval(f"[0, {_MAX}]")]
_BelowOne = Annotated[float, _Interval("[0, 1)")]
_Fraction = Annotated[float, _Interval("(0, 1)")]
_Norm = Annotated[float, _Interval(f"(0, {_MAX}]")]
_Warmup = Annotated[int, _Interval(f"[0, {_MAX}]")]
_Seed = Annotated[int, _Interval(f"[0, {2**32 - 1}]")]
_VocabSize = Annotated[int, _Interval(f"[256, {_MAX}]")]  # bytes are tokens


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
    tokens: Path | None = None  # Directory of jaxlm encode to use instead of a text, with its tokenizer.
    # Unit of a token: character, byte, or byte-pair encoding; or the file of a tokenizer.
    tokenizer: Literal["char", "byte", "bpe"] | Path = "bpe"
    vocab_size: _VocabSize | None = None  # bpe: size of the vocabulary, at least 256; None means 4096.
    val_fraction: _Fraction = 0.1  # Fraction of tokens for validation (the last part of the text), in (0, 1).
    smoothing: _NotNegative | None = None  # counts: the constant k added to every pair count; None means 1.
    context_length: _Positive | None = None  # mlp: number of context tokens; None means 3.
    embedding_dim: _Positive | None = None  # bigram, mlp: size of the embedding; None means 64 and 32.
    hidden_dim: _Positive | None = None  # mlp: number of hidden units; None means 64.
    dropout: _BelowOne | None = None  # mlp: probability of dropping a hidden unit, in [0, 1); None means 0.
    direct_connections: bool = False  # mlp: also connect the embeddings directly to the logits.
    num_steps: _Positive = 6000  # Total number of training steps.
    batch_size: _Positive = 128  # Windows per minibatch.
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = "sgd"  # Optax optimizer.
    # Peak learning rate. None means 2.0 for bigram and 0.5 for mlp; with adam and adamw 0.01, with muon 0.05.
    lr: _NotNegative | None = None
    schedule: Literal["cosine", "constant"] = "cosine"  # Learning rate: cosine decay to 0, or constant.
    warmup_steps: _Warmup = 0  # Steps of linear warmup from lr / (warmup_steps + 1) to lr.
    momentum: _BelowOne = 0.9  # Momentum of sgd and muon, and b1 of adam and adamw, in [0, 1).
    # Weight decay: sgd and adam add weight_decay * param to the gradient, adamw and muon to the update.
    weight_decay: _NotNegative = 0.0
    clip_norm: _Norm | None = 1.0  # Maximum global norm of the gradient; None disables clipping.
    log_every: _Positive = 250  # Steps between records of minibatch loss and validation loss.
    # Windows of the validation text that a record uses, the first ones; None means all. The results use all.
    val_windows: _Positive | None = None
    # Stop after this many records without improvement and keep the best parameters. Their validation loss is
    # optimistic. None never stops early.
    patience: _Positive | None = None
    # Parts of a batch whose gradients are added in a fixed order: the same bits on any number of devices.
    grad_shards: _Positive | None = None
    seed: _Seed = 0  # Seed of all random numbers, in [0, 2**32 - 1].
    save_every: _Positive | None = None  # Steps between checkpoints, in addition to --save-seconds.
    save_seconds: _NotNegative = 30.0  # Seconds between checkpoints.
    keep: _Positive = 2  # Number of latest checkpoints to keep. Each also has the best parameters by validation.
    device: str = "auto"  # auto, cpu, gpu, cuda, rocm, tpu or metal.
    tensorboard: bool = False  # Also write TensorBoard events; requires pip install 'jaxlm[tensorboard]'.

    def __post_init__(self) -> None:
        """Check the types. NumPy scalars become Python numbers, and strings that name files become paths."""
        for name, value in vars(self).items():
            object.__setattr__(self, name, _convert(name, value))


# The options that apply to some models or tokenizers only, with their defaults.
_DEPENDENT_OPTIONS: dict[str, dict[Any, dict[str, Any]]] = {
    "model": {
        "counts": {"smoothing": 1.0},
        "bigram": {"embedding_dim": 64, "lr": 2.0},
        "mlp": {"context_length": 3, "embedding_dim": 32, "hidden_dim": 64, "dropout": 0.0, "lr": 0.5}
        | {"direct_connections": False},
        "own": {"lr": 0.5},  # passed to `start_run`
    },
    "tokenizer": {"bpe": {"vocab_size": 4096}},
}
_OF_TOKENS = "tokenizer", "vocab_size"  # which `jaxlm encode` has chosen
# The best of three rates each for the default MLP: perplexity 135 after 1,500 steps (muon 152, sgd 138).
_ADAPTIVE_LR = {"adam": 0.01, "adamw": 0.01, "muon": 0.05}


def resolve(config: TrainConfig, *, has_own_model: bool = False) -> TrainConfig:
    """Check ranges and conflicts, fill in the defaults, and make the paths absolute.

    With `has_own_model`, the options of all models are refused, because none applies to the model of the caller.
    """
    for name, value in vars(config).items():
        for interval in _parts_of(TrainConfig.__annotations__[name], _Interval):
            if value is not None and value not in interval:
                raise ValueError(f"{name} must be in {interval.text}, got {reprlib.repr(value)}")
    sources = ["tokens", "text", "corpus", *([] if config.tokens is None else _OF_TOKENS)]
    given = [name for name in sources if getattr(config, name) != getattr(TrainConfig, name)]
    if len(given) > 1:
        one, other = (f"{name} {getattr(config, name)}" for name in given[:2])
        raise ValueError(f"{one} and {other} exclude each other; remove one")
    if config.warmup_steps >= config.num_steps:
        raise ValueError(f"warmup_steps must be below num_steps {config.num_steps}, got {config.warmup_steps}")
    filled = {}
    for choice, by_choice in _DEPENDENT_OPTIONS.items():
        chosen = "own" if has_own_model and choice == "model" else getattr(config, choice)
        defaults = by_choice.get(chosen, {})
        if "lr" in defaults and config.optimizer in _ADAPTIVE_LR:
            defaults = defaults | {"lr": _ADAPTIVE_LR[config.optimizer]}
        for name in sorted(set().union(*by_choice.values())):
            value = getattr(config, name)
            if name in defaults:
                filled[name] = defaults[name] if value is None else value
            elif value is not None and value is not False:
                raise ValueError(f"{name} {value} does not apply to {choice} {chosen}; remove it")
    if config.tokens is not None:
        filled["vocab_size"] = None
    return with_absolute_paths(dataclasses.replace(config, **filled))


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Return the config with absolute paths."""
    paths: Any = {name: path.absolute() for name, path in vars(config).items() if isinstance(path, Path)}
    return dataclasses.replace(config, **paths)


def reset_dependent_options(config: TrainConfig, **choices: str | Path) -> TrainConfig:
    """Reset the options that depend on the model, tokenizer or optimizer, if `choices` changes it."""
    others = [name for name, choice in choices.items() if choice != getattr(config, name)]
    groups = _DEPENDENT_OPTIONS | {"optimizer": {"any": {"lr": None}}}
    names = {name for other in others for options in groups[other].values() for name in options}
    return dataclasses.replace(config, **{name: getattr(TrainConfig, name) for name in names})


def accepts_float(name: str) -> bool:
    """Return whether the option exists and may be a number with a fraction."""
    return float in _parts_of(TrainConfig.__annotations__.get(name), type)


def config_to_json(config: TrainConfig) -> dict[str, Any]:
    """Return the options as a JSON object for `config_from_json`."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(config).items()}


def config_to_command(config: TrainConfig) -> list[str]:
    """Return the words of the command that trains a model with these options, such as `jaxlm train --lr 0.5`.

    >>> config_to_command(TrainConfig(model="bigram", lr=0.3, clip_norm=None, seed=2))
    ['jaxlm', 'train', '--model', 'bigram', '--lr', '0.3', '--clip-norm', 'None', '--seed', '2']
    """
    choices = {name: getattr(config, name) for name in ("model", "tokenizer", "optimizer", "tokens", "num_steps")}
    defaults, words = vars(resolve(TrainConfig(**choices))), ["jaxlm", "train"]
    for name, value in vars(config).items():
        if value != getattr(TrainConfig, name) and (name in choices or value != defaults[name]):
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def config_from_json(document: Any, *, origin: str | Path) -> TrainConfig:
    """Return the config in a JSON object, with defaults for missing options. Errors name `origin`."""
    if not isinstance(document, dict):
        raise ValueError(f"{origin} is not a config: expected a JSON object of options such as {{'model': 'mlp'}}")
    names = TrainConfig.__annotations__
    if unknown := sorted(document.keys() - names.keys()):
        raise ValueError(f"{origin}: unknown option {unknown[0]!r:.100}; available options: {', '.join(names)}")
    try:
        return TrainConfig(**document)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


def read_config(path: str | Path) -> TrainConfig:
    """Read a config from a JSON file with any subset of the options."""
    return config_from_json(read_json(path), origin=path)


def _convert(name: str, value: Any) -> Any:
    """Return the value as a Python type, or raise a ValueError that names the option."""
    if type(value).__module__ == "numpy":  # a scalar; importing numpy is slow
        value = value.tolist()
    annotation = TrainConfig.__annotations__[name]
    kinds, choices = _parts_of(annotation, type), _parts_of(annotation, str)
    if isinstance(value, str) and value in choices:
        return value
    if Path in kinds and isinstance(value, str | os.PathLike):
        return expand(value)
    is_number = float in kinds and type(value) is int
    if is_number or (isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))):
        return value
    types = ["None" if kind is NoneType else kind.__name__ for kind in kinds]
    expected = " or ".join(types if not choices else [f"one of {', '.join(choices)}", *types])
    raise ValueError(f"{name} must be {expected}, got {reprlib.repr(value)}")


@functools.cache  # without it, reading 50 configs takes 0.2 s
def _parts_of(annotation: Any, kind: type) -> tuple[Any, ...]:
    """Return the parts of an annotation that are of a kind: types, choices of a `Literal`, or intervals."""
    if get_origin(annotation) is None:
        return (annotation,) if isinstance(annotation, kind) else ()
    return tuple(part for each in get_args(annotation) for part in _parts_of(each, kind))
