"""Training recipes for the MLP: files of options for `jaxlm train --config experiments/shared/recipes/NAME.json`.

Both recipes were selected on the last tenth of the training text of the classic tiny Shakespeare file, with
networks trained on the nine tenths before it. Perplexity there: `minute` 99.5, the ladder's own options 109.9,
`minute` with dropout 0.2 instead of weight decay 108.9; `ten_minutes` 94.3, with half of its weight decay 99.4.
"""

from dataclasses import replace
from pathlib import Path

from numpy.typing import ArrayLike

from experiments.shared.training import Trained, train
from jaxlm.runs.config import TrainConfig, read_config, resolve
from jaxlm.runs.setup import make_model, make_optimizer, train_key


def read_recipe(name: str, *, seed: int = 0, quick_steps: int | None = None) -> TrainConfig:
    """Return the resolved options in `NAME.json`; with `quick_steps`, for that many steps and 512 tokens."""
    config = replace(read_config(Path(__file__).with_name(f"{name}.json")), seed=seed)
    return resolve(replace(config, num_steps=quick_steps, vocab_size=512) if quick_steps else config)


def train_recipe(config: TrainConfig, vocab_size: int, train_ids: ArrayLike, val_ids: ArrayLike) -> Trained:
    """Train a network with a resolved config on ids [T]. The variables are those of `jaxlm train`, to the bit."""
    if config.patience is not None:
        raise ValueError(f"patience must be None, got {config.patience}: use `jaxlm train` to stop early")
    return train(
        make_model(config, vocab_size),
        train_ids,
        config.num_steps,
        key=train_key(config),
        val_ids=val_ids,
        batch_size=config.batch_size,
        optimizer=make_optimizer(config),
    )
