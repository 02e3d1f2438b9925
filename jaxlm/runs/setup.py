"""Turn the options of a run into data, model, optimizer and device."""

from typing import Any, NamedTuple, cast

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from rich.console import Console

from jaxlm.checkpoints.model_spec import is_library_model
from jaxlm.checkpoints.named_arrays import variables_to_arrays
from jaxlm.devices.selection import choose_device, format_device
from jaxlm.models import CountsBigramLM, CountsNgramLM, LanguageModel, MLPLanguageModel, NeuralBigramLM
from jaxlm.models.interface import init, num_init_params
from jaxlm.runs.config import TrainConfig, resolve
from jaxlm.runs.own import Metrics, Own, OwnTokenizer
from jaxlm.runs.tensorboard import check_tensorboard
from jaxlm.text.dataset import Dataset, load_dataset
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.training.early_stopping import EarlyStopping
from jaxlm.training.optimizers import sgd
from jaxlm.training.sharding import check_sharding
from jaxlm.training.state import TrainState, init_state
from jaxlm.utils.terminal import print_plain

# The keys are `fold_in(key(seed), fold)`. The ladder experiment uses the same folds.
_TRAIN_FOLDS = {"bigram": 0, "mlp": 1}
SAMPLE_FOLD = 2

_TITLES = {"counts": "counts bigram", "bigram": "neural bigram", "mlp": "MLP"}

_MAX_PARAMS = 2**40  # 4 TiB; XLA aborts the process when a byte count exceeds 64 bits


class TrainingSetup(NamedTuple):
    """The data, model, optimizer, device and metrics of a training run."""

    config: TrainConfig
    data: Dataset
    model: LanguageModel
    optimizer: optax.GradientTransformation | None  # None for counts, which are not trained
    device: jax.Device
    metrics: Metrics
    name: str  # of the model in the manifest, the log and the results
    title: str  # of the model in tables and plots
    mesh: Mesh | None = None  # devices that share each batch

    @property
    def record_ids(self) -> Any:
        """The validation tokens that a record uses: those of the first `val_windows` windows."""
        num_windows = self.config.val_windows
        return self.data.val_ids[: None if num_windows is None else num_windows + self.model.context_length]

    @property
    def num_devices(self) -> int:
        """The number of devices that share each batch."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def placement(self) -> dict[str, Any]:
        """The keyword arguments of `evaluate` that say where to compute."""
        if self.mesh is None:
            return {"device": self.device}
        return {"mesh": self.mesh, "num_shards": self.config.grad_shards}

    def compute_metrics(self, variables: Any, val_ids: Any) -> dict[str, float]:
        """Return the caller's metrics of the model."""
        metrics = (self.metrics or {}).items()
        return {name: float(metric(self.model, variables, val_ids)) for name, metric in metrics}

    @property
    def saved_tokenizer(self) -> Tokenizer | None:
        """The tokenizer, or None if it is a caller's and cannot be saved."""
        return None if isinstance(self.data.tokenizer, OwnTokenizer) else self.data.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """The kind of the tokenizer: char, byte or bpe, or the name of a caller's class."""
        if isinstance(self.data.tokenizer, OwnTokenizer):
            return self.data.tokenizer.name
        return type(self.data.tokenizer).__name__.removesuffix("Tokenizer").lower()


def prepare_training(
    config: TrainConfig, own: Own | None, console: Console, mesh: Mesh | None = None
) -> TrainingSetup:
    """Load the text, build the model and the optimizer, and choose the device, unless there is a mesh.

    `config` must be resolved. `own` replaces some of its options. Raises an OSError or a ValueError if the text or
    the device is not available, the text is too short, or the model is too large.
    """
    own = own or Own()
    if config.tensorboard:
        check_tensorboard()
    context_length = config.context_length or 1 if own.model is None else own.model.context_length
    tokenizer = config.tokenizer if own.tokenizer is None else own.tokenizer
    options: Any = {name: getattr(config, name) for name in ("tokens", "vocab_size", "val_fraction")}
    options |= {"min_tokens": context_length + 1, "console": console}
    data = load_dataset(config.corpus, config.text, tokenizer, **options)
    characters = f"{len(data.corpus.text):,} characters, " if config.tokens is None else ""
    tokens = f"{len(data.train_ids):,} training tokens, {len(data.val_ids):,} validation tokens"
    vocabulary = f"vocabulary of {data.tokenizer.vocab_size:,}"
    print_plain(console, f"{data.corpus.source}: {characters}{tokens}, {vocabulary}")
    model = make_model(config, data.tokenizer.vocab_size) if own.model is None else own.model
    if model.vocab_size < data.tokenizer.vocab_size:
        sizes = f"{model.vocab_size}, less than the {data.tokenizer.vocab_size} tokens of the tokenizer"
        raise ValueError(f"model must have at least the vocab_size of the tokenizer, got {sizes}")
    if not is_library_model(model):  # before training, because the trained variables must be saved
        variables_to_arrays(model, jax.eval_shape(lambda: init(model, jax.random.key(0))))
    size = num_init_params(model)
    if size > _MAX_PARAMS:
        raise ValueError(f"the model has {size:,} parameters, more than {_MAX_PARAMS:,}; choose smaller sizes")
    if mesh is None:
        device = select_device(config.device, size, console)
        mesh = None if config.grad_shards is None else Mesh(np.array([device]), ("data",))
    else:
        device = mesh.local_devices[0]
        processes = f" of {jax.process_count()} processes" if mesh.is_multi_process else ""
        print_plain(console, f"devices: {mesh.size} {device.platform}{processes}, which share each batch")
    optimizer = None
    if not isinstance(model, CountsBigramLM | CountsNgramLM):
        if mesh is not None:
            check_sharding(mesh, config.grad_shards, config.batch_size)
        optimizer = make_optimizer(config) if own.optimizer is None else own.optimizer
    name = config.model if own.model is None else type(model).__name__
    return TrainingSetup(config, data, model, optimizer, device, own.metrics, name, _TITLES.get(name, name), mesh)


