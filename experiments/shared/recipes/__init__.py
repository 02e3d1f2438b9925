"""Recipes of training, each a file of options: `jaxlm train --config experiments/shared/recipes/minute.json`.

`minute` and `ten_minutes` were chosen on the last tenth of the training text of the classic tiny Shakespeare
file, the networks trained on what comes before it. There `minute` has a perplexity of 99.5, the ladder's own
options have 109.9, and `minute` with dropout 0.2 in place of weight decay 108.9; `ten_minutes` has 94.3, and 99.4
with half of its weight decay.
"""

from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

import jaxlm
from jaxlm.runs.config import TrainConfig, read_config
from jaxlm.runs.setup import make_model, make_optimizer, train_key
from jaxlm.utils.timing import Timing, measure_time


class Trained(NamedTuple):
    """A network that a recipe made, its validation perplexity, and the seconds that it took."""

    model: jaxlm.LanguageModel
    variables: Any
    perplexity: float
    timing: Timing


def recipe_config(name: str) -> TrainConfig:
    """The options of `NAME.json` beside this file; what it leaves out has its default."""
    return read_config(Path(__file__).with_name(f"{name}.json"))


def train_recipe(config: TrainConfig, vocab_size: int, train_ids: ArrayLike, val_ids: ArrayLike) -> Trained:
    """Trains what a resolved config describes on ids [T], and scores it on others: the bits of `jaxlm train`.

    Patience, which no recipe has, is not obeyed.
    """
    model = make_model(config, vocab_size)
    with measure_time() as timing:
        variables, history = jaxlm.train_lm(
            model,
            train_ids,
            key=train_key(config),
            val_ids=val_ids,
            batch_size=config.batch_size,
            num_steps=config.num_steps,
            optimizer=make_optimizer(config),
            log_every=config.num_steps,
        )
    return Trained(model, variables, history["val_perplexities"][-1], timing)
