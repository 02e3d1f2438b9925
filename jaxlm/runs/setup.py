"""What a run of training works with, made of its options."""

from typing import Any, NamedTuple

import jax
import optax
from rich.console import Console

from jaxlm.devices.selection import choose_device, format_device
from jaxlm.models import CountsBigramLM, LanguageModel, MLPLanguageModel, NeuralBigramLM
from jaxlm.models.interface import num_init_params
from jaxlm.runs.config import TrainConfig
from jaxlm.text.dataset import Dataset, load_dataset
from jaxlm.text.tokenizers import Tokenizer
from jaxlm.training.optimizers import sgd
from jaxlm.training.state import TrainState, init_state
from jaxlm.utils.terminal import print_plain

# Keys are `fold_in(seed, ...)` of these: those of the ladder, so that the same options give the same bits there.
_TRAIN_FOLDS = {"bigram": 0, "mlp": 1}
SAMPLE_FOLD = 2

_MOST_WEIGHTS = 2**40  # 4 TiB; XLA ends the process where a number of bytes passes 64 bits


class TrainingSetup(NamedTuple):
    """What a run works with. Counts have no optimizer."""

    config: TrainConfig
    data: Dataset
    model: LanguageModel
    optimizer: optax.GradientTransformation | None
    device: jax.Device


def prepare_training(config: TrainConfig, tokenizer: Tokenizer | None, console: Console) -> TrainingSetup:
    """Text, model and optimizer of a resolved config, and where it runs.

    Args:
        tokenizer: one that is trained already; None trains the one that the config asks for.

    Raises:
        OSError, ValueError: the text or the device cannot be had, the text is too short, or the model too large.
    """
    data = load_dataset(
        config.corpus,
        config.text,
        config.tokenizer if tokenizer is None else tokenizer,
        vocab_size=config.vocab_size,
        val_fraction=config.val_fraction,
        min_tokens=(config.context_length or 1) + 1,
    )
    print_plain(
        console,
        f"{data.corpus.source}: {len(data.corpus.text):,} characters, {len(data.train_ids):,} tokens to train, "
        f"{len(data.val_ids):,} to validate, vocabulary {data.tokenizer.vocab_size:,}",
    )
    model = make_model(config, data.tokenizer.vocab_size)
    size = num_init_params(model)
    if size > _MOST_WEIGHTS:
        raise ValueError(f"the model would have {size:,} weights, more than {_MOST_WEIGHTS:,}; make it smaller")
    device, reason = choose_device(config.device, num_weights=size)
    print_plain(console, f"device: {format_device(device)}: {reason}")
    return TrainingSetup(config, data, model, make_optimizer(config), device)


def make_model(config: TrainConfig, vocab_size: int) -> LanguageModel:
    """The model that a resolved config describes."""
    options: Any = config  # resolved: what its model needs is there
    match config.model:
        case "counts":
            return CountsBigramLM(vocab_size, smoothing=options.smoothing)
        case "bigram":
            return NeuralBigramLM(vocab_size, options.embedding_dim)
        case "mlp":
            return MLPLanguageModel(
                vocab_size,
                options.context_length,
                options.embedding_dim,
                options.hidden_dim,
                options.dropout,
                options.direct_connections,
            )


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation | None:
    """The optimizer that a resolved config describes; None for counts."""
    if config.lr is None:
        return None
    return sgd(
        config.lr,
        config.num_steps,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        decoupled_decay=config.decoupled_decay,
        clip_norm=config.clip_norm,
    )


def train_key(config: TrainConfig) -> jax.Array:
    """The key of `train_lm` for this seed and model."""
    return jax.random.fold_in(jax.random.key(config.seed), _TRAIN_FOLDS[config.model])


def train_options(job: TrainingSetup) -> dict[str, Any]:
    """What `train_lm` is told of the job, beside its model and text, however it is saved."""
    config = job.config
    return {
        "key": train_key(config),
        "val_ids": job.data.val_ids,
        "batch_size": config.batch_size,
        "num_steps": config.num_steps,
        "optimizer": job.optimizer,
        "log_every": config.log_every,
        "patience": config.patience,
        "device": job.device,
    }


def abstract_state(
    model: LanguageModel, optimizer: optax.GradientTransformation, config: TrainConfig
) -> TrainState:
    """Names, shapes and dtypes of the run's state, without its numbers."""
    state: TrainState = jax.eval_shape(
        lambda: init_state(model, optimizer, train_key(config), patience=config.patience)
    )
    return state