def select_device(name: str, num_weights: int, console: Console) -> jax.Device:
    """Choose a device for a model of this size, print it with the reason, and return it."""
    device, reason = choose_device(name, num_weights=num_weights)
    print_plain(console, f"device: {format_device(device)}: {reason}")
    return device


def make_model(config: TrainConfig, vocab_size: int) -> LanguageModel:
    """Return the model of a resolved config."""
    options: Any = config  # Any: mypy cannot know that a resolved config has no None here
    match config.model:
        case "counts":
            return CountsBigramLM(vocab_size, smoothing=options.smoothing)
        case "bigram":
            return NeuralBigramLM(vocab_size, options.embedding_dim)
        case "mlp":
            sizes = options.context_length, options.embedding_dim, options.hidden_dim
            return MLPLanguageModel(vocab_size, *sizes, options.dropout, options.direct_connections)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation | None:
    """Return the optimizer of a resolved config, or None for counts."""
    if config.lr is None:
        return None
    if config.optimizer == "sgd":
        names = "schedule", "warmup_steps", "momentum", "weight_decay", "clip_norm"
        return sgd(config.lr, config.num_steps, **{name: getattr(config, name) for name in names})
    warmup = config.lr / (config.warmup_steps + 1), config.lr, config.warmup_steps
    is_cosine, decay = config.schedule == "cosine", config.weight_decay
    cosine, constant = optax.warmup_cosine_decay_schedule, optax.warmup_constant_schedule
    rate = cosine(*warmup, config.num_steps) if is_cosine else constant(*warmup)
    transforms = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    match config.optimizer:
        case "adam":
            transforms += [optax.add_decayed_weights(decay), optax.adam(rate, config.momentum)]
        case "adamw":
            transforms += [optax.adamw(rate, config.momentum, weight_decay=decay)]
        case "muon":
            muon = optax.contrib.muon
            transforms += [muon(rate, beta=config.momentum, weight_decay=decay, adam_weight_decay=decay)]
    return optax.chain(*transforms)


def training_recipe(config: TrainConfig, vocab_size: int) -> tuple[LanguageModel, dict[str, Any]]:
    """Return the model and the keyword arguments of `train_lm` for the bits of `jaxlm train` with these options.

    The key is `jax.random.fold_in(jax.random.key(seed), fold)`, where fold is 0 for `bigram` and 1 for `mlp`.

    Args:
        config: options of a model that is trained, not counted.
        vocab_size: that of the tokenizer.

    >>> from jaxlm import train_lm
    >>> config = TrainConfig(model="bigram", num_steps=50, batch_size=4, seed=3)
    >>> model, options = training_recipe(config, vocab_size=3)
    >>> variables, history = train_lm(model, [0, 1, 2] * 9, **options)
    >>> history["train_losses"][-1] < 0.1
    True
    """
    config = resolve(config)
    if (optimizer := make_optimizer(config)) is None:
        raise ValueError(f"model {config.model} is not trained; call fit of its class")
    options = train_arguments(config) | {"optimizer": optimizer, "device": config.device}
    return make_model(config, vocab_size), options | {"patience": config.patience}


def train_arguments(config: TrainConfig) -> dict[str, Any]:
    """Return the keyword arguments of `train` that the options determine, except the optimizer and the device."""
    options = {name: getattr(config, name) for name in ("batch_size", "num_steps", "log_every", "grad_shards")}
    return options | {"key": train_key(config)}


def train_key(config: TrainConfig) -> jax.Array:
    """Return the random key of training."""
    return jax.random.fold_in(jax.random.key(config.seed), _TRAIN_FOLDS.get(config.model, 1))


def train_options(setup: TrainingSetup) -> dict[str, Any]:
    """Return the keyword arguments of `train` that the setup determines."""
    options = train_arguments(setup.config) | {"yield_every": setup.config.save_every}
    options |= {"device": setup.device} if setup.mesh is None else {"mesh": setup.mesh}
    return options | {"val_ids": setup.record_ids, "optimizer": setup.optimizer}


def abstract_state(
    model: LanguageModel, optimizer: optax.GradientTransformation | None, config: TrainConfig
) -> tuple[TrainState, EarlyStopping]:
    """Return `like` of `load_checkpoint` for the run, without allocating arrays.

    Without an optimizer, its `opt_state` is None, and that of the checkpoint is not loaded.
    """
    state = jax.eval_shape(lambda: init_state(model, optimizer or optax.identity(), key=train_key(config)))
    state = state if optimizer is not None else state._replace(opt_state=None)
    return cast(TrainState, state), EarlyStopping(state.params, np.float32(0), np.int32(0))
