"""Training recipes for the MLP: files of options for `jaxlm train --config experiments/shared/recipes/NAME.json`.

Both recipes were selected on the last tenth of the training text of the classic tiny Shakespeare file, with
networks trained on the nine tenths before it. Perplexity there: `minute` 99.5, the ladder's own options 109.9,
`minute` with dropout 0.2 instead of weight decay 108.9; `ten_minutes` 94.3, with half of its weight decay 99.4.
"""

from pathlib import Path

from numpy.typing import ArrayLike

from experiments.shared.training import Trained, train
from jaxlm.runs.config import TrainConfig, read_config
from jaxlm.runs.setup import make_model, make_optimizer, train_key


def read_recipe(name: str) -> TrainConfig:
    """Return the options in `NAME.json`, with defaults for the rest."""
    return read_config(Path(__file__).with_name(f"{name}.json"))


def train_recipe(config: TrainConfig, vocab_size: int, train_ids: ArrayLike, val_ids: ArrayLike) -> Trained:
    """Train a network with a resolved config on ids [T]. The variables are those of `jaxlm train`, to the bit.

    `patience` is ignored; no recipe sets it.
    """
    return train(
        make_model(config, vocab_size),
        train_ids,
        config.num_steps,
        key=train_key(config),
        val_ids=val_ids,
        batch_size=config.batch_size,
        optimizer=make_optimizer(config),
    )
